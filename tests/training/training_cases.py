"""An experiment on a few noisy images."""

import numpy as np

from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
)
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.experiments.supervised import SupervisedExperiment


def classes(count: int, side: int = 4) -> ClassArrays:
    """`count` classes of 8 noisy images."""
    rng = np.random.default_rng(count)
    centres = rng.integers(0, 200, (count, 1, side, side, 1))
    images = (centres + rng.integers(0, 50, (count, 8, side, side, 1))).astype(np.uint8)
    return ClassArrays.from_lists(list(images), [f"{count}-{i}" for i in range(count)])


SPLITS = Splits(classes(6), classes(3), classes(4))
CONFIG = Config(
    data=DataConfig(ways=3, shots=2, queries=3),
    model=ModelConfig(kind="mlp", hidden=(4,), normalize=True),
    inner=InnerConfig(steps=1, learning_rate=0.1),
    outer=OuterConfig(meta_steps=4, meta_batch=2, log_every=2, validate_every=0),
    evaluation=EvaluationConfig(tasks=4, steps=2, queries=2, validation_tasks=4),
)
EPISODES = SupervisedExperiment(CONFIG, SPLITS)
