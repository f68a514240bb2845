import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Identities are tested where rounding is 1e-16, in programs that are quick to compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", before)
