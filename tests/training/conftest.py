from dataclasses import replace
from pathlib import Path

import pytest

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, EvaluationConfig, ModelConfig, OuterConfig


@pytest.fixture(scope="session")
def tiny() -> Config:
    """The sinusoid preset in a second: 12 meta-steps of 2 tasks, a line every 2, a checkpoint every 4."""
    return replace(
        preset("sinusoid-maml"),
        model=ModelConfig(kind="mlp", hidden=(4,)),
        outer=OuterConfig(meta_steps=12, meta_batch=2, log_every=2, validate_every=6, checkpoint_every=4),
        evaluation=EvaluationConfig(steps=2, tasks=6, validation_tasks=4, queries=3),
    )


@pytest.fixture(scope="session")
def finished(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `tiny` that was never interrupted."""
    from innerloop.training.train import train

    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(tiny, folder)
    return folder
