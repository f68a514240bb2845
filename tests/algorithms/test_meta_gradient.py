"""The self-check tells right from wrong meta-gradients, and says what is wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import anil, cavia, fomaml, imaml, joint, maml, maml_plus_plus, online_maml, reptile
from innerloop.algorithms.fomaml import FOMAML
from innerloop.algorithms.joint import Joint
from innerloop.algorithms.maml import MAML
from innerloop.algorithms.testing.meta_gradient import MetaGradientCheck, check_meta_gradient
from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import Batch, LossFn, Task
from innerloop.errors import InnerloopError

INNER = InnerLoop(optax.sgd(0.1), 2)


def problem() -> tuple[dict, Task]:
    """Parameters and data in float32: the check takes them to float64."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {"body": draw(3, 4), "head": draw(4, 2)}
    return params, Task(Batch(draw(5, 3), draw(5, 2)), Batch(draw(6, 3), draw(6, 2)))


def loss(params: Any, batch: Batch) -> jax.Array:
    return jnp.mean(jnp.square(jnp.tanh(batch.inputs @ params["body"]) @ params["head"] - batch.targets))


def checked(make, loss_fn: LossFn = loss, inner: InnerLoop = INNER, **keywords: Any) -> MetaGradientCheck:
    params, task = problem()
    return check_meta_gradient(make(loss_fn, inner), params, task, **keywords)


@pytest.mark.parametrize("rule", [optax.sgd(0.1), optax.adam(0.05, eps_root=1e-8)])
@pytest.mark.parametrize("make", [maml, anil])
def test_right_gradients_pass(make, rule: optax.GradientTransformation):
    found = checked(make, inner=InnerLoop(rule, 2))
    assert found.passed
    assert found.kind == "exact"
    assert found.relative_error < 1e-7
    assert found.verdict.startswith("the meta-gradient agrees with finite differences to ")
    assert set(found.by_parameter) == {"body", "head", "all parameters"}
    assert "relative error by parameter" in str(found)
    assert found.angle < 1e-4
    np.testing.assert_allclose(found.ratio, 1)


def test_step_argument_is_used():
    assert checked(maml, step=1e-4, directions=1).passed
    assert not checked(maml, step=3.0, directions=1, tolerance=1e-9).passed


def test_relu_passes():
    """Kinks are seldom met by small steps."""
    relu = lambda p, b: jnp.mean(jnp.square(jax.nn.relu(b.inputs @ p["body"]) @ p["head"] - b.targets))
    assert checked(maml, relu).passed


def test_first_order_gradient_is_identified():
    """With its angle and length, which are those of the two gradients computed apart."""
    found = checked(fomaml)
    assert not found.passed
    assert found.kind == "first order"
    assert "right for FOMAML" in found.verdict
    params, task = problem()
    first, second = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(make(loss, INNER).meta_grad(params, task)[0])])
        for make in (fomaml, maml)
    )
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    angle = np.degrees(np.arccos(first @ second / lengths[0] / lengths[1]))
    np.testing.assert_allclose([found.angle, found.ratio], [angle, lengths[0] / lengths[1]], rtol=1e-3)
    assert f"{found.angle:.2g} degrees" in found.verdict


def test_check_uses_objective_of_algorithm():
    """The mean loss along a stream; the query losses after all steps."""
    params, task = problem()
    stream = Task(jax.tree.map(lambda x: jnp.stack([x[:2], x[2:4]]), task.support), None)
    assert check_meta_gradient(online_maml(loss, INNER), params, stream, directions=1).passed
    weighted = maml_plus_plus(loss, INNER, rates=0.1, multi_step_updates=2)
    assert check_meta_gradient(weighted.at(jnp.asarray(0)), weighted.init(params), task, directions=1).passed


def test_cavia_context_is_not_compared():
    """CAVIA's context: its gradient is zero, and the objective depends on it."""
    found = checked(lambda loss_fn, inner: cavia(loss_fn, inner, context="head"), directions=1)
    assert found.passed
    assert set(found.by_parameter) == {"body", "all parameters"}
    assert not found.no_gradient


def counting(params: Any, batch: Batch, *, state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A random loss with a state that enters it."""
    noise = jax.random.normal(key, batch.targets.shape)
    return loss(params, batch._replace(targets=batch.targets + noise + state)), state + 1


@pytest.mark.parametrize(("make", "kind"), [(maml, "exact"), (fomaml, "first order"), (joint, "joint")])
def test_random_stateful_loss_is_classified(make, kind: str):
    noisy = Loss(counting, random=True, state=jnp.zeros(()))
    assert checked(make, noisy, key=jax.random.key(1), directions=1).kind == kind


@pytest.mark.parametrize(("make", "kind"), [(reptile, "displacement"), (joint, "joint")])
def test_reptile_and_joint_gradients_are_identified(make, kind: str):
    found = checked(make)
    assert (found.passed, found.kind) == (False, kind)
    assert found.angle > 1
    says = {"displacement": "right for Reptile", "joint": "right for joint training"}[kind]
    assert says in found.verdict


@pytest.mark.parametrize(("make", "kind"), [(imaml, "exact"), (fomaml, "first order")])
def test_lbfgs_inner_loop_is_judged_by_finite_differences(make, kind: str):
    """The line search of L-BFGS: finite differences judge, and the gradient is compared with no other."""
    small = lambda params, batch: jnp.sum((params - batch) ** 2)
    task = Task(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0]))
    found = check_meta_gradient(make(small, InnerLoop(optax.lbfgs(), 3)), jnp.zeros(2), task, directions=0)
    assert (found.passed, found.kind) == (kind == "exact", kind)
    assert np.isnan(found.angle)


def test_stop_gradient_in_inner_loop_is_detected():
    """It makes MAML first order, and jax.grad of the objective as wrong: only finite differences see it."""
    cut = optax.stateless(lambda updates, params: jax.lax.stop_gradient(updates))
    found = checked(maml, inner=InnerLoop(optax.chain(cut, optax.sgd(0.1)), 2))
    assert (found.passed, found.kind) == (False, "first order")
    assert "look for stop_gradient in the inner loop" in found.verdict
    assert np.isnan(found.angle)
    assert found.relative_error > 1e-2


def test_stop_gradient_in_loss_is_detected():
    """The parameter behind it is named."""
    cut = lambda p, b: loss({**p, "body": jax.lax.stop_gradient(p["body"])}, b)
    found = checked(maml, cut)
    assert (found.passed, found.kind) == (False, "wrong") or found.no_gradient
    assert "body" in found.verdict
    assert found.by_parameter["body"] > 0.9


def test_wrong_custom_derivative_is_detected():
    @jax.custom_jvp
    def wrong_tanh(x):
        return jnp.tanh(x)

    wrong_tanh.defjvps(lambda t, y, x: 0.8 * t * (1 - y**2))
    custom = lambda p, b: jnp.mean(jnp.square(wrong_tanh(b.inputs @ p["body"]) @ p["head"] - b.targets))
    found = checked(maml, custom)
    assert (found.passed, found.kind) == (False, "wrong")
    assert "custom derivative" in found.verdict


def altered(change, base: Any = MAML):
    """MAML, or another, with another gradient."""

    class Altered(base):
        def meta_grad(self, meta_params: Any, task: Task, *, key: Any = None) -> Any:
            grads, info = super().meta_grad(meta_params, task, key=key)
            return change(grads), info

    return Altered


def test_a_parameter_without_gradient_is_named():
    found = checked(altered(lambda g: {**g, "head": 0 * g["head"]}))
    assert not found.passed
    assert found.no_gradient == ("head",)
    assert "no gradient flows to head" in found.verdict
    assert found.by_parameter["body"] < 1e-6


def test_wrong_gradient_scale_is_detected():
    found = checked(altered(lambda g: jax.tree.map(lambda x: 1.16 * x, g)))
    assert (found.passed, found.kind) == (False, "wrong")
    np.testing.assert_allclose(found.relative_error, 0.16 / 1.16, rtol=1e-5)
    np.testing.assert_allclose(found.ratio, 1.16, rtol=1e-8)
    assert "missing second derivative" in found.verdict


def test_objective_without_query_loss_is_checked():
    """The verdict does not need the loss on the query set, which may have another structure."""

    class Own(Algorithm):
        def objective(self, meta_params: Any, task: Task, *, key: Any = None) -> jax.Array:
            return loss(self.adapt(meta_params, task.support, key=key), task.query["batch"])

        def meta_grad(self, meta_params: Any, task: Task, *, key: Any = None) -> Any:
            value, grads = jax.value_and_grad(self.objective)(meta_params, task, key=key)
            return jax.tree.map(lambda g: 2 * g, grads), MetaInfo(value, jnp.zeros(0))

    params, task = problem()
    found = check_meta_gradient(Own(loss, INNER), params, Task(task.support, {"batch": task.query}))
    assert (found.passed, found.kind) == (False, "wrong")
    np.testing.assert_allclose(found.ratio, 2, rtol=1e-8)


@pytest.mark.parametrize("last", [0, 1])
def test_truncation_is_reported(last: int):
    """`last` holds gradients constant, so the difference is intended."""
    found = checked(maml, inner=InnerLoop(optax.sgd(0.1), 2, last=last), directions=1)
    assert not found.passed
    told = (
        f"`last={last}` holds the gradients of earlier inner steps constant, which finite differences do not"
    )
    assert told in found.verdict
    assert "look for" not in found.verdict
    assert checked(maml, inner=InnerLoop(optax.sgd(0.1), 2, last=2), directions=1).passed


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (fomaml, "right for FOMAML"),
        (altered(lambda g: jax.tree.map(lambda x: -7 * x, g)), "look for stop_gradient"),
    ],
)
def test_truncation_is_not_reported_for_other_causes(make: Any, says: str):
    found = checked(make, inner=InnerLoop(optax.sgd(0.1), 2, last=0), directions=0)
    assert says in found.verdict
    assert "`last=" not in found.verdict


def test_truncation_report_with_nonfinite_second_derivative():
    """The square root in Adam has no derivative at zero; `last=0` is then told if the gradient is first order."""
    half = lambda params, batch: loss({**params, "head": jnp.ones((4, 2))}, batch)
    doubled = altered(lambda g: jax.tree.map(lambda x: 2 * x, g))
    inner = InnerLoop(optax.adam(0.05), 2, last=0)
    verdicts = [checked(make, half, inner, directions=0).verdict for make in (maml, doubled)]
    assert ["`last=0`" in verdict for verdict in verdicts] == [True, False]


def test_tolerance_bounds_relative_error():
    """A gradient that is one in ten thousand too long passes at 2e-4, and at nothing below 1e-4."""
    off = altered(lambda g: jax.tree.map(lambda x: 1.0001 * x, g))
    assert [checked(off, tolerance=t).passed for t in (2e-4, 5e-5, 1e-5)] == [True, False, False]
    assert not checked(off).passed


@pytest.mark.parametrize(("base", "kind"), [(FOMAML, "first order"), (Joint, "joint")])
def test_scaled_gradient_is_classified_as_wrong(base: Any, kind: str):
    """Twice the first-order gradient is not FOMAML's, though it points the same way."""
    doubled = altered(lambda g: jax.tree.map(lambda x: 2 * x, g), base)
    assert (checked(base).kind, checked(doubled).kind) == (kind, "wrong")


def test_unused_parameter_is_reported_but_passes():
    params, task = problem()
    params["spare"] = jnp.ones(2)
    found = check_meta_gradient(maml(loss, INNER), params, task)
    assert found.passed
    assert found.unused == ("spare",)
    assert "does not depend on spare" in found.verdict


def test_float32_inside_the_loss_is_undecided():
    """Rounding of 1e-7 in the loss leaves finite differences unsure: no digits beyond that can be checked."""
    coarse = lambda p, b: loss(jax.tree.map(lambda x: x.astype(jnp.float32), p), b)
    found = checked(maml, coarse, tolerance=1e-12)
    assert not found.passed
    assert "undecided" in found.verdict
    assert "float32 inside the loss" in found.verdict


def test_constant_loss_fails():
    """Zero equals zero, but a loss that is cut off from every parameter is no success."""
    found = checked(maml, lambda p, b: 0 * loss(p, b))
    assert not found.passed
    assert "depends on no parameter" in found.verdict


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (
            lambda p, b: jnp.square(b.inputs @ p["body"]).mean(1),
            "loss must be one float, .*; take the mean over examples; use jax.vmap if",
        ),
        (lambda p, b: jnp.linalg.norm(0 * p["body"]) + loss(p, b), "not finite at `body`"),
        (lambda p, b: loss(p, b) * jnp.nan, "not finite"),
        (Loss(counting, random=True, state=jnp.zeros(())), "needs a key"),
    ],
)
def test_invalid_losses_raise(loss_fn: LossFn, message: str):
    with pytest.raises(InnerloopError, match=message):
        checked(maml, loss_fn)


def test_integer_parameters_raise():
    _, task = problem()
    with pytest.raises(InnerloopError, match="not a float array"):
        check_meta_gradient(maml(loss, INNER), {"body": jnp.arange(3)}, task)


def test_query_loss_may_read_fields_absent_from_support_set():
    """It is a loss on queries alone."""
    inner_loss = lambda params, batch: jnp.sum((params["w"] - batch["x"]) ** 2)
    weighted = lambda params, batch: jnp.sum(batch["weight"] * (params["w"] - batch["x"]) ** 2)
    task = Task({"x": jnp.ones(2)}, {"x": jnp.zeros(2), "weight": jnp.arange(2.0)})
    algorithm = maml(inner_loss, InnerLoop(optax.sgd(0.1)), outer_loss_fn=weighted)
    assert check_meta_gradient(algorithm, {"w": jnp.full(2, 3.0)}, task).passed


def test_single_letter_parameter_is_named():
    root = lambda params, batch: jnp.sum(jnp.sqrt(params["w"] * batch["x"]))
    task = Task({"x": jnp.ones(2)}, {"x": jnp.ones(2)})
    with pytest.raises(InnerloopError, match="the meta-gradient is not finite at `w`"):
        check_meta_gradient(maml(root, InnerLoop(optax.sgd(0.0), 0)), {"w": jnp.zeros(2)}, task)
