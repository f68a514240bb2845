"""Within the user's own `jax.shard_map`, every task has its own result, as under `jax.vmap`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from numeric_cases import mlp_case

from innerloop.algorithms import anil, imaml, joint, maml, meta_sgd
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.nn.kernels.conv import conv
from innerloop.nn.kernels.linear import linear

EACH = P("d")


def on_two_devices(function: Any, *specs: P) -> Any:
    """A function of two devices' shares, which JAX checks for what varies between them."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=EACH))


def counting(loss: Any) -> Loss:
    """A loss whose state starts alike on all devices, and is a constant after every step."""
    return Loss(lambda p, b, *, state: (loss(p, b) * (1 + state), jnp.ones_like(state)), state=jnp.zeros(()))


def adam(**more: Any) -> InnerLoop:
    return InnerLoop(optax.adam(0.05, eps_root=1e-8), 4, **more)


MAKES = {
    "maml": lambda loss: maml(loss, adam()),
    "checkpoints and a state": lambda loss: maml(counting(loss), adam(checkpoints="sqrt", minibatch=2)),
    "a frozen body, in mixed mode": lambda loss: anil(loss, adam(derivative="mixed")),
    "learned step sizes": lambda loss: meta_sgd(loss, adam(last=1)),
    "without an inner loop": lambda loss: joint(loss, adam()),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_shard_map_with_replicated_parameters(make: Any):
    """A gradient is that of its own task, not the sum over the devices' tasks."""
    loss, params, task = mlp_case()
    algorithm = make(loss)
    meta_params = algorithm.init(params)
    tasks = jax.tree.map(lambda x: jnp.stack([x, 2 * x, x - 1, x + 1]), task)
    both = lambda p, task: (algorithm.adapt(p, task.support), algorithm.meta_grad(p, task))
    each = jax.vmap(both, (None, 0))
    found = on_two_devices(each, P(), EACH)(meta_params, tasks)
    expected = jax.jit(each)(meta_params, tasks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-14), found, expected)


@pytest.mark.parametrize(
    ("layer", "x", "w"),
    [
        (linear, (4, 3), (3, 2)),
        (conv, (4, 4, 4, 5), (3, 3, 5, 2)),
        (conv, (2, 6, 6, 64), (3, 3, 64, 64)),  # by Winograd's method
    ],
    ids=["linear", "small images", "many channels"],
)
def test_gradient_of_shared_weights_sums_over_devices(layer: Any, x: Any, w: Any):
    """Of a loss whose examples are split over devices, as `jax.grad` of `x @ w`."""
    x, w = (0.1 * jax.random.normal(jax.random.key(i), shape, "f4") for i, shape in enumerate((x, w)))
    loss = lambda w, x: jnp.sum(jnp.tanh(layer(x, w)))[None]
    split = lambda w: jnp.sum(on_two_devices(loss, P(), EACH)(w, x))
    found, wanted = jax.grad(split)(w), jax.grad(lambda w: loss(w, x)[0])(w)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_shard_map_of_imaml_residuals():
    loss, params, task = mlp_case()
    each = jax.vmap(imaml(loss, InnerLoop(optax.sgd(0.05), 4), cg_steps=2).residuals, (None, 0))
    tasks = jax.tree.map(lambda x: jnp.stack([x, x + 1]), task)
    found = on_two_devices(each, P(), EACH)(params, tasks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12), found, jax.jit(each)(params, tasks))


def test_shard_map_with_replicated_task():
    loss, params, task = mlp_case()
    many = jax.tree.map(lambda x: jnp.stack([x, -x]), params)
    each = jax.vmap(maml(loss, adam()).meta_grad, (0, None))
    found = on_two_devices(each, EACH, P())(many, task)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-14), found, jax.jit(each)(many, task)
    )
