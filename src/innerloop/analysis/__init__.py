"""The feature-reuse laboratory: is an initialisation good because it learns quickly, or because it knows already?

Every experiment is a function of a `Subject` (an initialisation, its inner loop, its named layers and held-out tasks)
that returns plain records. `subject_of` makes one from a trained run, and any pytree model can fill in its own.
"""

from innerloop.analysis.analyzed_model import Subject as Subject
from innerloop.analysis.analyzed_model import subject_of as subject_of
from innerloop.analysis.cca import canonical_correlations as canonical_correlations
from innerloop.analysis.cca import mean_cca as mean_cca
from innerloop.analysis.cca import pwcca as pwcca
from innerloop.analysis.cca import svcca as svcca
from innerloop.analysis.cka import linear_cka as linear_cka
from innerloop.analysis.cka import rbf_cka as rbf_cka
from innerloop.analysis.freezing import contiguous as contiguous
from innerloop.analysis.freezing import freezing as freezing
from innerloop.analysis.inner_paths import inner_paths as inner_paths
from innerloop.analysis.inner_steps import by_step as by_step
from innerloop.analysis.loss_landscape import line as line
from innerloop.analysis.loss_landscape import plane as plane
from innerloop.analysis.nil import nil as nil
from innerloop.analysis.similarity import across as across
from innerloop.analysis.similarity import before_and_after as before_and_after
from innerloop.analysis.training_dynamics import along_training as along_training
from innerloop.analysis.weight_movement import movement as movement
from innerloop.nn.named_layers import NamedLayers as NamedLayers
from innerloop.nn.named_layers import named_layers as named_layers
