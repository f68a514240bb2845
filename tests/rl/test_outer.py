"""Whole meta-iterations: the constraint is kept, keys decide everything, every outer step and algorithm runs."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, EvaluationConfig, ModelConfig, RLConfig
from innerloop.engine import meta_state
from innerloop.errors import InnerloopError
from innerloop.training.experiments.build import build
from innerloop.training.experiments.reinforcement import RLExperiment, check_policy


def tiny(name: str = "navigation-maml-trpo", **rl: Any) -> Config:
    """Two iterations of four tasks, four short trajectories, one narrow layer."""
    base = preset(name)
    return replace(
        base,
        model=ModelConfig(kind="mlp", hidden=(6,)),
        outer=replace(base.outer, meta_steps=2, meta_batch=4, log_every=2),
        evaluation=EvaluationConfig(tasks=4, steps=2, validation_tasks=4),
        rl=replace(base.rl, **{"trajectories": 4, "test_trajectories": 4, "horizon": 8, **rl}),
    )


def begin(e: RLExperiment, seed: int = 0) -> meta_state.MetaState:
    return e.outer_loop().start(e.init_params(), jax.random.key(seed))


def flat(state: meta_state.MetaState) -> np.ndarray:
    return np.asarray(ravel_pytree(state.params)[0])


@pytest.fixture(scope="module")
def trpo() -> tuple[RLExperiment, Any]:
    """An experiment with the curvature of all tasks, and one meta-iteration of it, compiled once."""
    config = tiny(fisher_fraction=1.0, max_kl=0.003)
    e = RLExperiment(replace(config, outer=replace(config.outer, decay="constant")))
    loop = e.outer_loop()
    return e, lambda state: loop.run(state, 1)


def test_trpo_step_respects_kl_constraint(trpo: tuple[RLExperiment, Any]):
    """A step stays within the divergence that is allowed, and one that was refused moves nothing."""
    e, run = trpo
    state, moved = begin(e), 0
    for _ in range(6):
        before = flat(state)
        state, info = run(state)
        length, kl = float(info.length[0]), float(info.kl[0])
        assert (np.abs(before - flat(state)).max() > 0) == (length > 0) == (kl > 0)
        assert kl <= 0.003
        moved += length > 0
    assert moved >= 3


def test_step_size_decays_over_the_run():
    """The second of two iterations may go half as far; a constant size keeps no count."""
    config = tiny(horizon=4)
    sizes, state = RLExperiment(config).optimizer, RLExperiment(config).optimizer.init(np.float32(0))
    taken = []
    for _ in range(2):
        size, state = sizes.update(np.float32(1), state)
        taken.append(float(np.asarray(size)))
    assert taken == [1.0, 0.5]
    still = RLExperiment(replace(config, outer=replace(config.outer, decay="constant"))).optimizer
    assert still.init(np.float32(0)) == optax.EmptyState()


def test_evaluation_uses_training_rule_with_decay():
    """With the first step size, then a part of it: Adam's first step has the length of its rate."""
    config = tiny(test_lr_decay=0.5)
    for name, lengths in (("sgd", [0.2, 0.1]), ("adam", [0.1, 0.05])):
        inner = replace(config.inner, optimizer=name, learning_rate=0.1)
        rule = RLExperiment(replace(config, inner=inner)).test_sampler.inner.rule
        state, moved = rule.init(np.float32(0)), []
        for _ in range(2):
            update, state = rule.update(np.float32(2), state, np.float32(0))
            moved.append(-np.asarray(update).item())
        assert moved == pytest.approx(lengths, rel=1e-5)


@pytest.mark.parametrize("fields", [{"kind": "conv4"}, {"normalize": True}, {"scale": 0.1}])
def test_unsupported_policy_settings_raise(fields: dict):
    config = tiny()
    with pytest.raises(
        InnerloopError, match=f"model.{next(iter(fields))}: a policy must be a plain MLP, got"
    ):
        build(replace(config, model=replace(config.model, **fields)))


def test_run_is_determined_by_key(trpo: tuple[RLExperiment, Any]):
    e, run = trpo
    first, again, other = (flat(run(begin(e, seed))[0]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize(
    "config",
    [
        tiny("navigation-fomaml-trpo", horizon=6),
        tiny("navigation-anil-trpo", outer="ppo", surrogate="ratio", epochs=2),
        tiny("navigation-reptile"),
        tiny("navigation-oracle"),
        tiny("navigation-maml-trpo", outer="gradient", reward="squared", baseline="none"),
    ],
    ids=["fomaml", "anil-ppo", "reptile", "oracle", "gradient"],
)
def test_every_algorithm_and_outer_step_runs(config: Config):
    e = RLExperiment(config)
    state = begin(e)
    before = flat(state)
    state, info = e.outer_loop().run(state, 1)
    now = flat(state)
    assert np.isfinite(now).all()
    assert np.abs(before - now).max() > 0
    assert np.isfinite(np.asarray(info.returns)).all()
    assert info.returns.shape == (1, {"joint": 0, "reptile": 3}.get(config.algorithm, 1) + 1)


def test_reptile_with_trpo_raises():
    with pytest.raises(InnerloopError, match="reptile: has no query loss"):
        check_policy(tiny("navigation-reptile", outer="trpo"))


def test_trpo_rejects_mixed_mode_inner_loop():
    mixed = lambda config: replace(config, inner=replace(config.inner, derivative="mixed"))
    check_policy(mixed(tiny("navigation-oracle", outer="trpo")))  # joint training has no inner loop
    with pytest.raises(InnerloopError, match="trpo needs forward mode"):
        check_policy(mixed(tiny("navigation-maml-trpo")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectories": 1}, "rl.trajectories: must be 2 or more"),
        ({"discount": 1.5}, "rl.discount: must be 1 or less, got 1.5"),
        ({"max_kl": 0.0}, "rl.max_kl: must be above 0"),
    ],
)
def test_invalid_settings_raise(changes: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        RLConfig(**changes)


def test_evaluation_steps_after_the_first_are_halved():
    e = RLExperiment(tiny())
    rule = e.test_sampler.inner.rule
    state, taken = rule.init(np.ones(1, np.float32)), []
    for _ in range(3):
        update, state = rule.update(np.ones(1, np.float32), state)
        taken.append(float(np.asarray(update)[0]))
    np.testing.assert_allclose(taken, [-0.5, -0.25, -0.25])
