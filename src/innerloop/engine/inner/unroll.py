r"""The inner loop, run: k steps of an optimiser on one task's support set, as one scan.

    theta_0 = theta,   theta_{i+1} = theta_i + rule(grad L(theta_i; support_i)),   adapted = theta_k

support_i is the whole support set, its i-th minibatch, or the i-th item of a stream. The adapted parameters are
selected by tree path; the others are closed over and never carried.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from innerloop.engine.inner.inner_loop import Derivative, InnerLoop, check_inner
from innerloop.engine.inner.inner_step import Carry, Step, StepInputs, StepLoss, inner_step
from innerloop.engine.inner.loop_invariants import hoist
from innerloop.engine.inner.minibatch import minibatch_of_step
from innerloop.engine.inner.nested_scan import nested_scan
from innerloop.engine.keys import MaybeKey
from innerloop.engine.losses.loss import (
    Adapted,
    Extras,
    Loss,
    check_function,
    check_loss,
    evaluate_loss,
    fold_key,
    initial_state,
    is_random,
)
from innerloop.engine.losses.loss_errors import derivative_errors
from innerloop.engine.optimizer import initial_moments
from innerloop.engine.pytree import combine, kinds, partition, shapes_only
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.parallel.precision import with_exact_products
from innerloop.parallel.varying import varying_axes, varying_over

Observe = Callable[[Params, Array], PyTree]
"""`observe(adapted, i)` returns what to record after i inner steps, a pytree of arrays."""


class InnerState(NamedTuple):
    """Where an inner loop stopped, and what another needs to go on from there.

    Attributes:
        carry: the adapted parameters, the rule's state and the model state.
        step: the number of steps so far.
    """

    carry: Carry
    step: Int[Array, ""]

    __repr__ = shapes_only


class Trajectory(NamedTuple):
    """The result of an inner loop.

    Attributes:
        adapted: the parameters after the last step; with model state, `Adapted(params, state)`.
        losses: the support loss before each step, `[steps]`.
        end: the state after the last step, from which `unroll(..., start=end)` goes on.
        observed: the results of `observe`, each leaf `[steps + 1, ...]` (None without `observe`).
        aux: the auxiliary outputs of the support loss before each step, each leaf `[steps, ...]` (None if it has none).
    """

    adapted: Params
    losses: Float[Array, " steps"]
    end: InnerState
    observed: PyTree = None
    aux: PyTree = None

    __repr__ = shapes_only


@with_exact_products
def unroll(
    loss_fn: LossFn,
    inner: InnerLoop,
    params: Params,
    support: PyTree,
    observe: Observe | None = None,
    *,
    start: InnerState | None = None,
    key: MaybeKey = None,
) -> Trajectory:
    """Adapt parameters to the support set of one task.

    Args:
        loss_fn: the support loss: `loss_fn(params, batch) -> scalar`, or a `Loss`.
        inner: the inner loop.
        params: the parameters to start from. With `start`, only those that the inner loop does not adapt are read.
        support: a pytree with a leading axis `support` on every leaf; for a stream, the axis of its items.
        observe: `observe(adapted, i)` is called after i = 0..k steps; the results are stacked.
        start: the `end` of an earlier trajectory, to go on from it (None: begin). Two loops of 4 steps are then one of
            8: the count of steps continues, for keys, minibatches and `observe`; only `last` counts the steps of each
            loop by itself. A stream must hold only the further items.
        key: the task's key, for a random loss.

    Raises:
        InnerloopError: if a parameter is not a float array, the selection matches no parameter, the loss is
            not a scalar or changes the structure of its state, a random loss has no key, the axes of the
            support set do not fit a minibatch or a stream, or `start` is the state of another inner loop.
    """
    check_inner(inner, "unroll")
    check_trainable(params, "inner loop")
    if observe is not None:
        check_function(observe, "unroll", "observe", "observe(adapted, i)")
    _check_axes(inner, support)
    axes = varying_axes(params, support, start, key)
    fast, frozen = partition(varying_over(axes, params), inner.select)
    example = jax.tree.map(lambda x: x[0], support) if inner.stream else support
    check_loss(loss_fn, params, example, key)
    state = initial_state(loss_fn)
    key = key if is_random(loss_fn) else None

    def loss_of(fast: PyTree, now: StepInputs, rest: PyTree) -> tuple[Array, Extras]:
        frozen, whole = rest
        batch = whole if now.batch is None else now.batch
        return evaluate_loss(loss_fn, combine(fast, frozen), batch, now.key, now.state)

    def adapted(carry: Carry) -> Params | Adapted:
        params = combine(carry.fast, frozen)
        return params if state is None else Adapted(params, carry.state)

    size = inner.minibatch
    batch_of = lambda i, item: item if size is None else minibatch_of_step(support, i, size)
    now = lambda carry, i, item: StepInputs(carry.state, fold_key(key, i), batch_of(i, item))
    watch = None if observe is None else lambda carry, i: observe(adapted(carry), i)
    carry = Carry(fast, initial_moments(inner.rule.init, fast, "InnerLoop"), state)
    carry, first = (carry, 0) if start is None else _continued(carry, start)
    carry = varying_over(axes, carry)
    loss, rest = _hoisted(loss_of, inner, carry, key, (frozen, support))
    step = lambda constant: inner_step(
        loss,
        inner.rule,
        rest,
        mixed=inner.derivative == "mixed",
        checkpoint_update=inner.derivative != "rematerialised",
        constant_gradient=constant,
        differentiate_state=isinstance(loss_fn, Loss) and loss_fn.differentiate_state,
    )
    body = lambda constant: _body(step(constant), now, watch, inner.derivative, axes)
    with derivative_errors():
        carry, (losses, aux, seen) = _scan_steps(body, carry, inner, support, first)
    end = InnerState(carry, jnp.asarray(first + inner.steps))
    if watch is not None:
        final = watch(carry, end.step)
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), seen, final)
    return Trajectory(adapted(carry), losses, end, seen, aux)


def _continued(fresh: Carry, start: InnerState) -> tuple[Carry, Array]:
    """The state to go on from. Raises InnerloopError unless it has the structure of a fresh one."""
    if not isinstance(start, InnerState) or kinds(start.carry) != kinds(fresh):
        hint = "pass the `end` of a trajectory with the same parameters, loss, rule and `select`"
        raise InnerloopError("unroll", "`start` is not a state of this inner loop", hint=hint)
    return start.carry, jnp.asarray(start.step)


def _hoisted(
    loss: StepLoss, inner: InnerLoop, carry: Carry, key: MaybeKey, rest: PyTree
) -> tuple[StepLoss, PyTree]:
    """The loss with its step-invariant part computed once, if every step uses the same data."""
    frozen, support = rest
    if inner.stream or inner.minibatch is not None:
        return loss, (frozen, None)
    if inner.steps < 2 and not (inner.steps and jax.tree.leaves(frozen)):
        return loss, rest
    moving = (carry.fast, StepInputs(carry.state, key))
    part, known = hoist(lambda moving, rest: loss(moving[0], moving[1], rest), moving, rest)
    return lambda fast, now, rest: part((fast, now), rest), known


def _body(
    step: Step, now: Callable, watch: Callable | None, derivative: Derivative, axes: frozenset[str]
) -> Callable:
    """The body of the scan: `(carry, (i, item)) -> (carry, (loss, aux, observation))`."""

    def body(carry: Carry, x: tuple[Array, PyTree]) -> tuple[Carry, tuple[Array, PyTree, PyTree]]:
        i, item = x
        seen = None if watch is None else watch(carry, i)
        carry, (loss, aux) = step(carry, now(carry, i, item))
        return varying_over(axes, carry), (loss, aux, seen)

    return jax.checkpoint(body) if derivative == "rematerialised" else body


def _scan_steps(
    body: Callable[[bool], Callable], carry: Carry, inner: InnerLoop, support: PyTree, begun: int | Array
) -> tuple[Carry, PyTree]:
    """Run all steps after `begun`; `body(constant)` makes the scan body, whose gradient is held constant or not."""
    first = 0 if inner.last is None else max(inner.steps - inner.last, 0)
    steps = jnp.arange(inner.steps)
    xs = (
        steps if isinstance(begun, int) else steps + begun,
        _items(support, 0, inner.steps) if inner.stream else None,
    )
    parts = []
    for constant, start, stop in ((True, 0, first), (False, first, inner.steps)):
        if start < stop or (not constant and not parts):
            part = xs if stop - start == inner.steps else _items(xs, start, stop)
            carry, seen = nested_scan(
                body(constant),
                carry,
                part,
                stop - start,
                inner.segments,
                offload=inner.offload,
                unroll=inner.steps_at_once,
            )
            parts.append(seen)
    return carry, parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _items(tree: PyTree, start: int, stop: int) -> PyTree:
    """Items start..stop-1 of every leaf."""
    return jax.tree.map(lambda x: x[start:stop], tree)


def _check_axes(inner: InnerLoop, support: PyTree) -> None:
    """Raise InnerloopError unless the leading axes of a support set fit a minibatch or a stream."""
    if inner.minibatch is None and not inner.stream:
        return
    lengths = sorted({jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(support)})
    if inner.stream and (not lengths or lengths[0] < inner.steps):
        hint = "give a support set whose leaves hold one item per step along their first axis"
        raise InnerloopError(
            "InnerLoop", f"a stream of {counted(inner.steps, 'step')} is too short", got=lengths, hint=hint
        )
    if inner.minibatch is not None and len(lengths) != 1:
        hint = "give every leaf of the support set one row per example"
        raise InnerloopError("InnerLoop", "`minibatch` needs leaves of equal length", got=lengths, hint=hint)
