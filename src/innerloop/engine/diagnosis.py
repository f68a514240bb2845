"""Locate where a computation became non-finite: the update, the task of the meta-batch, the inner step, the parameter.

A meta-step depends only on the state and its step number. So a kept copy of the state before the dispatch is run
forward again to the meta-step that failed, and that meta-step is examined task by task and inner step by inner step.
The only cost to a healthy run is one copy of its state per dispatch.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from innerloop.engine.pytree import paths
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError
from innerloop.parallel.compile_once import compile_once

if TYPE_CHECKING:
    from innerloop.engine.algorithm import Algorithm
    from innerloop.engine.outer import MetaState

Layers = Callable[[Params, PyTree], dict[str, Array]]
"""`layers(params, batch)`: the output of every layer, from first to last."""

QUERY = "the query loss or its gradient"


class Diverged(InnerloopError):
    """A loss, a gradient or a parameter was not finite.

    Attributes:
        before: the state of the outer loop before the call (None for errors from elsewhere).
    """

    before: "MetaState | None" = None


class FiniteMask(NamedTuple):
    """What is finite in one task's meta-gradient: losses and parameters by inner step, gradients by parameter."""

    losses: Bool[Array, " steps"]
    adapted: Bool[Array, " steps"]
    outer_loss: Bool[Array, ""]
    grads: Bool[Array, " parameters"]


def is_finite(tree: PyTree) -> Bool[Array, " leaves"]:
    """For each leaf, whether all its values are finite."""
    inexact = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    return jnp.array([jnp.isfinite(leaf).all() if inexact(leaf) else True for leaf in jax.tree.leaves(tree)])


_is_finite = compile_once(is_finite)


def first_nonfinite_leaf(tree: PyTree) -> str | None:
    """The path of the first leaf with a value that is not finite; None if all are."""
    sound = np.asarray(_is_finite(tree))
    return None if sound.all() else paths(tree)[int(np.argmin(sound))]


def first_nonfinite_update(info: PyTree) -> tuple[int, str] | None:
    """The first update whose loss or gradient is not finite, and where in it; None if all are.

    Args:
        info: `outer_loss` and `grad_norm` of every update, `inner_losses` of every update and step.
    """
    inner = np.isfinite(np.asarray(info.inner_losses))
    sound = (
        np.isfinite(np.asarray(info.outer_loss)) & np.isfinite(np.asarray(info.grad_norm)) & inner.all(axis=1)
    )
    if sound.all():
        return None
    bad = int(np.argmin(sound))
    return bad, QUERY if inner[bad].all() else f"inner step {np.argmin(inner[bad])}"


def first_nonfinite(
    algorithm: "Algorithm", params: Params, tasks: Iterable[Task], layers: Layers | None = None
) -> str:
    """Describe where the first task with a non-finite meta-gradient became non-finite; empty if all are finite.

    A loss that is random or has state is not examined; the description is then always empty.
    """
    if not algorithm.plain:
        return ""
    inspect = compile_once(lambda params, task: inspect_task(algorithm, params, task))
    for number, task in enumerate(tasks):
        seen = inspect(params, task)
        if not all(part.all() for part in seen):
            when, where = _place_in_task(algorithm, params, task, seen, layers)
            return f"{when} of task {number} of the meta-batch (counted from 0), {where}"
    return ""


def _place_in_task(
    algorithm: "Algorithm", params: Params, task: Task, seen: FiniteMask, layers: Layers | None
) -> tuple[str, str]:
    """At which stage one task's meta-gradient became non-finite, and where."""
    step = first_nonfinite_step(seen.losses, seen.adapted)
    query = step is None and jax.tree.leaves(task.query)[0].size
    start = _after_steps(algorithm, params, task.support, seen.losses.size if step is None else step)
    where = locate_in_layers(algorithm, start, task.query if query else task.support, layers)
    where = where or locate_in_gradient(params, seen.grads) or "in the update itself"
    return QUERY if step is None else f"inner step {step}", where


def _after_steps(algorithm: "Algorithm", params: Params, support: PyTree, steps: int) -> Params:
    """The parameters after this number of inner steps."""
    shorter = algorithm.with_inner(steps=steps)
    return compile_once(lambda params, support: shorter.trajectory(params, support).adapted)(params, support)


def inspect_task(algorithm: "Algorithm", params: Params, task: Task) -> FiniteMask:
    """Which parts of one task's meta-gradient are finite."""
    grads, info = algorithm.meta_grad(params, task)
    # Joint training takes no inner steps.
    adapted = (
        inspect_adaptation(algorithm, params, task.support)[1]
        if info.inner_losses.size
        else jnp.ones(0, bool)
    )
    return FiniteMask(
        jnp.isfinite(info.inner_losses), adapted, jnp.isfinite(info.outer_loss), is_finite(grads)
    )


def inspect_adaptation(algorithm: "Algorithm", params: Params, support: PyTree) -> tuple[Array, Array]:
    """Whether the loss before each inner step is finite, and whether the parameters after it are."""
    trajectory = algorithm.trajectory(params, support, lambda params, i: is_finite(params).all())
    return jnp.isfinite(trajectory.losses), trajectory.observed[1:]


def locate_in_adaptation(algorithm: "Algorithm", params: Params, support: PyTree) -> str:
    """Describe where an adaptation became non-finite; empty if it did not, or if the loss is not examined."""
    if not algorithm.plain:
        return ""
    step = first_nonfinite_step(
        *compile_once(lambda *given: inspect_adaptation(algorithm, *given))(params, support)
    )
    if step is None:
        return ""
    start = _after_steps(algorithm, params, support, step)
    return f"inner step {step}, {locate_in_layers(algorithm, start, support) or 'in the update itself'}"


def locate_in_meta_gradient(algorithm: "Algorithm", params: Params, task: Task) -> str:
    """Describe where the meta-gradient of one task became non-finite."""
    seen = compile_once(lambda *given: inspect_task(algorithm, *given))(params, task)
    return ", ".join(_place_in_task(algorithm, params, task, seen, None))


def first_nonfinite_step(losses: Array, adapted: Array) -> int | None:
    """The first inner step whose loss, or whose result, is not finite; None if all are."""
    sound = np.asarray(losses) & np.asarray(adapted)
    return None if sound.all() else int(np.argmin(sound))


def locate_in_layers(
    algorithm: "Algorithm", params: Params, batch: PyTree, layers: Layers | None = None
) -> str:
    """Where values first become non-finite: the data, a layer's output, the loss or a gradient; empty if nowhere."""
    if batch is None:
        return ""
    if not np.asarray(is_finite(batch)).all():
        return "in its data"
    for name, output in (layers(params, batch) if layers else {}).items():
        if not np.isfinite(np.asarray(output)).all():
            return f"at the output of layer `{name}`"
    loss, grads = compile_once(jax.value_and_grad(algorithm.loss_fn))(params, batch)
    if np.isfinite(loss):
        return locate_in_gradient(params, is_finite(grads))
    why = explain_mismatch(algorithm, params, batch)
    return f"at the loss ({why})" if why else "at the loss"


def explain_mismatch(algorithm: "Algorithm", params: Params, batch: PyTree, ways: int | None = None) -> str:
    """Why the targets do not fit the model's outputs, if the loss can tell."""
    explain = getattr(algorithm.loss_fn, "misfit", None)
    return "" if explain is None else explain(params, batch, ways)


def locate_in_gradient(params: Params, sound: object) -> str:
    """The parameter nearest the output whose gradient is not finite; empty if there is none."""
    lost = np.flatnonzero(~np.asarray(sound))
    return f"at the gradient of `{paths(params)[lost[-1]]}`" if len(lost) else ""
