r"""Check a meta-gradient against finite differences of the objective that it should be the gradient of.

    F(theta) = L(adapt(theta; support); query)      or the algorithm's own `objective`
    (F(theta + h v) - F(theta - h v)) / 2h  against  g . v

in float64, along directions v that move one parameter each and along some that move all. The step h is the one at
which neighbouring steps agree best (large steps truncate, small ones round); their difference is the uncertainty of
the finite difference itself. A first-order gradient (FOMAML, Reptile) is recognised, and its angle to the meta-gradient
is reported.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from innerloop.algorithms.imaml import IMAML
from innerloop.algorithms.testing.explanation import verdict
from innerloop.algorithms.testing.finite_differences import STEPS, Directions, compare
from innerloop.algorithms.testing.gradient_kinds import Kind, angle_and_ratio, name_of
from innerloop.engine.algorithm import Algorithm, check_is_algorithm, check_task
from innerloop.engine.diagnosis import first_nonfinite_leaf
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import Loss, check_loss
from innerloop.engine.losses.loss_errors import REVERSE
from innerloop.engine.pytree import Except, combine, partition
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError, check_count

CONSTANT = "the query loss depends on no parameter (is it rounded, or cut off from all of them?)"


@dataclass(frozen=True)
class MetaGradientCheck:
    """The result of `check_meta_gradient`; `print` shows it as a table.

    Attributes:
        passed: whether the meta-gradient agrees with finite differences within the tolerance.
        kind: exact; first order (the query gradient at the adapted parameters); displacement (Reptile's); joint (the
            query gradient before adaptation); or wrong.
        relative_error: the largest relative error over all directions.
        uncertainty: the relative uncertainty of the finite difference in that direction.
        by_parameter: the relative error for each parameter, by path.
        angle: the angle between this gradient and the meta-gradient, in degrees; NaN if automatic differentiation of
            the objective is wrong too, or impossible, as through the line search of `optax.lbfgs`.
        ratio: the norm of this gradient over that of the meta-gradient; NaN likewise.
        no_gradient: parameters whose gradient is zero although the objective depends on them.
        unused: parameters that the objective does not depend on.
        verdict: the result in a sentence.
    """

    passed: bool
    kind: Kind
    relative_error: float
    uncertainty: float
    by_parameter: dict[str, float]
    angle: float
    ratio: float
    no_gradient: tuple[str, ...]
    unused: tuple[str, ...]
    verdict: str

    def __str__(self) -> str:
        width = max(len(path) for path in self.by_parameter)
        rows = [f"  {path:<{width}}  {error:.1e}" for path, error in self.by_parameter.items()]
        return "\n".join([self.verdict, "relative error by parameter:", *rows])


def check_meta_gradient(
    algorithm: Algorithm,
    params: Params,
    task: Task,
    *,
    directions: int = 2,
    step: float | None = None,
    tolerance: float = 1e-5,
    key: MaybeKey = None,
) -> MetaGradientCheck:
    """Compare `algorithm.meta_grad` with finite differences on one task, in float64.

    Args:
        algorithm: the algorithm to check.
        params: the meta-parameters at which to check it.
        task: the task, without a leading axis.
        directions: the number of random directions in all parameters, besides one direction for each parameter.
        step: the step of the finite difference, relative to the norm of a parameter (None: the best of several).
        tolerance: the largest relative error that passes.
        key: the task's key, for a random loss.

    Raises:
        InnerloopError: if a parameter is not a float array, the loss is not a scalar, or a value is not
            finite, or a random loss has no key.
    """
    check_is_algorithm(algorithm, "check_meta_gradient")
    check_trainable(params, "check_meta_gradient")
    check_task(task, "check_meta_gradient")
    directions = check_count("check_meta_gradient", "directions", directions, 0)
    with jax.enable_x64(True):
        params, task, algorithm = _in_float64(params), _in_float64(task), _with_states_in_float64(algorithm)
        check_loss(lambda params, task: algorithm.objective(params, task, key=key), params, task)
        grads = jax.jit(algorithm.meta_grad)(params, task, key=key)[0]
        _check_finite(grads, "the meta-gradient")
        learned, held = partition(params, Except(algorithm.held_constant))
        objective = lambda learned: algorithm.objective(combine(learned, held), task, key=key)
        _check_finite(jax.jit(objective)(learned), "the query loss")
        own, _ = partition(grads, Except(algorithm.held_constant))
        steps = STEPS if step is None else (step, step / 10)
        found = compare(jax.jit(objective), learned, own, directions, steps)
        kind_of = lambda: name_of(algorithm, params, task, grads, key)
        cause_of = lambda kind: (
            _truncated(algorithm, params, task, key, tolerance, kind)
            or _unsolved(algorithm, params, task, key, tolerance)
        )
        return _judge(kind_of, cause_of, objective, learned, own, found, tolerance)


def _judge(
    kind_of: Callable[[], Kind],
    cause_of: Callable[[Kind], str],
    objective: Callable,
    params: Params,
    grads: PyTree,
    found: Directions,
    tolerance: float,
) -> MetaGradientCheck:
    """Classify the gradient, and describe it in a sentence."""
    errors = found.errors
    worst = int(np.argmax(errors))
    constant = not (np.abs(found.finite) + np.abs(found.product)).any()
    passed = bool(errors[worst] <= tolerance) and not constant
    kind: Kind = "exact" if passed else "wrong"
    if not passed and not constant:
        kind = kind_of()
    exact = _differentiated(objective, params)
    sound = exact is not None and (
        passed or compare(jax.jit(objective), params, exact, 1, STEPS).errors.max() <= tolerance
    )
    angle, ratio = angle_and_ratio(grads, exact) if sound else (float("nan"), float("nan"))
    silent, unused = _without_gradient(found, grads)
    error, unsure = float(errors[worst]), float(found.unsure[worst] / found.size[worst])
    by_parameter = dict(zip(found.names, errors.tolist(), strict=False))
    check = MetaGradientCheck(passed, kind, error, unsure, by_parameter, angle, ratio, silent, unused, "")
    if constant:
        return replace(check, verdict=CONSTANT)
    return replace(check, verdict=verdict(check, found.names[worst], "" if passed else cause_of(kind)))


def _differentiated(objective: Callable, params: Params) -> Params | None:
    """The gradient by automatic differentiation; None if there is none, as through a line search."""
    try:
        return jax.jit(jax.grad(objective))(params)
    except ValueError as error:
        if not str(error).startswith(REVERSE):
            raise
        return None


def _without_gradient(found: Directions, grads: PyTree) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters whose gradient is zero: those that the objective depends on, and those that it does not."""
    depends = np.abs(found.finite) > found.floor + 10 * found.unsure
    zero = [not np.any(np.asarray(g)) for g in jax.tree.leaves(grads)]
    none = [(name, used) for name, nothing, used in zip(found.names, zero, depends, strict=False) if nothing]
    return tuple(name for name, used in none if used), tuple(name for name, used in none if not used)


def _truncated(
    algorithm: Algorithm, params: Params, task: Task, key: MaybeKey, tolerance: float, kind: Kind
) -> str:
    """That `last` is the cause, in words; empty unless the gradient through all inner steps is right."""
    last = algorithm.inner.last
    if not algorithm.second_order or last is None or last >= algorithm.inner.steps:
        return ""
    whole = algorithm.with_inner(last=None)
    check = lambda: check_meta_gradient(whole, params, task, directions=0, tolerance=tolerance, key=key)
    try:
        told = (last == 0 and kind == "first order") or check().passed
    except InnerloopError:  # it is not finite, such as Adam's at a gradient of zero
        return ""
    held = f"`last={last}` holds the gradients of earlier inner steps constant"
    return f"{held}, which finite differences do not" if told else ""


def _unsolved(algorithm: Algorithm, params: Params, task: Task, key: MaybeKey, tolerance: float) -> str:
    """Which of iMAML's problems are not solved, in words; empty if both are, or for another algorithm."""
    if not isinstance(algorithm, IMAML):
        return ""
    inner, system = map(float, jax.jit(algorithm.residuals)(params, task, key=key))
    if max(inner, system) <= tolerance / 10:
        return ""
    residuals = f"relative residuals: inner loop {inner:.1g}, linear system {system:.1g}"
    steps = "`cg_steps`" if system > inner else "or smaller inner steps, or a larger `proximal`"
    return f"imaml has not converged ({residuals}); take more {steps}"


def _in_float64(tree: PyTree) -> PyTree:
    """Floats as float64, everything else as it is."""
    floating = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if floating(x) else x, tree)


def _with_states_in_float64(algorithm: Algorithm) -> Algorithm:
    """The algorithm whose losses start from their states in float64."""
    cast = lambda fn: replace(fn, state=_in_float64(fn.state)) if isinstance(fn, Loss) else fn
    return replace(algorithm, loss_fn=cast(algorithm.loss_fn), outer_loss_fn=cast(algorithm.outer_loss_fn))


def _check_finite(tree: PyTree, what: str) -> None:
    """Raise InnerloopError for the first leaf that is not finite; it is named unless the tree is one array."""
    path = first_nonfinite_leaf(tree)
    if path is not None:
        raise InnerloopError(
            "check_meta_gradient",
            f"{what} is not finite" + (f" at `{path}`" if path else ""),
            got="NaN or infinity",
            hint="look for a square root, a norm or a logarithm at zero",
        )
