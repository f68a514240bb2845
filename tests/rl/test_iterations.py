"""Whole meta-iterations: the constraint is kept, keys decide everything, every outer step and algorithm runs."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from innerloop import outer
from innerloop.config import Config, EvaluationConfig, ModelConfig, RLConfig
from innerloop.errors import InnerloopError
from innerloop.presets import preset
from innerloop.rl.experiment import RLExperiment


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


def after(config: Config, steps: int = 2) -> tuple[Any, Any, Any]:
    """Parameters before and after, and the info of the iterations."""
    e = RLExperiment(config)
    state = outer.init(e.init_params(), e.optimizer, e.keys().tasks)
    before = ravel_pytree(state.params)[0]
    state, info = e.meta_steps(e.environment, steps)(state)
    return before, ravel_pytree(state.params)[0], info


@pytest.fixture(scope="module")
def trpo() -> tuple[Any, Any, Any]:
    return after(tiny(fisher_share=1.0, max_kl=0.003))


def test_the_constraint_is_kept(trpo: Any):
    """Every step goes somewhere, lowers nothing by chance, and stays within the divergence that is allowed."""
    before, now, info = trpo
    kl, length = np.asarray(info.kl), np.asarray(info.length)
    assert np.abs(before - now).max() > 0
    assert (length > 0).all()
    assert (kl > 0).all()
    assert (kl <= 0.003).all()


def test_the_same_key_gives_the_same_bits_and_one_call_is_two(trpo: Any):
    config = tiny(fisher_share=1.0, max_kl=0.003)
    e = RLExperiment(config)
    state = outer.init(e.init_params(), e.optimizer, e.keys().tasks)
    run = e.meta_steps(e.environment, 1)
    state, _ = run(state)
    state, _ = run(state)
    np.testing.assert_array_equal(ravel_pytree(state.params)[0], trpo[1])


def test_other_seeds_differ(trpo: Any):
    other = after(replace(tiny(fisher_share=1.0, max_kl=0.003), seed=1))
    assert np.abs(other[1] - trpo[1]).max() > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        tiny("navigation-fomaml-trpo", horizon=4),
        tiny("navigation-anil-trpo", surrogate="log_probability"),
        tiny("navigation-reptile"),
        tiny("navigation-oracle"),
        tiny("navigation-maml-trpo", outer="ppo", surrogate="ratio", epochs=2),
        tiny("navigation-maml-trpo", outer="gradient", reward="squared", baseline="none"),
    ],
    ids=["fomaml", "anil", "reptile", "oracle", "ppo", "gradient"],
)
def test_every_algorithm_and_outer_step(config: Config):
    before, now, info = after(config, 1)
    assert np.isfinite(now).all()
    assert np.abs(before - now).max() > 0
    assert np.isfinite(np.asarray(info.returns)).all()
    assert info.returns.shape == (1, {"joint": 0, "reptile": 3}.get(config.algorithm, 1) + 1)


def test_reptile_has_no_trust_region():
    with pytest.raises(InnerloopError, match="reptile: it has no query loss"):
        _ = RLExperiment(tiny("navigation-reptile", outer="trpo")).outer_step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectories": 1}, "`trajectories` must be 2 or more"),
        ({"discount": 1.5}, r"`discount` must lie in \(0, 1\]"),
        ({"max_kl": 0.0}, "`max_kl` must be above 0"),
    ],
)
def test_bad_settings(changes: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        RLConfig(**changes)


def test_evaluation_draws_the_same_tasks_in_any_parts():
    from innerloop.rl.evaluate import evaluator

    e = RLExperiment(tiny())
    params = e.init_params()
    whole, parts = (
        np.concatenate(
            [
                c.scores["return"]
                for c in evaluator(e.test_collector, tasks=4, part=p)(params, jax.random.key(0))
            ]
        )
        for p in (4, 2)
    )
    assert whole.shape == (4, 3)
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


def test_the_first_test_step_is_whole_and_the_others_half():
    e = RLExperiment(tiny())
    rule = e.test_collector.inner.rule
    state, taken = rule.init(np.ones(1, np.float32)), []
    for _ in range(3):
        update, state = rule.update(np.ones(1, np.float32), state)
        taken.append(float(update[0]))
    np.testing.assert_allclose(taken, [-0.5, -0.25, -0.25])
