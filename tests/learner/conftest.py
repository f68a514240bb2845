import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def compile_quickly():
    """Most of the time here would go into optimising programs that run once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
