from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(quick_compilation: None):
    """For whole modules, so that what a module's fixtures compile has the same bits as what its tests do."""


@pytest.fixture
def float64() -> Iterator[None]:
    """Identities are tested where rounding is 1e-16."""
    with jax.enable_x64(True):
        yield
