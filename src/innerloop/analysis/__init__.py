"""Feature-reuse analysis: is an initialisation good because it adapts quickly, or because its features already are?

Every experiment is a function of an `AnalyzedModel` (an initialisation, its inner loop, its named layers and held-out
tasks) that returns plain records. `AnalyzedModel.from_trained` makes one from a trained run; for any other pytree,
construct your own.
"""

from innerloop.analysis.analyzed_model import AnalyzedModel as AnalyzedModel
from innerloop.analysis.cca import canonical_correlations as canonical_correlations
from innerloop.analysis.cca import mean_cca as mean_cca
from innerloop.analysis.cca import pwcca as pwcca
from innerloop.analysis.cca import svcca as svcca
from innerloop.analysis.cka import linear_cka as linear_cka
from innerloop.analysis.cka import rbf_cka as rbf_cka
from innerloop.analysis.freezing import contiguous as contiguous
from innerloop.analysis.freezing import freezing as freezing
from innerloop.analysis.inner_paths import inner_paths as inner_paths
from innerloop.analysis.inner_steps import inner_step_curves as inner_step_curves
from innerloop.analysis.loss_landscape import loss_line as loss_line
from innerloop.analysis.loss_landscape import loss_plane as loss_plane
from innerloop.analysis.nil import nil as nil
from innerloop.analysis.run_all import Request as Request
from innerloop.analysis.run_all import analyze as analyze
from innerloop.analysis.similarity import similarity_across_models as similarity_across_models
from innerloop.analysis.similarity import similarity_before_and_after as similarity_before_and_after
from innerloop.analysis.training_dynamics import along_training as along_training
from innerloop.analysis.verdict import Verdict as Verdict
from innerloop.analysis.verdict import judge as judge
from innerloop.analysis.weight_movement import layer_movement as layer_movement
from innerloop.nn.named_layers import NamedLayers as NamedLayers
from innerloop.nn.named_layers import named_layers as named_layers
