"""Unrolled, rematerialised and mixed mode are one gradient; hoisting the frozen body changes nothing but work."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import CASES, RULES, assert_close, differ, gradient, mlp_case

from innerloop.algorithms import anil, boil, fomaml, maml
from innerloop.engine.inner.inner_loop import Derivative, InnerLoop
from innerloop.engine.inner.unroll import unroll
from innerloop.engine.types import Batch
from innerloop.nn.losses import mean_squared_error

SPLITS = {"all": maml, "head": anil, "body": boil}
SHORT = [("sgd", "head"), ("momentum", "body"), ("momentum", "all"), ("adam", "all"), ("adam", "head")]
MLP = [("mlp", rule, split, 3) for rule, split in SHORT]
LONG = [("mlp", "sgd", "all", 5), ("conv4", "sgd", "all", 5)]
CONV = [("smooth conv", "adam", "all", 2), ("smooth conv", "momentum", "head", 3)]


@pytest.mark.parametrize(("case", "rule", "split", "steps"), MLP + LONG + CONV)
def test_derivative_modes_give_same_meta_gradient(case: str, rule: str, split: str, steps: int):
    loss, params, task = CASES[case]()
    modes = {
        mode: SPLITS[split](loss, InnerLoop(RULES[rule](), steps, derivative=mode))
        for mode in ("unrolled", "rematerialised", "mixed")
        if not (case == "conv4" and mode == "rematerialised")  # slow to compile
    }
    together = jax.jit(lambda params, task: {m: a.meta_grad(params, task) for m, a in modes.items()})
    found = together(params, task)
    for mode in modes:
        assert_close(found[mode][0], found["unrolled"][0], 1e-9)
        np.testing.assert_allclose(found[mode][1].inner_losses, found["unrolled"][1].inner_losses, rtol=1e-12)


@pytest.mark.parametrize("mode", ["rematerialised", "mixed"])
def test_derivative_modes_agree_with_minibatches(mode):
    """The data of a step are indexed inside the scan; the modes must agree there too."""
    loss, params, task = mlp_case()
    plain = anil(loss, InnerLoop(RULES["sgd"](), 4, minibatch=2))
    other = anil(loss, InnerLoop(RULES["sgd"](), 4, minibatch=2, derivative=mode))
    assert_close(gradient(other, params, task), gradient(plain, params, task), 1e-12)


def test_mixed_mode_differentiates_support_inputs():
    """phi holds floats (inputs) and integers (class numbers): the first get their cotangent, the second none."""
    loss, params, task = CASES["smooth conv"]()

    def outer(mode, inputs: jax.Array) -> jax.Array:
        support = task.support._replace(inputs=inputs)
        algorithm = maml(loss, InnerLoop(RULES["sgd"](), 2, derivative=mode))
        return loss(algorithm.adapt(params, support), task.query)

    slopes = [
        jax.jit(jax.grad(lambda x, m=m: outer(m, x)))(task.support.inputs) for m in ("unrolled", "mixed")
    ]
    assert_close(slopes[0], slopes[1], 1e-12)


def test_mixed_mode_differentiates_support_losses():
    """What is learnt from the support losses themselves, here their sum, reaches parameters and data."""
    loss, params, task = mlp_case()

    def total(mode: Derivative, params: Any, inputs: jax.Array) -> jax.Array:
        inner = InnerLoop(RULES["sgd"](), 3, derivative=mode)
        return unroll(loss, inner, params, task.support._replace(inputs=inputs)).losses.sum()

    plain, mixed = (
        jax.jit(jax.grad(partial(total, mode), (0, 1)))(params, task.support.inputs)
        for mode in ("unrolled", "mixed")
    )
    assert_close(mixed, plain, 1e-12)


@pytest.mark.parametrize("mode", ["unrolled", "mixed"])
@pytest.mark.parametrize("make", [anil, boil, maml])
def test_hoisting_preserves_gradient(make, mode, monkeypatch: pytest.MonkeyPatch):
    """For what moves and for what is frozen."""
    loss, params, task = mlp_case()
    inner = InnerLoop(RULES["momentum"](), 3, derivative=mode)
    hoisted = gradient(make(loss, inner), params, task)
    monkeypatch.setattr("innerloop.engine.inner.unroll.hoist", lambda loss, fast, rest: (loss, rest))
    plain = gradient(make(loss, inner), params, task)
    for part in ("body", "head"):
        assert_close(hoisted[part], plain[part], 1e-13)


def test_hoisting_handles_constants_and_unused_head(monkeypatch: pytest.MonkeyPatch):
    """A loss with constants, a part without parameters, and an output that never meets the head."""
    loss, params, task = mlp_case()
    constant = np.arange(6.0).reshape(3, 2)

    def odd(params: dict, batch: Batch) -> jax.Array:
        return loss(params, batch) + jnp.sum(batch.inputs @ constant) ** 2 + jnp.sum(constant)

    def headless(params: dict, batch: Batch) -> jax.Array:
        return jnp.sum(jnp.sin(params["body"]["w"])) * batch.inputs.mean()

    inner = InnerLoop(RULES["sgd"](), 2)
    with monkeypatch.context() as patch:
        patch.setattr("innerloop.engine.inner.unroll.hoist", lambda loss, fast, rest: (loss, rest))
        plain = gradient(anil(odd, inner), params, task)
    assert_close(gradient(anil(odd, inner), params, task), plain, 1e-12)
    adapted = anil(headless, inner).adapt(params, task.support)
    jax.tree.map(np.testing.assert_array_equal, adapted, params)


def equations(jaxpr: Any, name: str, inside: bool = False) -> tuple[int, int]:
    """How often a primitive stands (outside, inside) of a scan."""
    outside_count = inside_count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            outside_count, inside_count = outside_count + (not inside), inside_count + inside
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            within = getattr(value, "jaxpr", value)
            if hasattr(within, "eqns"):
                a, b = equations(within, name, inside or equation.primitive.name == "scan")
                outside_count, inside_count = outside_count + a, inside_count + b
    return outside_count, inside_count


def test_computations_on_data_alone_are_hoisted():
    """Where all parameters move too: a sort of the support set stands before the three steps."""
    loss, params, task = mlp_case()
    sorting = lambda params, batch: loss(params, Batch(jnp.sort(batch.inputs, 0), batch.targets))
    adapt = maml(sorting, InnerLoop(RULES["sgd"](), 3)).adapt
    assert equations(jax.make_jaxpr(adapt)(params, task.support).jaxpr, "sort") == (1, 0)


def features_in(make, steps: int) -> tuple[int, int]:
    """How often the body's activation is evaluated outside and inside the inner loop."""
    _, params, task = mlp_case()

    def apply(params: dict, x: jax.Array) -> jax.Array:
        return jnp.sin(x @ params["body"]["w"]) @ params["head"]["w"]

    algorithm = make(mean_squared_error(apply), InnerLoop(RULES["sgd"](), steps))
    jaxpr = jax.make_jaxpr(algorithm.adapt)(params, task.support)
    return equations(jaxpr.jaxpr, "sin")


def test_anil_computes_the_features_once():
    """Whatever the number of steps; MAML, whose features move, computes them in every step."""
    assert features_in(anil, 2) == features_in(anil, 50) == (1, 0)
    assert features_in(maml, 2) == (0, 1)


def test_first_order_gradient_is_independent_of_mode():
    loss, params, task = mlp_case()
    found = [
        gradient(fomaml(loss, InnerLoop(RULES["adam"](), 3, derivative=mode)), params, task)
        for mode in ("unrolled", "mixed")
    ]
    assert_close(found[0], found[1], 1e-13)
    assert differ(found[0], gradient(maml(loss, InnerLoop(RULES["adam"](), 3)), params, task)) > 1e-2


@pytest.mark.parametrize(("derivative", "most"), [("unrolled", 4.5), ("mixed", 5.5), ("rematerialised", 3.5)])
def test_intermediate_values_of_adam_are_not_stored(derivative: Derivative, most: float):
    loss = lambda params, batch: jnp.sum(jnp.sin(params * batch))
    inner = InnerLoop(optax.adam(0.1), 10, derivative=derivative)
    derivative_of = lambda params, batch: jax.vjp(lambda p: unroll(loss, inner, p, batch).adapted, params)[1]
    stored = jax.eval_shape(derivative_of, jnp.ones(100), jnp.ones((1, 100)))
    # For each step the parameters, both moments and what the loss needs: at most 5, where there were 10.
    assert sum(x.size for x in jax.tree.leaves(stored)) < most * 10 * 100
