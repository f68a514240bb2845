from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def float64() -> Iterator[None]:
    """Identities are tested where rounding is 1e-16."""
    with jax.enable_x64(True):
        yield
