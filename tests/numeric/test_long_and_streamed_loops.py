"""Streams, gradients through the last steps, checkpoints through time, safe roots: identities in float64."""

from functools import cache
from typing import Any, get_args

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from numeric_cases import RULES, mlp_case, normal

from innerloop.algorithms import anil, fomaml, maml
from innerloop.engine.inner.inner_loop import Derivative, InnerLoop
from innerloop.engine.inner.nested_scan import nested_scan
from innerloop.engine.inner.safe_roots import safe_div, safe_sqrt, with_safe_roots
from innerloop.engine.inner.unroll import unroll
from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError

SGD = optax.sgd(0.1)


def same(a, b, tolerance: float = 1e-10) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


def meta_grad(inner: InnerLoop, params, task: Task, loss) -> Any:
    return maml(loss, inner).meta_grad(params, task)[0]


def of_seven_adam_steps(derivative: Derivative, tasks: int | None = None, **settings: Any) -> tuple[Any, Any]:
    """The meta-gradient and the trajectory, of one task or under `vmap` of several, for parameters of one leaf."""
    draw, inner = normal(0), InnerLoop(RULES["adam"](), 7, derivative=derivative, **settings)
    loss = lambda w, batch: jnp.mean(jnp.square(jnp.tanh(batch.inputs @ w) - batch.targets))
    batch = lambda *shape: Batch(draw(*shape, 5, 3), draw(*shape, 5, 2))
    params, task = draw(3, 2), Task(batch(), batch()) if tasks is None else Task(batch(tasks), batch(tasks))
    both = lambda task: (meta_grad(inner, params, task, loss), unroll(loss, inner, params, task.support))
    return jax.jit(both if tasks is None else jax.vmap(both))(task)


@cache
def with_every_step_kept(derivative: Derivative, tasks: int | None = None) -> tuple[Any, Any]:
    return of_seven_adam_steps(derivative, tasks)


def stream_of(seed: int, items: int) -> Batch:
    draw = normal(seed)
    return Batch(draw(items, 5, 3), draw(items, 5, 2))


@cache
def along_a_stream_by_hand() -> Any:
    """The derivatives in the parameters and in the stream, and the losses, of a loop written out."""
    loss, params, task = mlp_case()

    def by_hand(params, stream):
        losses = []
        for i in range(4):
            item = jax.tree.map(lambda x, i=i: x[i], stream)
            value, grads = jax.value_and_grad(loss)(params, item)
            params, losses = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), [*losses, value]
        return loss(params, task.query) + sum(losses), jnp.stack(losses)

    return jax.jit(jax.grad(by_hand, (0, 1), has_aux=True))(params, stream_of(1, 5))


@pytest.mark.parametrize("derivative", get_args(Derivative))
def test_stream_matches_manual_loop_over_items(derivative: Derivative):
    """Parameters, losses and the derivatives in the parameters and in the stream itself."""
    loss, params, task = mlp_case()

    def ours(params, stream):
        inner = InnerLoop(SGD, 4, stream=True, derivative=derivative)
        found = unroll(loss, inner, params, stream)
        return loss(found.adapted, task.query) + found.losses.sum(), found.losses

    found = jax.jit(jax.grad(ours, (0, 1), has_aux=True))(params, stream_of(1, 5))
    same(found, along_a_stream_by_hand())


@pytest.mark.parametrize("checkpoints", [None, 2])
def test_differentiable_state_is_carried_along_stream(checkpoints: int | None):
    """A recurrent state that the outer loss is differentiated through."""
    params, stream = {"w": normal(0)(3, 3)}, normal(1)(6, 3)

    def recur(params, x, *, state):
        after = jnp.tanh(params["w"] @ state + x)
        return jnp.sum(jnp.square(after - x)), after

    loss = Loss(recur, state=jnp.zeros(3), differentiate_state=True)
    inner = InnerLoop(SGD, 6, stream=True, checkpoints=checkpoints)

    def by_hand(params):
        state, total = jnp.zeros(3), 0.0
        for x in stream:
            (value, after), grads = jax.value_and_grad(recur, has_aux=True)(params, x, state=state)
            params, state, total = {"w": params["w"] - 0.1 * grads["w"]}, after, total + value
        return total

    ours = lambda params: unroll(loss, inner, params, stream).losses.sum()
    same(*(jax.jit(jax.grad(f))(params) for f in (ours, by_hand)))


@pytest.mark.parametrize(
    ("inner", "support", "message"),
    [
        ({"steps": 6, "stream": True}, stream_of(0, 5), r"stream of 6 steps is too short, got \[5\]"),
        (
            {"minibatch": 2},
            Batch(jnp.ones((5, 3)), jnp.ones((4, 2))),
            r"leaves of equal length, got \[4, 5\]",
        ),
        ({"minibatch": 2}, Batch(jnp.ones((5, 3)), jnp.ones(())), r"leaves of equal length, got \[0, 5\]"),
    ],
)
def test_mismatched_support_axes_raise(inner: dict, support: Batch, message: str):
    loss, params, _ = mlp_case()
    with pytest.raises(InnerloopError, match=message):
        unroll(loss, InnerLoop(SGD, **inner), params, support)


@pytest.mark.parametrize(
    "fields",
    [
        {"last": -1},
        {"checkpoints": 0},
        {"offload": True},
        {"unroll": 0},
        {"stream": True, "minibatch": 2},
        {"steps": -1},
        {"minibatch": 0},
    ],
)
def test_invalid_inner_loop_settings_raise(fields: dict):
    with pytest.raises(InnerloopError, match="or more|takes no|there are none"):
        InnerLoop(SGD, **fields)


@pytest.mark.parametrize("checkpoints", ["log", 2.5])
def test_non_integer_checkpoints_raise(checkpoints, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # as for users, who have no checks of types
    with pytest.raises(InnerloopError, match="`checkpoints` must be a whole number"):
        InnerLoop(SGD, checkpoints=checkpoints)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("last", range(6))
def test_last_keeps_final_factors_on_quadratic(derivative: Derivative, last: int):
    """With L = (theta - c)' A (theta - c) / 2, every factor is I - alpha A, and `last` of them are left."""
    half = normal(3)(4, 4)
    a, c, theta = half @ half.T / 4, normal(4)(4), normal(5)(4)
    loss = lambda theta, batch: (theta - batch) @ a @ (theta - batch) / 2
    inner = InnerLoop(SGD, 5, last=last, derivative=derivative)
    found, info = maml(loss, inner).meta_grad(theta, Task(c, -c))
    adapted = c + np.linalg.matrix_power(np.eye(4) - 0.1 * a, 5) @ (theta - c)
    same(found, np.linalg.matrix_power(np.eye(4) - 0.1 * a, last) @ a @ (adapted + c))
    same(info.outer_loss, loss(adapted, -c))


@pytest.mark.parametrize("rule", RULES)
def test_last_zero_matches_first_order(rule: str):
    loss, params, task = mlp_case()
    inner = InnerLoop(RULES[rule](), 3)
    same(
        meta_grad(InnerLoop(RULES[rule](), 3, last=0), params, task, loss),
        fomaml(loss, inner).meta_grad(params, task)[0],
    )
    same(
        meta_grad(InnerLoop(RULES[rule](), 3, last=7), params, task, loss),
        meta_grad(inner, params, task, loss),
    )


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("checkpoints", [1, 2, 3, 5, 7, "sqrt"])
def test_checkpoints_preserve_meta_gradient(derivative: Derivative, checkpoints):
    few = of_seven_adam_steps(derivative, checkpoints=checkpoints)
    same(few, with_every_step_kept(derivative), 1e-12)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize(("number", "checkpoints"), [(2, None), (9, None), (2, 3)])
def test_unrolling_preserves_meta_gradient(derivative: Derivative, number: int, checkpoints: int | None):
    unrolled = of_seven_adam_steps(derivative, checkpoints=checkpoints, unroll=number)
    same(unrolled, with_every_step_kept(derivative), 1e-12)


@pytest.mark.parametrize("steps", [2, 7])
def test_full_unrolling_removes_while_loop(steps: int):
    loss, params, task = mlp_case()
    adapted = lambda number: maml(loss, InnerLoop(SGD, steps, unroll=number)).adapt
    loops = lambda number: (
        jax.jit(adapted(number)).lower(params, task.support).as_text().count("stablehlo.while")
    )
    assert (loops(1), loops(steps)) == (1, 0)


def test_steps_between_checkpoints_are_unrolled():
    loss, params, task = mlp_case()
    inner = lambda number: InnerLoop(SGD, 9, checkpoints=3, unroll=number)
    grads = lambda number: jax.jit(maml(loss, inner(number)).meta_grad).lower(params, task)
    loops = lambda number: grads(number).as_text().count("stablehlo.while")
    assert loops(3) < loops(1)


@pytest.mark.parametrize("derivative", get_args(Derivative))
@pytest.mark.parametrize("tasks", [None, 3])
def test_offloaded_checkpoints_preserve_meta_gradient(derivative: Derivative, tasks: int | None):
    """For one task and for several; 7 is no multiple of 3."""
    few = of_seven_adam_steps(derivative, tasks, checkpoints=3, offload=True)
    same(few, with_every_step_kept(derivative, tasks), 1e-12)


def test_offloaded_checkpoints_are_stored_in_host_memory():
    """Of each of 11 segments parameters and both moments; the device keeps its losses and counts of steps."""
    loss, params, task = mlp_case()
    inner = InnerLoop(RULES["adam"](), 33, checkpoints=11, offload=True)
    program = jax.make_jaxpr(maml(loss, inner).meta_grad)(params, task).jaxpr
    made: list[Any] = [v.aval for e in program.eqns if e.primitive.name == "scan" for v in e.outvars]
    stacked = [aval for aval in made if aval.shape[:1] == (11,)]
    on_host = [aval.shape[1:] for aval in stacked if aval.memory_space == jax.memory.Space.Host]
    assert sorted(on_host) == sorted(3 * [x.shape for x in jax.tree.leaves(params)])
    on_device = [aval.shape for aval in stacked if aval.memory_space != jax.memory.Space.Host]
    assert set(on_device) == {(11,), (11, 3)}


def test_checkpoints_with_a_selection_and_a_truncation():
    loss, params, task = mlp_case()
    plain, few = (anil(loss, InnerLoop(SGD, 9, last=5, checkpoints=c)) for c in (None, "sqrt"))
    same(few.meta_grad(params, task), plain.meta_grad(params, task), 1e-12)


@pytest.mark.parametrize(("steps", "segments", "held"), [(100, 10, 20), (100, 7, 22), (100, None, 100)])
def test_checkpoint_memory_matches_expected_carries(steps: int, segments: int | None, held: int):
    """Of a loop whose carry is a megabyte, the compiled program's temporary memory is that of so many carries."""
    theta = jnp.ones(131_072)
    step = lambda x, _: (jnp.sin(x) * x, None)
    loss = lambda theta: nested_scan(step, theta, jnp.arange(steps), steps, segments)[0].sum()
    compiled = jax.jit(jax.grad(loss)).lower(theta).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    carries = memory.temp_size_in_bytes / theta.nbytes
    assert carries < 3.2 * held + 5, carries  # a step keeps its carry, the sine and the cosine
    assert carries > held / 2, carries


def test_safe_sqrt_value_and_derivatives():
    x = jnp.asarray([0.0, 0.25, 4.0])
    same(safe_sqrt(x), [0, 0.5, 2])
    same(jax.vmap(jax.grad(safe_sqrt))(x), [0, 1, 0.25])
    same(jax.vmap(jax.grad(jax.grad(safe_sqrt)))(x[1:]), [-2.0, -1 / 32])
    assert np.isnan(jax.jvp(safe_sqrt, (-x[1],), (x[1],))[1])  # as the root's own


def test_safe_div_value_and_derivatives():
    """At a divisor of 0 alone both derivatives are 0; beside it, at -1 and 1 too, they are 1/y and -x/y^2."""
    x, y = jnp.asarray([3.0, 3.0, 3.0, 2.0]), jnp.asarray([0.0, -1.0, 1.0, 4.0])
    by_x, by_y = jax.vmap(jax.grad(safe_div, (0, 1)))(x, y)
    same(by_x, [0, -1, 1, 0.25])
    same(by_y, [0, -3, -3, -0.125])
    same(jax.vmap(safe_div)(x[1:], y[1:]), [-3, 3, 0.5])


@pytest.mark.parametrize(
    ("rule", "slope"),
    [
        (optax.chain(optax.clip_by_global_norm(1.0), SGD), -0.1),
        (optax.adam(0.1, eps=0.5), -0.1 / 0.5),
        (optax.rmsprop(0.1, eps=0.5, eps_in_sqrt=False), -0.1 / 0.5),
        (optax.chain(optax.scale_by_trust_ratio(), SGD), None),
        (optax.adamw(0.1, eps=0.5), -0.1 / 0.5),
    ],
)
def test_rule_derivative_is_finite_at_zero_gradient(rule, slope: float | None):
    """u = -alpha g min(1, c/|g|) and u = -alpha g/(|g| + eps) have the slopes -alpha and -alpha/eps at g = 0."""
    params = jnp.ones(3)
    step = lambda g: rule.update(g, rule.init(params), params)[0]
    found = jax.jacobian(with_safe_roots(step))(jnp.zeros(3))
    assert np.isfinite(found).all()
    if slope is not None:
        same(found, slope * np.eye(3))


def test_second_derivatives_of_adam_are_finite_at_zero_gradient():
    """The second parameter is never used: it stays where it is, and the second derivative of its square is 2."""
    inner = InnerLoop(optax.adam(0.1), 3)  # three steps: a scan
    loss = lambda params, batch: jnp.sum(jnp.square(params[0] - batch))
    outer = lambda params: jnp.sum(jnp.square(unroll(loss, inner, params, jnp.ones(1)).adapted))
    hessian = jax.hessian(outer)(jnp.zeros(2))
    assert np.isfinite(hessian).all()
    same(hessian[1], [0, 2])


def test_maml_with_clipping_at_zero_support_gradient():
    """The gradient of the support loss is exactly zero, that of the query loss is not: A = (1 - alpha)^k grad."""
    loss = lambda theta, target: jnp.sum(jnp.square(theta - target)) / 2
    rule = optax.chain(optax.clip_by_global_norm(1.0), SGD)
    theta = jnp.ones(3)
    same(maml(loss, InnerLoop(rule, 2)).meta_grad(theta, Task(theta, 0 * theta))[0], 0.9**2 * theta)
