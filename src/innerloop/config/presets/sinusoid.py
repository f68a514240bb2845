"""MAML's and Reptile's sinusoid regression."""

from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
)

SINUSOID = ModelConfig(kind="mlp", hidden=(40, 40), scale=0.01)


def sinusoid(algorithm: str) -> Config:
    """MAML's sinusoid (section 5.1): 10 shots, one inner step, Adam 0.001, 25 tasks, 70 000 meta-steps.

    The inner step size is the published code's 0.001. With the paper's 0.01, the initialisation becomes so sharp that
    some tasks diverge when adapted for several steps on 5 points.
    """
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset="sinusoid", ways=1, shots=10, queries=10),
        model=SINUSOID,
        inner=InnerConfig(steps=1, learning_rate=0.001),
        outer=OuterConfig(
            meta_steps=70_000, meta_batch=25, log_every=1000, validate_every=5000, checkpoint_every=5000
        ),
        evaluation=EvaluationConfig(steps=10, queries=100),
    )


def sinusoid_reptile() -> Config:
    """Reptile's sinusoid: 50 points, 5 steps of 0.02 on 10 of them, outer step 0.1 decaying to 0, 30 000 tasks."""
    return Config(
        algorithm="reptile",
        data=DataConfig(dataset="sinusoid", ways=1, shots=10, train_shots=50, queries=50, protocol="reptile"),
        model=ModelConfig(kind="mlp", hidden=(64, 64), activation="tanh"),
        inner=InnerConfig(steps=5, learning_rate=0.02, minibatch=10),
        outer=OuterConfig(
            meta_steps=30_000,
            meta_batch=1,
            learning_rate=0.1,
            optimizer="sgd",
            decay="linear",
            log_every=1000,
            validate_every=5000,
            checkpoint_every=5000,
        ),
        evaluation=EvaluationConfig(steps=32, queries=50),
    )
