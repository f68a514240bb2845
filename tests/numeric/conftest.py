import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Identities are tested where rounding is 1e-16."""
    with jax.enable_x64(True):
        yield
