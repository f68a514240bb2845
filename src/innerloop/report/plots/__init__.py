"""Every figure of the reports and analyses as a function that draws on matplotlib axes.

Each function takes the axes last (None: a new figure) and returns them, as in seaborn. Functions with several panels
take and return an array of axes like that of `matplotlib.pyplot.subplots`.
"""

from innerloop.report.plots.analysis import freezing as freezing
from innerloop.report.plots.analysis import movement as movement
from innerloop.report.plots.analysis import nil as nil
from innerloop.report.plots.analysis import similarity as similarity
from innerloop.report.plots.analysis import similarity_of_models as similarity_of_models
from innerloop.report.plots.analysis_paths import along_training as along_training
from innerloop.report.plots.analysis_paths import inner_steps as inner_steps
from innerloop.report.plots.analysis_paths import loss_along_step as loss_along_step
from innerloop.report.plots.analysis_paths import loss_plane as loss_plane
from innerloop.report.plots.analysis_paths import paths as paths
from innerloop.report.plots.runs import adaptation as adaptation
from innerloop.report.plots.runs import training as training
from innerloop.report.plots.side_by_side import freezing_of_runs as freezing_of_runs
from innerloop.report.plots.side_by_side import movement_of_runs as movement_of_runs
from innerloop.report.plots.side_by_side import nil_of_runs as nil_of_runs
from innerloop.report.plots.side_by_side import similarity_of_runs as similarity_of_runs
from innerloop.report.plots.tasks import predictions as predictions
from innerloop.report.plots.tasks import walks as walks
from innerloop.report.plots.tasks import wave as wave
