"""Locate where a computation became non-finite: the update, the task of the meta-batch, the inner step, the parameter.

A meta-step depends only on the state and its step number. So a kept copy of the state before the dispatch is run
forward again to the meta-step that failed, and that meta-step is examined task by task and inner step by inner step.
The only cost to a healthy run is one copy of its state per dispatch.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

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
    from innerloop.engine.meta_state import MetaState

Layers = Callable[[Params, PyTree], dict[str, Array]]
"""`layers(params, batch)`: the output of every layer, from first to last."""

QUERY, IN_UPDATE = "the query loss or its gradient", "in the update itself"


class Place(NamedTuple):
    """Where values were first not finite.

    Attributes:
        kind: `parameters` (before any step), `data`, or `computation`.
        text: the place in words.
    """

    kind: Literal["parameters", "data", "computation"]
    text: str


class LostUpdate(NamedTuple):
    """The first update whose loss or gradient is not finite.

    Attributes:
        good: the number of finite updates before it.
        place: where in the update that is seen first.
        got: which number is not finite, and its value.
    """

    good: int
    place: Place
    got: str


class Diverged(InnerloopError):
    """A loss, a gradient or a parameter was not finite.

    Attributes:
        before: the state of the outer loop before the call of `run`; None for errors from elsewhere.
    """

    before: "MetaState | None" = None


class Reporter(NamedTuple):
    """Who reports that an outer loop diverged, and in which words.

    Attributes:
        who: the function.
        what: what has happened at update `{}`.
        sizes: the step sizes to lower.
        outer: the step size of the outer update.
    """

    who: str
    what: str
    sizes: str
    outer: str


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


def first_nonfinite_update(info: PyTree) -> LostUpdate | None:
    """The first update whose loss or gradient is not finite; None if all are.

    Args:
        info: `outer_loss` and `grad_norm` of every update, `inner_losses` of every update and step.
    """
    outer, inner, norms = map(np.asarray, (info.outer_loss, info.inner_losses, info.grad_norm))
    sound = np.isfinite(outer) & np.isfinite(norms) & np.isfinite(inner).all(axis=1)
    if sound.all():
        return None
    bad = int(np.argmin(sound))
    step = None if np.isfinite(inner[bad]).all() else int(np.argmin(np.isfinite(inner[bad])))
    if not np.isfinite(outer[bad]):
        got = f"outer loss {outer[bad]}"
    elif step is not None:
        got = f"loss {inner[bad, step]} at inner step {step}"
    else:
        got = f"a meta-gradient of norm {norms[bad]}"
    return LostUpdate(bad, Place("computation", QUERY if step is None else f"inner step {step}"), got)


def find_divergence(
    info: PyTree,
    after: Params,
    first: int,
    reporter: Reporter,
    locate: Callable[[int], Place | None],
    end: Callable[[], str],
) -> Diverged | None:
    """The error for the first update that diverged; None if none did.

    Its loss or gradient is not finite; or all are, and the last outer update overflowed.

    Args:
        info: as in `first_nonfinite_update`.
        after: the meta-parameters after the last update.
        first: the number of the first update.
        reporter: who raises the error.
        locate: where the update after so many finite ones became non-finite; None if that is unknown.
        end: makes the end of the hint.
    """
    who, what, sizes, outer = reporter
    lost = first_nonfinite_update(info)
    if lost is not None:
        place = locate(lost.good) or lost.place
        wrong, hint = f"{what.format(first + lost.good)}, in {place.text}", advice(place, sizes, outer)
        return Diverged(who, wrong, got=lost.got, hint=hint + end())
    parameter = first_nonfinite_leaf(after)
    if parameter is None:
        return None
    wrong = f"{what.format(first + len(info.outer_loss) - 1)}, in the outer update{of_leaf(parameter)}"
    return Diverged(who, wrong, hint=f"lower {outer}{end()}")


def advice(place: Place | None, sizes: str, outer: str) -> str:
    """What to do about values that are not finite.

    Args:
        place: where they are (None: unknown).
        sizes: the step sizes to lower if the computation is the cause.
        outer: the step size of the outer update, which may have made the parameters what they are; empty if there is
            none.
    """
    kind = "computation" if place is None else place.kind
    if kind == "parameters":
        return "check the parameters that were given" + (f", or lower {outer}" if outer else "")
    return "check that task's data" if kind == "data" else f"lower {sizes}"


def first_nonfinite(
    algorithm: "Algorithm", params: Params, tasks: Iterable[Task], layers: Layers | None = None
) -> Place | None:
    """Where the first task with a non-finite meta-gradient became non-finite; None if all are finite.

    Of a loss that is random or has state, only the parameters are examined.
    """
    if (place := locate_in_parameters(params)) or not algorithm.plain:
        return place
    inspect = compile_once(lambda params, task: inspect_task(algorithm, params, task))
    for number, task in enumerate(tasks):
        seen = inspect(params, task)
        if not all(part.all() for part in seen):
            when, place = _place_in_task(algorithm, params, task, seen, layers)
            text = f"{when} of task {number} of the meta-batch (counted from 0), {place.text}"
            return place._replace(text=text)
    return None


def locate_in_parameters(params: PyTree) -> Place | None:
    """The first parameter that is not finite before any step; None if all are finite."""
    name = first_nonfinite_leaf(params)
    if name is None:
        return None
    return Place("parameters", "the parameters before any step" + (f", at `{name}`" if name else ""))


def _place_in_task(
    algorithm: "Algorithm", params: Params, task: Task, seen: FiniteMask, layers: Layers | None
) -> tuple[str, Place]:
    """At which stage one task's meta-gradient became non-finite, and where."""
    step = first_nonfinite_step(seen.losses, seen.adapted)
    query = step is None and jax.tree.leaves(task.query)[0].size
    start = _after_steps(algorithm, params, task.support, seen.losses.size if step is None else step)
    place = locate_in_layers(algorithm, start, task.query if query else task.support, layers)
    place = place or Place("computation", locate_in_gradient(params, seen.grads) or IN_UPDATE)
    return QUERY if step is None else f"inner step {step}", place


def _after_steps(algorithm: "Algorithm", params: Params, support: PyTree, steps: int) -> Params:
    """The parameters after this number of inner steps."""
    if not steps:
        return algorithm.start(params, support)
    if not algorithm.inner.stream:
        shorter = algorithm.with_inner(steps=steps)
        return compile_once(lambda params, support: shorter.trajectory(params, support).adapted)(
            params, support
        )
    # A stream has as many items as the inner loop has steps, and an algorithm may make the items itself.
    seen = lambda params, support: algorithm.trajectory(params, support, lambda adapted, i: adapted).observed
    return jax.tree.map(lambda x: x[steps], compile_once(seen)(params, support))


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


def locate_in_adaptation(algorithm: "Algorithm", params: Params, support: PyTree) -> Place | None:
    """Where an adaptation became non-finite; None if it did not, or if the loss is not examined."""
    if (place := locate_in_parameters(params)) or not algorithm.plain:
        return place
    step = first_nonfinite_step(
        *compile_once(lambda *given: inspect_adaptation(algorithm, *given))(params, support)
    )
    if step is None:
        return None
    start = _after_steps(algorithm, params, support, step)
    place = locate_in_layers(algorithm, start, support) or Place("computation", IN_UPDATE)
    return place._replace(text=f"inner step {step}, {place.text}")


def locate_in_meta_gradient(algorithm: "Algorithm", params: Params, task: Task) -> Place:
    """Where the meta-gradient of one task became non-finite."""
    if place := locate_in_parameters(params):
        return place
    seen = compile_once(lambda *given: inspect_task(algorithm, *given))(params, task)
    when, place = _place_in_task(algorithm, params, task, seen, None)
    return place._replace(text=f"{when}, {place.text}")


def first_nonfinite_step(losses: Array, adapted: Array) -> int | None:
    """The first inner step whose loss, or whose result, is not finite; None if all are."""
    sound = np.asarray(losses) & np.asarray(adapted)
    return None if sound.all() else int(np.argmin(sound))


def locate_in_layers(
    algorithm: "Algorithm", params: Params, batch: PyTree, layers: Layers | None = None
) -> Place | None:
    """Where values first become non-finite: the data, a layer's output, the loss or a gradient; None if nowhere."""
    if batch is None:
        return None
    if not np.asarray(is_finite(batch)).all():
        return Place("data", "in its data")
    for name, output in (layers(params, batch) if layers else {}).items():
        if not np.isfinite(np.asarray(output)).all():
            return Place("computation", f"at the output of layer `{name}`")
    loss, grads = compile_once(jax.value_and_grad(algorithm.loss_fn))(params, batch)
    if np.isfinite(loss):
        where = locate_in_gradient(params, is_finite(grads))
        return Place("computation", where) if where else None
    why = explain_mismatch(algorithm, params, batch)
    return Place("data", f"at the loss ({why})") if why else Place("computation", "at the loss")


def explain_mismatch(algorithm: "Algorithm", params: Params, batch: PyTree, ways: int | None = None) -> str:
    """Why the targets do not fit the model's outputs, if the loss can tell."""
    explain = getattr(algorithm.loss_fn, "misfit", None)
    return "" if explain is None else explain(params, batch, ways)


def locate_in_gradient(params: Params, sound: object) -> str:
    """The parameter nearest the output whose gradient is not finite; empty if there is none."""
    lost = np.flatnonzero(~np.asarray(sound))
    return f"at the gradient{of_leaf(paths(params)[lost[-1]])}" if len(lost) else ""


def of_leaf(path: str) -> str:
    """The leaf of a tree for a message; empty if the tree is one array."""
    return f" of `{path}`" if path else ""
