"""MAML's navigation and locomotion protocols."""

from dataclasses import replace

from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
    RLConfig,
)
from innerloop.config.specs import ALGORITHMS


def navigation(algorithm: str) -> Config:
    """MAML's 2D navigation (section 5.3, appendix A.2): 20 goals, 20 trajectories each, inner step 0.5 (its code).

    As in the published code, each update at test uses as many environment steps as 40 full trajectories have, and the
    step size is 0.5 for the first update and half of it for the others. The surrogate is that of the published code,
    too. Late outer steps of constant size would only follow the noise of their 20 goals, so the step size decays over
    the run. The curvature is estimated from a fifth of the tasks, with five conjugate gradient iterations, which is
    faster than the published ten; ANIL keeps ten.
    """
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset="navigation"),
        model=ModelConfig(kind="mlp", hidden=(100, 100)),
        inner=InnerConfig(steps=1, learning_rate=0.5),
        outer=OuterConfig(
            meta_steps=400,
            meta_batch=20,
            decay="linear",
            log_every=5,
            validate_every=100,
            checkpoint_every=25,
            snapshots=0,
        ),
        evaluation=EvaluationConfig(tasks=40, steps=3, validation_tasks=40),
        rl=RLConfig(
            surrogate="log_probability",
            fisher_fraction=0.2,
            conjugate_gradients=10 if ALGORITHMS[algorithm].adapts == "head" else 5,
            test_restarts=True,
        ),
    )


def navigation_presets() -> dict[str, Config]:
    """MAML, its variants and the paper's baselines."""
    found = {f"navigation-{a}-trpo": navigation(a) for a in ("maml", "anil", "fomaml")}
    reptile = navigation("reptile")
    found["navigation-reptile"] = replace(
        reptile,
        inner=replace(reptile.inner, steps=3),
        outer=replace(reptile.outer, optimizer="sgd", learning_rate=0.1, decay="linear"),
        rl=replace(reptile.rl, outer="gradient"),
    )
    joint = navigation("joint")
    found["navigation-pretrained"] = joint
    found["navigation-oracle"] = replace(joint, data=replace(joint.data, oracle=True))
    found["navigation-random"] = replace(joint, outer=replace(joint.outer, meta_steps=0))
    return found


def locomotion(family: str, algorithm: str) -> Config:
    """MAML's half-cheetah and ant (section 5.3, appendix A.2): 40 tasks, 20 trajectories of 200 steps, step size 0.1.

    At test, steps after the first are half as large. `LOCOMOTION` holds the exceptions.
    """
    rl = RLConfig(
        test_trajectories=20, horizon=200, surrogate="log_probability", fisher_fraction=0.2, test_lr_decay=0.5
    )
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset=family),
        model=ModelConfig(kind="mlp", hidden=(100, 100)),
        inner=InnerConfig(steps=1, learning_rate=0.1),
        outer=OuterConfig(
            meta_steps=500, meta_batch=40, log_every=1, validate_every=25, checkpoint_every=5, snapshots=0
        ),
        evaluation=EvaluationConfig(tasks=40, steps=3, validation_tasks=20),
        rl=replace(rl, **LOCOMOTION[family]),
    )


LOCOMOTION: dict[str, dict[str, int | float]] = {
    "half_cheetah_direction": {"max_kl": 0.02},  # as the published policy moved
    "half_cheetah_velocity": {},
    "ant_direction": {"trajectories": 40, "test_trajectories": 40, "test_lr_decay": 0.01},
    "ant_velocity": {},
}
"""The bodies and goals, with settings that differ from the common ones."""


def locomotion_presets() -> dict[str, Config]:
    """MAML and ANIL for every body and goal."""
    return {
        f"{family.replace('_', '-')}-{algorithm}-trpo": locomotion(family, algorithm)
        for family in LOCOMOTION
        for algorithm in ("maml", "anil")
    }
