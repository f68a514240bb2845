r"""The Fisher product of TRPO through one inner step, for ReLU networks with two hidden layers.

    F v = mean over tasks of  J_U J_f^T M J_f J_U v,    J_U = I - alpha H    (symmetric),
    H v = J^T (d2 L / d outputs2) J v  +  sum_n  delta_n . (d2 mean(x_n) / d theta2) v,    delta = d L / d mean

It equals the product of `innerloop.rl.trpo.fisher`, which uses automatic differentiation. Two facts make it faster.

1. With E_l = d mean / d z_l stored for every sample, J v = sum_l E_l (V_l h_{l-1} + v_l): one large product, not two.
2. Between its kinks, a ReLU network is linear in each of its layers. So the second sum is, for any number of samples,
   v times the Hessian of one small polynomial in the weights,

       sum_n delta_n . mean(x_n) = sum_{kjio} S_{kjio} W1_{kj} W2_{ji} W3_{io} + sum_{io} s_{io} b2_i W3_{io} + ...
       S_{kjio} = sum_n delta_{no} x_{nk} [z1_{nj} > 0] [z2_{ni} > 0],      b1 being the row of W1 for x = 1,

   whose coefficients and second derivatives are summed once for all products.

A product then costs six large matrix products; automatic differentiation takes sixteen.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.engine.types import LossFn, Task
from innerloop.rl.distributions import Normal
from innerloop.rl.policies import MIN_LOG_STD, GaussianPolicy
from innerloop.rl.sample_processor import Samples
from innerloop.rl.trpo.fisher import Adapt, Product, mean_kl


class _Activations(NamedTuple):
    """A policy at some observations: layer inputs, ReLU masks, and the derivative of the mean by z_1."""

    x: Float[Array, "samples observation"]
    first: Float[Array, "samples hidden"]
    second: Float[Array, "samples hidden"]
    open1: Float[Array, "samples hidden"]
    open2: Float[Array, "samples hidden"]
    e1: Float[Array, "action samples hidden"]


class _HessianBlocks(NamedTuple):
    """Second derivatives of the polynomial for each pair of layers; `square` is that of b2 and W3."""

    first_second: Float[Array, "inputs hidden hidden"]
    second_head: Float[Array, "action hidden hidden"]
    first_head: Float[Array, "inputs hidden action hidden"]
    square: Float[Array, "action hidden"]


class _Prepared(NamedTuple):
    """Quantities that all products of one task share."""

    adapted: GaussianPolicy
    before: _Activations
    after: _Activations
    blocks: _HessianBlocks


class _FixedPolicy(eqx.Module):
    """A policy with fixed outputs, which makes a surrogate a function of them."""

    outputs: Normal

    def __call__(self, observations: Float[Array, "*batch observation"]) -> Normal:
        return self.outputs


def _activations(policy: GaussianPolicy, observations: Float[Array, "*batch observation"]) -> _Activations:
    """One forward pass, and one backward pass for every output."""
    (one, two), head = policy.mean.body, policy.mean.head
    x = observations.reshape(-1, observations.shape[-1])
    z1 = one(x)
    first = jax.nn.relu(z1)
    z2 = two(first)
    open1, open2 = (z1 > 0).astype(x.dtype), (z2 > 0).astype(x.dtype)
    e2 = head.weight.T[:, None] * open2[None]
    return _Activations(x, first, jax.nn.relu(z2), open1, open2, (e2 @ two.weight.T) * open1[None])


def _jvp(policy: GaussianPolicy, s: _Activations, like: Normal, v: GaussianPolicy) -> Normal:
    """J v: the change of the outputs when the policy changes by v."""
    (one, two), head = v.mean.body, v.mean.head
    early = jnp.einsum("onh,nh->no", s.e1, one(s.x))
    late = (two(s.first) * s.open2) @ policy.mean.head.weight
    free = policy.log_std > MIN_LOG_STD
    mean = (early + late + head(s.second)).reshape(like.mean.shape)
    return Normal(mean, jnp.broadcast_to(jnp.where(free, v.log_std, 0), mean.shape))


def _coefficients(s: _Activations, delta: Float[Array, "*batch action"]) -> tuple[Array, Array]:
    """The coefficients S and s of the polynomial."""
    delta = delta.reshape(-1, delta.shape[-1])
    inputs = jnp.concatenate([s.x, jnp.ones_like(s.x[:, :1])], -1)
    rows = (inputs[:, :, None] * delta[:, None])[..., None] * s.open1[:, None, None]
    samples, k, o, j = rows.shape
    cubic = (rows.reshape(samples, -1).T @ s.open2).reshape(k, o, j, -1)
    return cubic, delta.T @ s.open2


def _hessian_blocks(
    policy: GaussianPolicy, s: _Activations, delta: Float[Array, "*batch action"]
) -> _HessianBlocks:
    """The polynomial's second derivatives: for each pair of layers, a sum over the weights of the third."""
    (one, two), head = policy.mean.body, policy.mean.head
    cubic, square = _coefficients(s, delta)
    w1 = jnp.concatenate([one.weight, one.bias[None]])
    return _HessianBlocks(
        jnp.einsum("koji,io->kji", cubic, head.weight),
        jnp.einsum("koji,kj->oji", cubic, w1),
        jnp.einsum("koji,ji->kjoi", cubic, two.weight),
        square,
    )


def _hvp(b: _HessianBlocks, v: GaussianPolicy) -> GaussianPolicy:
    """The polynomial's Hessian times v."""
    (one, two), head = v.mean.body, v.mean.head
    v1, v3 = jnp.concatenate([one.weight, one.bias[None]]), head.weight.T
    across = b.first_head.reshape(v1.size, v3.size)
    w1 = jnp.sum(b.first_second * two.weight[None], -1) + (across @ v3.ravel()).reshape(v1.shape)
    w2 = jnp.sum(b.first_second * v1[..., None], 0) + jnp.sum(b.second_head * v3[:, None], 0)
    w3 = (
        jnp.sum(b.second_head * two.weight[None], 1)
        + (v1.ravel() @ across).reshape(v3.shape)
        + b.square * two.bias[None]
    )
    moved = (w1[:-1], w1[-1], w2, jnp.sum(b.square * v3, 0), w3.T)
    still = jax.tree.map(jnp.zeros_like, v)
    return eqx.tree_at(_polynomial_weights, still, moved)


def _polynomial_weights(policy: GaussianPolicy) -> tuple[Any, ...]:
    """The weights that the polynomial depends on."""
    (one, two), head = policy.mean.body, policy.mean.head
    return one.weight, one.bias, two.weight, two.bias, head.weight


def fisher(surrogate: LossFn, adapt: Adapt, rate: float, policy: GaussianPolicy, tasks: Task) -> Product:
    """The product with the Fisher matrix, in closed form.

    Args:
        surrogate: the inner loss.
        adapt: one step of gradient descent on it.
        rate: the step size, alpha.
        policy: theta_old, with two hidden ReLU layers.
        tasks: samples of many tasks.

    Returns:
        `v -> F v`, a mean over these tasks.
    """

    def loss(outputs: Normal, samples: Samples) -> Array:
        return surrogate(_FixedPolicy(outputs), samples)

    def prepare(task: Task) -> _Prepared:
        adapted = adapt(policy, task.support)
        before = _activations(policy, task.support.observations)
        delta = jax.grad(loss)(policy(task.support.observations), task.support).mean
        return _Prepared(
            adapted,
            before,
            _activations(adapted, task.query.observations),
            _hessian_blocks(policy, before, delta),
        )

    prepared = jax.vmap(prepare)(tasks)

    def one(p: _Prepared, task: Task, v: GaussianPolicy) -> GaussianPolicy:
        old, now = policy(task.support.observations), task.query.action_dist
        ahead = lambda v: _jvp(policy, p.before, old, v)
        away = lambda v: _jvp(p.adapted, p.after, now, v)
        curvature = jax.grad(lambda outputs: loss(outputs, task.support))

        def through(v: GaussianPolicy) -> GaussianPolicy:
            curved = jax.linear_transpose(ahead, v)(jax.jvp(curvature, (old,), (ahead(v),))[1])[0]
            return jax.tree.map(lambda v, a, b: v - rate * (a + b), v, curved, _hvp(p.blocks, v))

        divergence = jax.grad(lambda outputs: mean_kl(now, outputs, task.query))
        moved = jax.jvp(divergence, (now,), (away(through(v)),))[1]
        return through(jax.linear_transpose(away, v)(moved)[0])

    def product(v: GaussianPolicy) -> GaussianPolicy:
        return jax.tree.map(lambda x: x.mean(0), jax.vmap(one, (0, 0, None))(prepared, tasks, v))

    return product
