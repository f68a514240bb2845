import jax
import pytest
from tests.learner.learners import ALGORITHM

from innerloop.learner.learner import Learner
from innerloop.nn import MLP


@pytest.fixture(scope="module")
def learner():
    """Five outputs on four features, without batch normalisation."""
    return Learner(MLP(4, 5, hidden=(), key=jax.random.key(0)), ALGORITHM)


@pytest.fixture(scope="module")
def normalized():
    return Learner(MLP(4, 3, hidden=(6,), normalize=True, key=jax.random.key(0)), ALGORITHM)
