from collections.abc import Iterator
from typing import Any

import jax
import pytest


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """One entry for every program that is compiled meanwhile."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
