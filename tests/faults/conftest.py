"""Rows of the table in docs/reference/reliability.md: written where `make test-faults` asks for it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.child import SHORT
from tools.reliability_tables import put

from innerloop.config.schema import Config


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """`survived(fault, tried=, outcome=, lost=)`: one row, kept once the test has come to its end."""
    rows: list[dict[str, object]] = []

    def note(fault: str, tried: int, outcome: str, lost: str) -> None:
        where = f"tests/faults/{Path(request.node.path).name}::{request.node.name}"
        rows.append({"fault": fault, "tried": tried, "outcome": outcome, "lost": lost, "test": where})

    yield note
    assert rows, "the test says nothing of what it survived"
    if os.environ.get("INNERLOOP_RELIABILITY"):
        for row in rows:
            put("faults", str(row["fault"]), row)


@pytest.fixture(scope="session")
def short() -> Config:
    """12 meta-steps of 2 sinusoids, a line every 2, a checkpoint every 4."""
    return SHORT


@pytest.fixture(scope="session")
def finished(short: Config, tmp_path_factory: pytest.TempPathFactory, quickly: Callable) -> Path:
    """A run of `short` that was never disturbed, compiled quickly."""
    from innerloop.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "finished"
    with quickly():
        train(short, folder)
    return folder
