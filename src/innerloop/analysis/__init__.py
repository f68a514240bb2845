"""The feature-reuse laboratory: is an initialisation good because it learns quickly, or because it knows already?

Every experiment is a function of a `Subject` (an initialisation, its inner loop, its named layers and held-out tasks)
that returns plain records. `subject_of` makes one from a trained run, and any pytree model can fill in its own.
"""

from innerloop.analysis.cca import canonical_correlations as canonical_correlations
from innerloop.analysis.cca import mean_cca as mean_cca
from innerloop.analysis.cca import pwcca as pwcca
from innerloop.analysis.cca import svcca as svcca
from innerloop.analysis.cka import linear_cka as linear_cka
from innerloop.analysis.cka import rbf_cka as rbf_cka
from innerloop.analysis.early import along_training as along_training
from innerloop.analysis.freeze import contiguous as contiguous
from innerloop.analysis.freeze import freezing as freezing
from innerloop.analysis.landscape import line as line
from innerloop.analysis.landscape import plane as plane
from innerloop.analysis.layers import NamedLayers as NamedLayers
from innerloop.analysis.layers import named_layers as named_layers
from innerloop.analysis.movement import movement as movement
from innerloop.analysis.nil import nil as nil
from innerloop.analysis.paths import inner_paths as inner_paths
from innerloop.analysis.similarity import across as across
from innerloop.analysis.similarity import before_and_after as before_and_after
from innerloop.analysis.steps import by_step as by_step
from innerloop.analysis.subject import Subject as Subject
from innerloop.analysis.subject import subject_of as subject_of
