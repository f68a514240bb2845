import jax
import pytest


@pytest.fixture
def float64(quick_compilation: None):
    """Identities are tested where rounding is 1e-16."""
    with jax.enable_x64(True):
        yield
