"""The user's own table: regression from a few rows of a group."""

from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
)


def table(algorithm: str) -> Config:
    """A small network and five inner steps on five rows; all other rows of a group are queries, up to a thousand.

    The settings are ours, for columns with mean 0 and standard deviation 1. Training takes half a minute on a laptop.
    """
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset="table", ways=1, shots=5, queries=1000),
        model=ModelConfig(kind="mlp", hidden=(32, 32), activation="tanh"),
        inner=InnerConfig(steps=5, learning_rate=0.05),
        outer=OuterConfig(
            meta_steps=2000,
            meta_batch=16,
            learning_rate=0.001,
            decay="cosine",
            clip=1.0,
            log_every=100,
            validate_every=500,
            checkpoint_every=500,
        ),
        evaluation=EvaluationConfig(steps=5, queries=1000),
    )
