"""Where nothing varies: equal rewards, constant features, forbidden actions, the goal; finite derivatives."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, Task
from innerloop.nn import MLP, Conv4
from innerloop.nn.losses import cross_entropy
from innerloop.rl import (
    Categorical,
    GaussianPolicy,
    MetaIterations,
    MetaSampler,
    Navigation,
    SampleProcessor,
    Transition,
    gradient_update,
    ppo_update,
    surrogates,
    trpo_update,
)
from innerloop.rl.advantages import normalised_advantages
from innerloop.rl.baseline import linear_baseline
from innerloop.rl.rollout import Trajectories

GAUSSIAN = GaussianPolicy(2, 2, hidden=(4,), key=jax.random.key(0))


@dataclass(frozen=True)
class Even(Navigation):
    """Navigation that pays the same for every step."""

    pay: float = 0.0

    def step(self, key: Any, state: Any, action: Any) -> Transition:
        return super().step(key, state, action)._replace(reward=jnp.asarray(self.pay))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_equal_advantages_have_zero_derivative(value: float):
    """They become zero, as do those that hardly differ, so the derivative is zero as well."""
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    equal = jnp.full((2, 2), value)
    np.testing.assert_array_equal(normalised_advantages(equal, mask), 0)
    slope = jax.jacobian(lambda a: normalised_advantages(a, mask))(equal).reshape(4, 4)
    np.testing.assert_array_equal(slope, 0)


def test_all_broken_trajectories_give_zero_gradients():
    """All trajectories broke at once: no advantage, and no weight."""
    nothing = jnp.zeros((2, 3))
    np.testing.assert_array_equal(normalised_advantages(jnp.ones((2, 3)), nothing), 0)
    seen = jnp.zeros((2, 3, 2))
    broken = Trajectories(seen, GAUSSIAN(seen), seen, jnp.full((2, 3), jnp.nan), nothing)
    samples = SampleProcessor()(broken)
    np.testing.assert_array_equal(samples.weights, 0)
    for surrogate in (surrogates.dice, surrogates.ratio, surrogates.log_probability, surrogates.clipped(0.2)):
        grads = ravel_pytree(jax.grad(surrogate)(GAUSSIAN, samples))[0]
        np.testing.assert_array_equal(grads, 0)


@pytest.mark.parametrize("reward", ["distance", "squared"])
def test_reward_gradient_at_goal_is_zero(reward: Any):
    world = Navigation(reward)
    state, _ = world.reset(jax.random.key(0), jnp.zeros(2))
    pay = lambda action: world.step(jax.random.key(0), state, action).reward
    np.testing.assert_array_equal(jax.grad(pay)(jnp.zeros(2)), 0)
    assert np.isfinite(jax.grad(pay)(jnp.full(2, 1e-3))).all()
    np.testing.assert_allclose(
        pay(jnp.array([0.3, 0.4])), {"distance": -0.05, "squared": -0.0025}[reward], rtol=1e-5
    )


@pytest.mark.usefixtures("float64")
def test_baseline_ignores_zero_features():
    """A constant observation of zero repeats nothing and adds nothing: the ridge regression is NumPy's."""
    seen = jnp.zeros((3, 5, 2)).at[..., 1].set(jnp.arange(15).reshape(3, 5) / 7)
    returns = jnp.cos(jnp.arange(15)).reshape(3, 5)
    found = linear_baseline(seen, returns, jnp.ones((3, 5)))
    x, t = np.asarray(seen[..., 1]).ravel(), np.tile(np.arange(5) / 100, 3)
    phi = np.column_stack([x, x**2, t, t**2, t**3, np.ones(15)])
    stacked = np.concatenate([phi, np.sqrt(1e-5) * np.eye(6)])
    targets = np.append(np.asarray(returns).ravel(), np.zeros(6))
    wanted = phi @ np.linalg.lstsq(stacked, targets, rcond=None)[0]
    np.testing.assert_allclose(np.asarray(found).ravel(), wanted, atol=1e-8)
    slope = jax.grad(lambda seen: linear_baseline(seen, returns, jnp.ones((3, 5))).sum())(seen)
    assert np.isfinite(slope).all()


@pytest.mark.usefixtures("float64")
def test_forbidden_actions_do_not_affect_the_others():
    """A logit of -inf: the others are as if it were not there, to the second derivative."""
    logits, others = jnp.array([0.2, -0.5, -jnp.inf]), jnp.array([1.0, 0.3, -jnp.inf])
    log_probs = lambda logits: jnp.stack([Categorical(logits).log_prob(jnp.array(a)) for a in (0, 1)])
    masked = lambda x: log_probs(jnp.append(x, -jnp.inf))
    for derivative in (lambda f: f, jax.jacobian, jax.hessian):
        found, wanted = (derivative(f)(logits[:2]) for f in (masked, log_probs))
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert Categorical(logits).log_prob(jnp.array(2)) == -jnp.inf
    masked = lambda x: Categorical(logits).kl(Categorical(jnp.append(x, -jnp.inf)))
    small = lambda x: Categorical(logits[:2]).kl(Categorical(x))
    for derivative in (lambda f: f, jax.grad, jax.hessian):
        np.testing.assert_allclose(derivative(masked)(others[:2]), derivative(small)(others[:2]), atol=1e-12)
    assert np.isfinite(jax.grad(lambda x: Categorical(x).kl(Categorical(others)))(logits)).all()
    assert Categorical(jnp.zeros(3)).kl(Categorical(logits)) == jnp.inf


OUTER = {
    "adam": gradient_update(optax.adam(0.1)),
    "ppo": ppo_update(optax.adam(0.1), 2),
    "trpo": trpo_update(),
}


@pytest.mark.parametrize(
    ("outer", "rule"),
    [
        ("adam", optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))),
        ("ppo", optax.adam(0.1)),
        ("trpo", optax.sgd(0.5)),
    ],
    ids=["adam, clipped inside", "ppo, adam inside", "trpo"],
)
def test_zero_rewards_leave_parameters_unchanged(outer: str, rule: Any):
    sampler = MetaSampler(Even(horizon=3), maml(surrogates.dice, InnerLoop(rule, 1)), trajectories=3)
    loop = MetaIterations(sampler, OUTER[outer], meta_batch=2)
    state, info = loop.run(loop.start(GAUSSIAN, jax.random.key(1)), 2)
    jax.tree.map(np.testing.assert_array_equal, state.params, GAUSSIAN)
    np.testing.assert_array_equal(info.grad_norm, 0)


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_rewards_keep_parameters_finite(normalize: bool):
    """Equal pay, and no baseline: the advantages differ by what is left of the trajectory alone."""
    algorithm = maml(surrogates.dice, InnerLoop(optax.sgd(0.5), 1), outer_loss_fn=surrogates.ratio)
    processor = SampleProcessor(baseline="none", normalize=normalize)
    sampler = MetaSampler(Even(horizon=3, pay=1.0), algorithm, processor, 3)
    loop = MetaIterations(sampler, OUTER["adam"], meta_batch=2)
    state, _ = loop.run(loop.start(GAUSSIAN, jax.random.key(1)), 2)
    assert np.isfinite(ravel_pytree(state.params)[0]).all()


@pytest.mark.parametrize("kind", ["mlp", "pool", "stride"])
def test_constant_inputs_give_finite_network_gradients(kind: Any):
    """Black images, equal examples: the variance is zero, and derivatives of first and second order are finite."""
    key = jax.random.key(0)
    if kind == "mlp":
        model, inputs = MLP(4, 3, hidden=(5,), normalize=True, key=key), jnp.zeros((3, 4))
    else:
        model = Conv4(3, image_shape=(16, 16, 1), filters=2, downsample=kind, features="flatten", key=key)
        inputs = jnp.zeros((3, 16, 16, 1))
    batch = Batch(inputs, jnp.arange(3))
    algorithm = maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 2))
    slope = lambda model: ravel_pytree(algorithm.meta_grad(model, Task(batch, batch))[0])[0]
    assert np.isfinite(jax.jit(slope)(model)).all()
    of_inputs = jax.grad(lambda x: cross_entropy()(model, Batch(x, batch.targets)))
    assert np.isfinite(jax.jit(of_inputs)(inputs)).all()
