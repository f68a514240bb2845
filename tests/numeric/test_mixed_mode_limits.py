"""Mixed mode where types are mixed, where it is differentiated again, and where it cannot be right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from innerloop.algorithms import maml
from innerloop.config.presets.registry import preset
from innerloop.engine.inner.custom_rules import check_true_derivatives
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.unroll import unroll
from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.nn.losses import cross_entropy
from innerloop.training.experiments.reinforcement import RLExperiment

X = jnp.linspace(-1, 1, 6)[:, None]
TASK = Task(Batch(X, jnp.sin(X)), Batch(X, jnp.cos(X)))
PARAMS = {"a": jnp.linspace(-1, 1, 3)[None], "b": jnp.ones((3, 1))}


def network(activation: Callable) -> Callable[[Any, Batch], jax.Array]:
    apply = lambda p, x: activation(x @ p["a"]) @ p["b"]
    return lambda p, b: jnp.mean(jnp.square(apply(p, b.inputs) - b.targets))


def gradient(loss: Any, derivative: Any, params: Any = PARAMS, steps: int = 2) -> Any:
    algorithm = maml(loss, InnerLoop(optax.sgd(0.1), steps, derivative=derivative))
    return algorithm.meta_grad(params, TASK)[0]


@pytest.mark.parametrize("low", [("a", "b"), ("a",), ("b",)])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_mixed_mode_supports_parameters_of_lower_precision(low: tuple[str, ...], dtype: Any):
    """The loss is float32 then; every gradient has the type of its parameter, and the value of the other modes."""
    params = {name: x.astype(dtype) if name in low else x for name, x in PARAMS.items()}
    found, wanted = (gradient(network(jnp.tanh), mode, params) for mode in ("mixed", "unrolled"))
    for name, x in params.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_allclose(found[name].astype("f4"), wanted[name].astype("f4"), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_mixed_mode_differentiates_meta_gradient(steps: int):
    """As when a step size is learnt from the length of the meta-gradient: by the other mode, and by differences."""

    def length(derivative: Any) -> Callable[[Any], jax.Array]:
        def of(params: Any) -> jax.Array:
            found = gradient(network(jnp.tanh), derivative, params, steps)
            return jnp.sum(jnp.square(ravel_pytree(found)[0]))

        return of

    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
        found, wanted = (jax.jit(jax.grad(length(mode)))(params) for mode in ("mixed", "unrolled"))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, wanted)
        check_grads(jax.jit(length("mixed")), (params,), order=1, modes=["rev"], rtol=1e-5)


def test_forward_derivative_of_mixed_mode_raises():
    """In our words, whether the meta-gradient, the loss after adaptation or `unroll` is differentiated."""
    inner = InnerLoop(optax.sgd(0.1), 2, derivative="mixed")
    algorithm = maml(network(jnp.tanh), inner)
    for of in (
        lambda p: algorithm.meta_grad(p, TASK)[0],
        lambda p: algorithm.objective(p, TASK),
        lambda p: unroll(network(jnp.tanh), inner, p, TASK.support).losses,
    ):
        with pytest.raises(InnerloopError, match="forward-mode derivative; use `derivative` rematerialised"):
            jax.jvp(of, (PARAMS,), (PARAMS,))


@pytest.mark.parametrize("stream", [False, True])
def test_mixed_mode_differentiates_meta_gradient_with_whole_numbers(stream: bool):
    """Tokens, and the keys of a random loss, are no parameters, and must be those of their own step."""
    words = jnp.array([[0, 1, 2], [2, 1, 1]])
    batch = {"before": words, "after": words[:, ::-1]} if stream else {"before": words[0], "after": words[1]}

    def loss(params: Any, item: Any, key: jax.Array) -> jax.Array:
        kept = jax.random.bernoulli(key, 0.7, item["before"].shape)
        moved = jnp.tanh(params["a"][0][item["before"]]) * params["b"][:, 0][item["after"]]
        return jnp.mean(jnp.square(jnp.where(kept, moved, params["b"][0, 0]) - 0.3))

    def length(derivative: Any) -> Callable[[Any], jax.Array]:
        inner = InnerLoop(optax.sgd(0.1), 2, derivative=derivative, stream=stream)
        of = lambda p: unroll(Loss(loss, random=True), inner, p, batch, key=jax.random.key(0)).losses[-1]
        return lambda params: jnp.sum(jnp.square(ravel_pytree(jax.grad(of)(params))[0]))

    found, wanted = (jax.jit(jax.grad(length(mode)))(PARAMS) for mode in ("mixed", "unrolled"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, wanted)


def test_mixed_mode_stores_the_support_set_once():
    """Neither its floats nor its whole numbers are kept for every step."""
    steps, examples = 3, 17
    data = Batch(jnp.ones((examples, 1)), jnp.zeros(examples, int))
    loss = lambda p, b: jnp.mean(jnp.square(jnp.tanh(b.inputs @ p["a"]) @ p["b"] - p["b"][b.targets]))
    algorithm = maml(loss, InnerLoop(optax.sgd(0.1), steps, derivative="mixed"))
    program = str(jax.make_jaxpr(algorithm.meta_grad)(PARAMS, Task(data, data)))
    assert "[17,1]" in program
    assert "[17]" in program
    assert "[3,17" not in program


@pytest.mark.parametrize("fields", [{"steps": 1}, {"steps": 2}, {"steps": 2, "minibatch": 3}])
def test_mixed_mode_differentiates_loss_closure(fields: dict):
    """The strength of a regularisation, for example: by the other mode."""

    def outer(derivative: Any) -> Callable[[jax.Array], jax.Array]:
        def of(strength: jax.Array) -> jax.Array:
            regular = lambda p, b: network(jnp.tanh)(p, b) + strength * jnp.sum(jnp.square(p["a"]))
            inner = InnerLoop(optax.sgd(0.1), derivative=derivative, **fields)
            return network(jnp.tanh)(unroll(regular, inner, PARAMS, TASK.support).adapted, TASK.query)

        return of

    found, wanted = (jax.value_and_grad(outer(mode))(0.3) for mode in ("mixed", "unrolled"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def straight_through(x: jax.Array) -> jax.Array:
    rule = jax.custom_vjp(lambda x: jnp.round(x))
    rule.defvjp(lambda x: (jnp.round(x), None), lambda kept, bar: (bar,))
    return rule(x)


def surrogate(x: jax.Array) -> jax.Array:
    rule = jax.custom_jvp(lambda x: (x > 0).astype(x.dtype))
    rule.defjvp(lambda primals, tangents: (rule(primals[0]), tangents[0] * jax.nn.sigmoid(primals[0])))
    return rule(x)


def reversed_gradient(x: jax.Array) -> jax.Array:
    rule = jax.custom_vjp(lambda x: x)
    rule.defvjp(lambda x: (x, None), lambda kept, bar: (-bar,))
    return rule(x)


WRONG = {"straight-through": straight_through, "surrogate": surrogate, "reversed": reversed_gradient}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("lift", [lambda f: f, jax.jit, jax.checkpoint, jax.vmap])
def test_mixed_mode_rejects_untrue_custom_derivatives(name: str, lift: Callable):
    """Its derivative is not symmetric: mixed mode would give another meta-gradient, and the others agree."""
    loss = network(lift(WRONG[name]))
    with pytest.raises(
        InnerloopError, match="mixed mode needs true derivatives.*use `derivative` rematerialised"
    ):
        gradient(loss, "mixed")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        gradient(loss, "unrolled"),
        gradient(loss, "rematerialised"),
    )


def true_sine(x: jax.Array) -> jax.Array:
    rule = jax.custom_vjp(lambda x: jnp.sin(x))
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, bar: (bar * jnp.cos(x),))
    return rule(x)


@jax.custom_jvp
def rounded(x: jax.Array) -> jax.Array:
    """Constant between steps, so that its derivative is zero."""
    return jnp.floor(x)


rounded.defjvp(lambda primals, tangents: (rounded(*primals), jnp.zeros_like(primals[0])))


def test_zero_derivative_of_piecewise_constant_is_accepted():
    check_true_derivatives(lambda x: jnp.sum(rounded(x) + x), jnp.ones(2))


@pytest.mark.parametrize("activation", [true_sine, jax.nn.relu, jax.nn.silu, jax.nn.softplus, jax.nn.selu])
def test_mixed_mode_accepts_true_custom_derivatives(activation: Callable):
    """Those of JAX's own functions, and a user's that say the same in another way."""
    found, wanted = (gradient(network(activation), mode) for mode in ("mixed", "unrolled"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


def test_built_in_networks_have_true_derivatives():
    key, labels = jax.random.key(0), jnp.array([0, 1])
    for model, x in (
        (MLP(4, 2, hidden=(3,), normalize=True, key=key), jnp.ones((2, 4))),
        (Conv4(2, image_shape=(16, 16, 1), filters=2, key=key), jnp.ones((2, 16, 16, 1))),
    ):
        check_true_derivatives(lambda params, x: cross_entropy()(params, Batch(x, labels)), model, x)


def test_derivative_rules_with_key_arguments_are_accepted():
    """Of keys for example, which cannot be made of random numbers."""
    rule = jax.custom_vjp(lambda x, key: x * jax.random.normal(key))
    rule.defvjp(lambda x, key: (x, key), lambda kept, bar: (bar, None))
    check_true_derivatives(lambda x: rule(x, jax.random.key(0)), jnp.ones(2))


@pytest.mark.parametrize("steps", [1, 2])
def test_trpo_rejects_mixed_mode(steps: int):
    """TRPO differentiates the inner loop forward."""
    config = preset("navigation-maml-trpo")
    mixed = replace(config, inner=replace(config.inner, steps=steps, derivative="mixed"))
    with pytest.raises(
        InnerloopError, match="trpo_update: .* forward.*use `inner.derivative` rematerialised or unr"
    ):
        RLExperiment(mixed).outer_loop()
    assert RLExperiment(replace(mixed, rl=replace(mixed.rl, outer="gradient"))).outer_loop()
