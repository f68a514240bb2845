"""Outer steps take the algorithm of the sampler, and bring the loss on query trajectories that they need."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from innerloop.algorithms import joint, maml, online_maml, reptile
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.errors import InnerloopError
from innerloop.rl import (
    Categorical,
    MetaIterations,
    MetaSampler,
    Navigation,
    Samples,
    gradient_update,
    ppo_update,
    surrogates,
    trpo_update,
)

INNER = InnerLoop(optax.sgd(0.1), 2)
STEPS = {
    "trpo": trpo_update(),
    "ppo": ppo_update(optax.sgd(0.1), 2),
    "gradient": gradient_update(optax.sgd(1)),
}


def objective(algorithm: Any, step: Any = STEPS["trpo"], chunk: int | None = None) -> Any:
    sampler = MetaSampler(Navigation(horizon=3), algorithm, trajectories=3)
    return MetaIterations(sampler, step, meta_batch=2, chunk=chunk).objective


@pytest.mark.parametrize("step", ["trpo", "ppo"])
@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (
            maml(surrogates.ratio, INNER, outer_loss_fn=surrogates.dice),
            "weights .*, got dice; leave `outer_lo",
        ),
        (maml(surrogates.ratio, INNER, outer_loss_fn=Loss(surrogates.dice)), "weights .*, got Loss"),
        (
            joint(surrogates.ratio, INNER, outer_loss_fn=surrogates.log_probability),
            "weights .*, got log_prob",
        ),
        (reptile(surrogates.ratio, INNER), "which this .* does not have, got Reptile; use gradient_update"),
        (online_maml(surrogates.ratio, INNER), "does not have, got OnlineMAML"),
    ],
    ids=["dice", "Loss of dice", "log_probability", "reptile", "online_maml"],
)
def test_loss_without_importance_weights_raises(step: str, algorithm: Any, message: str):
    """Trust regions and several epochs need them."""
    with pytest.raises(InnerloopError, match=f"{step}_update: needs a loss .*{message}"):
        STEPS[step].prepare(algorithm)


@pytest.mark.parametrize(("step", "wanted"), [("trpo", -3.0), ("ppo", -1.2)])
def test_default_query_loss_comes_from_outer_step(step: str, wanted: float):
    """An action that has become three times as likely: its weight is three, or clipped to 1.2."""
    found = objective(maml(surrogates.dice, INNER), STEPS[step]).algorithm
    assert found.loss_fn is surrogates.dice
    new, one = Categorical(jnp.log(jnp.array([[[0.75, 0.25]]]))), jnp.ones((1, 1))
    acted = Samples(jnp.zeros((1, 1, 1)), new, jnp.zeros((1, 1), int), jnp.log(0.25 * one), one, one)
    assert float(found.query_loss(jax.tree_util.Partial(lambda seen: new), acted)) == pytest.approx(
        wanted, rel=1e-5
    )


@pytest.mark.parametrize("step", STEPS)
def test_custom_query_loss_is_kept(step: str):
    own = lambda policy, samples: 2 * surrogates.ratio(policy, samples)
    assert (
        objective(maml(surrogates.dice, INNER, outer_loss_fn=own), STEPS[step]).algorithm.outer_loss_fn is own
    )
    plain = objective(maml(surrogates.ratio, INNER), STEPS["gradient"])
    assert plain.algorithm.outer_loss_fn is None


def test_objective_takes_inner_loop_settings_from_sampler():
    """Two inner steps read three trajectories each; joint training takes none; chunks are those of the loop."""
    found = objective(maml(surrogates.dice, INNER), chunk=1)
    assert (found.algorithm.inner.steps, found.algorithm.inner.minibatch, found.chunk) == (2, 3, 1)
    found = objective(joint(surrogates.dice, INNER))
    assert (found.algorithm.inner.steps, found.chunk) == (0, None)
    with pytest.raises(InnerloopError, match="MetaIterations: MAML needs an inner step.*use joint"):
        objective(maml(surrogates.dice, InnerLoop(optax.sgd(0.1), 0)))
