import pytest


@pytest.fixture(scope="module", autouse=True)
def compile_quickly(quick_compilation: None):
    """Most of the time here would go into optimising programs that run once."""
