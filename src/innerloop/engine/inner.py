r"""The inner loop: k steps of an optimiser on one task's support set, as one scan.

    theta_0 = theta,   theta_{i+1} = theta_i + rule(grad L(theta_i; support)),   adapted = theta_k

The adapted parameters are selected by tree path; the others are closed over and never carried. How the loop is
differentiated only changes the cost: `unrolled` keeps the activations of every step, `rematerialised` keeps only
theta_i and runs each step again in the backward pass, and `mixed` replaces the backward pass through a gradient by a
forward-over-reverse Hessian-vector product (`innerloop.engine.mixed_mode`). All three give the same gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.loop_invariants import hoist
from innerloop.engine.loss_errors import loss_errors
from innerloop.engine.mixed_mode import mixed_value_and_grad
from innerloop.engine.pytree import Selection, check_trainable, combine, partition
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError, check_choice

Derivative = Literal["unrolled", "rematerialised", "mixed"]

Observe = Callable[[Params, Array], PyTree]
"""`observe(params, i)`: what is recorded after i inner steps, a pytree of arrays."""


@dataclass(frozen=True)
class InnerLoop:
    """How parameters are adapted to one task.

    Attributes:
        rule: any Optax optimiser; its state is initialised anew for every task. Adam needs `eps_root` > 0 where the
            loop is differentiated (MAML, ANIL, BOIL): its square root has no derivative where a gradient is zero.
        steps: k, the number of inner steps; 0 leaves the parameters unchanged.
        select: the parameters to adapt (None: all): a path prefix, several, or a function of the path.
        minibatch: examples per step, taken in order from the support set and wrapping around (None: all of them).
            The samplers shuffle the support set, so consecutive examples are a random minibatch (Reptile).
        derivative: how the loop is differentiated; changes the cost, never the result.

    Raises:
        InnerloopError: `steps` is negative, `minibatch` is below 1, `derivative` is unknown, or `rule` is no optimiser.
    """

    rule: optax.GradientTransformation
    steps: int = 1
    select: Selection = None
    minibatch: int | None = None
    derivative: Derivative = "unrolled"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InnerloopError("InnerLoop", "`steps` must be 0 or more", got=self.steps)
        if self.minibatch is not None and self.minibatch < 1:
            raise InnerloopError("InnerLoop", "`minibatch` must be 1 or more", got=self.minibatch)
        check_choice("InnerLoop", "derivative", self.derivative, get_args(Derivative))
        if not hasattr(self.rule, "update"):
            do = "pass optax.sgd(0.1), for example"
            raise InnerloopError("InnerLoop", "`rule` must be an Optax optimiser", got=self.rule, do=do)


class Trajectory(NamedTuple):
    """The result of an inner loop.

    Attributes:
        adapted: the parameters after the last step.
        losses: the support loss before each step, `[steps]`.
        observed: the results of `observe`, each leaf `[steps + 1, ...]` (None without `observe`).
    """

    adapted: Params
    losses: Float[Array, " steps"]
    observed: PyTree


def unroll(
    loss_fn: LossFn,
    inner: InnerLoop,
    params: Params,
    support: PyTree,
    observe: Observe | None = None,
) -> Trajectory:
    """Adapt parameters to the support set of one task.

    Args:
        loss_fn: the support loss.
        inner: the inner loop.
        params: the parameters to start from.
        support: a pytree with a leading axis `support` on every leaf.
        observe: `observe(params, i)` is called after i = 0..k steps; the results are stacked.

    Raises:
        InnerloopError: a parameter is not a float array, the selection matches no parameter, or the loss is not a
            scalar.
    """
    check_trainable(params, "inner loop")
    fast, frozen = partition(params, inner.select)
    check_scalar_loss(loss_fn, params, support)

    def loss_of(fast: PyTree, rest: PyTree) -> Array:
        frozen, batch = rest
        return loss_fn(combine(fast, frozen), batch)

    rest: PyTree = (frozen, support)
    if inner.minibatch is None and (inner.steps > 1 or (inner.steps and jax.tree.leaves(frozen))):
        step_loss, rest = hoist(loss_of, fast, rest)
    else:
        step_loss = loss_of
    watch = None if observe is None else lambda fast, i: observe(combine(fast, frozen), i)
    step = inner_step(step_loss, inner, rest, watch)
    carry = (fast, inner.rule.init(fast))
    (fast, _), (losses, seen) = _all_steps(step, carry, inner.steps)
    if watch is not None:
        last = watch(fast, jnp.asarray(inner.steps))
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), seen, last)
    return Trajectory(combine(fast, frozen), losses, seen)


def _all_steps(step: Callable, carry: PyTree, steps: int) -> tuple[PyTree, PyTree]:
    """Scan `steps` steps. A single one is taken without a scan, which under `vmap` would copy theta for every task."""
    if steps != 1:
        return jax.lax.scan(step, carry, jnp.arange(steps))
    carry, seen = step(carry, jnp.asarray(0))
    return carry, jax.tree.map(lambda x: x[None], seen)


def inner_step(loss_of: Callable, inner: InnerLoop, rest: PyTree, watch: Callable | None) -> Callable:
    """The body of the scan: `((fast, rule_state), i) -> ((fast, rule_state), (loss, observation))`."""
    rule = optax.with_extra_args_support(inner.rule)
    gradient = mixed_value_and_grad(loss_of) if inner.derivative == "mixed" else jax.value_and_grad(loss_of)

    def step(carry: tuple[PyTree, PyTree], i: Array) -> tuple[tuple[PyTree, PyTree], tuple[Array, PyTree]]:
        fast, state = carry
        seen = None if watch is None else watch(fast, i)
        batch = _at_step(rest, inner.minibatch, i)
        loss, grads = gradient(fast, batch)
        again = lambda fast: loss_of(fast, batch)  # for rules that search along a line
        updates, state = rule.update(grads, state, fast, value=loss, grad=grads, value_fn=again)
        return (optax.apply_updates(fast, updates), state), (loss, seen)

    return jax.checkpoint(step) if inner.derivative == "rematerialised" else step


def _at_step(rest: PyTree, minibatch: int | None, i: Array) -> PyTree:
    """The data of step i: all of it, or the i-th `minibatch` examples, wrapping around."""
    if minibatch is None:
        return rest
    frozen, support = rest
    examples = jax.tree.leaves(support)[0].shape[0]
    rows = (i * minibatch + jnp.arange(min(minibatch, examples))) % examples
    return frozen, jax.tree.map(lambda x: x[rows], support)


def check_scalar_loss(loss_fn: LossFn, params: Params, batch: PyTree) -> None:
    """Raise InnerloopError unless the loss is a float scalar."""
    # A function of its own: JAX keeps what it knows of one for as long as that lives.
    with loss_errors(batch):
        shape = jax.eval_shape(lambda params, batch: loss_fn(params, batch), params, batch)
    if not hasattr(shape, "shape") or shape.shape != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        got = f"shape {shape.shape} of {shape.dtype}" if hasattr(shape, "shape") else type(shape).__name__
        raise InnerloopError(
            "loss_fn", "the loss must be one float", got=got, do="take the mean over examples"
        )
