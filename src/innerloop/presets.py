"""Every paper protocol by name, as `DATA-WAYway-SHOTshot-ALGORITHM`, `sinusoid-ALGORITHM`, `navigation-...` or
`BODY-GOAL-ALGORITHM-trpo`.

Settings are those of the papers and of their published code; inner step sizes are for a loss that is a mean over
examples (MAML's code sums per-class means, so its 0.4 for 5 ways is 2.0 here). What differs from the paper is the
length of training, which here ends with the step size decayed to nothing; `--outer.meta-steps` sets it. Some follow
recipes of their own (`innerloop.recipes`), and `...-published` is then the paper's protocol.
"""

import difflib
from dataclasses import replace
from typing import Any

from innerloop.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
    RLConfig,
)
from innerloop.errors import InnerloopError
from innerloop.recipes import RECIPES
from innerloop.specs import ALGORITHMS, DATASETS

SINUSOID = ModelConfig(kind="mlp", hidden=(40, 40), scale=0.01)
OMNIGLOT = ModelConfig(kind="conv4", filters=64, downsample="stride", features="mean")
POOLED = ModelConfig(kind="conv4", filters=32, downsample="pool", features="flatten")


def sinusoid(algorithm: str) -> Config:
    """MAML's sinusoid (section 5.1): 10 shots, one inner step, Adam 0.001, 25 tasks, 70 000 meta-steps.

    The inner step size is the published code's 0.001. With the 0.01 that the paper prints the initialisation becomes
    so sharp that some tasks diverge when adapted for several steps on 5 points.
    """
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset="sinusoid", ways=1, shots=10, queries=10),
        model=SINUSOID,
        inner=InnerConfig(steps=1, learning_rate=0.001),
        outer=OuterConfig(
            meta_steps=70_000,
            meta_batch=25,
            log_every=1000,
            validate_every=5000,
            checkpoint_every=5000,
        ),
        evaluation=EvaluationConfig(steps=10, queries=100),
    )


def sinusoid_reptile() -> Config:
    """Reptile's sinusoid: all 50 points, 5 steps of 0.02 on 10 of them, outer step 0.1 falling to 0, 30 000 tasks."""
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


def images(dataset: str, ways: int, shots: int, algorithm: str) -> Config:
    """MAML's image protocols (section 5.2, appendix A.1) for everything but Reptile."""
    spec = DATASETS[dataset]
    if spec.drawings:
        steps, test_steps, meta_batch = (1, 3, 32) if ways == 5 else (5, 5, 16)
        inner = InnerConfig(steps=steps, learning_rate=2.0)
        outer = OuterConfig(meta_steps=15_000, meta_batch=meta_batch, decay="cosine")
        if not ALGORITHMS[
            algorithm
        ].second_order:  # 2.0 is too long a step for a gradient that does not see it
            inner = replace(inner, learning_rate=0.5)
        queries, test_queries = shots, shots
    else:
        inner, test_steps = InnerConfig(steps=5, learning_rate=0.05), 10
        outer = OuterConfig(meta_steps=10_000, meta_batch=4, decay="cosine", clip=10.0)
        queries, test_queries = 15, 15
    return Config(
        algorithm=algorithm,
        data=DataConfig(
            dataset=dataset,
            ways=ways,
            shots=shots,
            queries=queries,
            rotations=spec.rotations,
        ),
        model=OMNIGLOT if spec.drawings else POOLED,
        inner=inner,
        outer=outer,
        evaluation=EvaluationConfig(steps=test_steps, queries=test_queries),
    )


def images_reptile(dataset: str, ways: int, shots: int) -> Config:
    """Reptile's image protocols (its published commands): Adam inside, kept, 5 tasks, outer step 1 falling to 0."""
    spec = DATASETS[dataset]
    if spec.drawings:
        rate, batch, steps, train_shots = (0.001, 10, 5, 10) if ways == 5 else (0.0005, 20, 10, 10)
    else:
        rate, batch, steps, train_shots = 0.001, 10, 8, 15
    test_batch = (5 if shots == 1 else 15) if ways == 5 else 10
    return Config(
        algorithm="reptile",
        data=DataConfig(
            dataset=dataset,
            ways=ways,
            shots=shots,
            train_shots=train_shots,
            rotations=spec.rotations,
        ),
        model=replace(OMNIGLOT if spec.drawings else POOLED, features="flatten"),
        inner=InnerConfig(steps=steps, learning_rate=rate, optimizer="kept_adam", minibatch=batch),
        outer=OuterConfig(
            meta_steps=40_000, meta_batch=5, learning_rate=1.0, optimizer="sgd", decay="linear"
        ),
        evaluation=EvaluationConfig(steps=50, minibatch=test_batch, queries=1),
    )


def images_pretrained(dataset: str, ways: int, shots: int) -> Config:
    """The pre-trained baseline: classify all training classes, then fine-tune a new head and the body on each task."""
    like = images(dataset, ways, shots, "joint")
    return replace(
        like,
        data=replace(like.data, queries=64 // ways),
        inner=InnerConfig(steps=1, learning_rate=0.1),
        outer=replace(like.outer, meta_steps=4000, meta_batch=1),
        evaluation=replace(like.evaluation, steps=20),
    )


def navigation(algorithm: str) -> Config:
    """MAML's 2D navigation (section 5.3, appendix A.2): 20 trajectories of 20 goals, inner step 0.5 (published code).

    At test as many steps for each update as 40 trajectories have, the first update of step size 0.5 and the others half
    of it (both as in the published code). The surrogate is the published code's: with one inner step on 20 trajectories
    DiCE's second derivative is exact but so noisy that it learns more slowly. After some 200 iterations steps
    of one size only follow the noise of their 20 goals, so they fall over the run. The curvature comes from a fifth of
    the tasks; from a tenth the policies before adaptation wander off (returns below -100). Five conjugate gradients are
    faster than the published ten and end no worse: three seeds have returns of -2.9, -3.1 and -3.1 after three updates,
    and had -3.0, -3.2 and -4.0 with ten. ANIL keeps ten (one seed each: -3.8, with five -9.2).
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
        ),
        evaluation=EvaluationConfig(tasks=40, steps=3, validation_tasks=40),
        rl=RLConfig(
            surrogate="log_probability",
            fisher_share=0.2,
            conjugate_gradients=10 if ALGORITHMS[algorithm].moves == "head" else 5,
            test_restarts=True,
        ),
    )


def navigation_presets() -> dict[str, Config]:
    """MAML, its relatives and the baselines of the paper."""
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
    """MAML's half-cheetah and ant (section 5.3, appendix A.2): 40 tasks, 20 trajectories of 200 steps, inner step 0.1.

    At test half of the step after the first; `LOCOMOTION` has what is otherwise with some.
    """
    rl = RLConfig(
        test_trajectories=20, horizon=200, surrogate="log_probability", fisher_share=0.2, test_rate_decay=0.5
    )
    return Config(
        algorithm=algorithm,
        data=DataConfig(dataset=family),
        model=ModelConfig(kind="mlp", hidden=(100, 100)),
        inner=InnerConfig(steps=1, learning_rate=0.1),
        outer=OuterConfig(
            meta_steps=500,
            meta_batch=40,
            log_every=1,
            validate_every=25,
            checkpoint_every=5,
        ),
        evaluation=EvaluationConfig(tasks=40, steps=3, validation_tasks=20),
        rl=replace(rl, **LOCOMOTION[family]),
    )


LOCOMOTION: dict[str, dict[str, Any]] = {
    "half_cheetah_direction": {"max_kl": 0.02},  # as the published policy moved
    "half_cheetah_velocity": {},
    "ant_direction": {"trajectories": 40, "test_trajectories": 40, "test_rate_decay": 0.01},
    "ant_velocity": {},
}
"""The bodies and goals, with their settings of their own."""


def locomotion_presets() -> dict[str, Config]:
    """MAML and ANIL on every body and goal."""
    return {
        f"{family.replace('_', '-')}-{algorithm}-trpo": locomotion(family, algorithm)
        for family in LOCOMOTION
        for algorithm in ("maml", "anil")
    }


def all_presets() -> dict[str, Config]:
    """Every preset by name."""
    found = {f"sinusoid-{a}": sinusoid(a) for a in ("maml", "fomaml", "anil", "boil", "joint")}
    found["sinusoid-reptile"] = sinusoid_reptile()
    joint = found["sinusoid-joint"]
    found["sinusoid-oracle"] = replace(joint, data=replace(joint.data, oracle=True))
    settings = [("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1), ("omniglot", 20, 5)]
    settings += [("glyphs", 5, 1), ("glyphs", 5, 5)]
    settings += [(d, 5, shots) for d in ("cifar_fs", "fc100", "mini_imagenet") for shots in (1, 5)]
    for dataset, ways, shots in settings:
        stem = f"{dataset.replace('_', '-')}-{ways}way-{shots}shot"
        for algorithm in ("maml", "fomaml", "anil", "boil"):
            found[f"{stem}-{algorithm}"] = images(dataset, ways, shots, algorithm)
        found[f"{stem}-reptile"] = images_reptile(dataset, ways, shots)
        found[f"{stem}-joint"] = images_pretrained(dataset, ways, shots)
    for name, recipe in RECIPES.items():
        found[f"{name}-published"] = found[name]
        found[name] = recipe(found[name])
    found |= navigation_presets() | locomotion_presets()
    return {name: replace(config, name=name) for name, config in found.items()}


def preset(name: str) -> Config:
    """One preset. Raises InnerloopError for an unknown name, with the nearest ones."""
    known = all_presets()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    do = "did you mean " + " or ".join(near) + "?" if near else "`innerloop list` names them all"
    raise InnerloopError("preset", "there is none of this name", got=repr(name), do=do)
