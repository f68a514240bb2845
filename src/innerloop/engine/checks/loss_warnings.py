"""Detect, before training, losses whose randomness or padding does not do what tasks need."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.jaxprs import all_equations, dependent
from innerloop.engine.losses.loss import evaluate_loss, initial_state, is_random
from innerloop.engine.types import Batch, LossFn, Params, Task
from innerloop.parallel.compile_once import compile_once
from innerloop.parallel.mesh import local_copy

TOLERANCE = 1e-4
"""The relative change of the loss that counts as one; rounding stays below it."""


def warn_about_padding(algorithm: Algorithm, params: Params, task: Task, key: PRNGKeyArray, who: str) -> None:
    """Warn, on behalf of `who`, if tasks are padded and the loss depends on the inputs of the padding.

    A loss that ignores the mask does that, and batch normalisation, whose statistics are those of all rows. The loss is
    evaluated on made-up inputs of the shapes of `task`.
    """
    padded = next(filter(_is_padded, task), None)
    if algorithm.inner.stream or padded is None:
        return
    loss = compile_once(lambda params, batch, key: _loss_at_start(algorithm, params, batch, key))
    values = [float(local_copy(loss(params, batch, key))) for batch in _differing(padded)]
    if abs(values[0] - values[1]) > TOLERANCE * max(map(abs, values)):
        wrong = (
            "the padding of a task changes its loss: the loss ignores the `mask`, or the model mixes examples"
        )
        hint = (
            "leave out the examples whose mask is 0 or False, normalise every example by itself, or give all tasks the "
            "same number of examples"
        )
        warnings.warn(f"{who}: {wrong}; {hint}.", stacklevel=4)


def _is_padded(examples: PyTree) -> bool:
    """Whether a set of more than one example has a mask with one value per example."""
    mask = examples.mask if isinstance(examples, Batch) else None
    return mask is not None and mask.ndim == 1 and mask.size > 1


def _loss_at_start(algorithm: Algorithm, params: Params, batch: Batch, key: PRNGKeyArray) -> Array:
    """The support loss before the first inner step."""
    start = algorithm.start(params, batch)
    return evaluate_loss(algorithm.loss_fn, start, batch, key, initial_state(algorithm.loss_fn))[0]


def _differing(like: Batch) -> list[Batch]:
    """Two batches of random inputs that differ only in their last example, which does not count."""
    inputs, targets, mask = like
    (rows,) = jax.tree.leaves(mask)[0].shape
    counts = jax.tree.map(lambda x: jnp.asarray(np.arange(rows) < rows - 1, x.dtype), mask)
    rng = np.random.default_rng(0)
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    draw = lambda x: rng.normal(size=x.shape) if floating(x) else rng.integers(0, 2, x.shape)
    drawn = [jax.tree.map(draw, inputs) for _ in range(2)]
    last = [jax.tree.map(lambda a, b: np.concatenate([a[:-1], b[-1:]]), drawn[0], other) for other in drawn]
    typed = lambda tree: jax.tree.map(lambda x, shape: jnp.asarray(x, shape.dtype), tree, inputs)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), targets)
    return [Batch(typed(given), zeros, counts) for given in last]


DRAWS = frozenset({"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"})
"""Primitives that generate random numbers."""


def warn_about_shared_mask(
    algorithm: Algorithm, params: PyTree, task: Task, key: PRNGKeyArray, who: str
) -> None:
    """Warn, on behalf of `who`, if the support loss is random but does not use the key of the inner step.

    The parameters and the task may be shapes.
    """
    if algorithm.inner.stream or algorithm.inner.steps < 2:
        return  # a stream may bring a key for each step
    start = jax.eval_shape(lambda params, task: algorithm.start(params, task.support), params, task)
    wrong = _fault(algorithm.loss_fn, start, task.support, key)
    if wrong:
        hint = "declare it with `Loss(fn, random=True)` and draw from its `key`"
        warnings.warn(f"{who}: {wrong}, so they are the same at every inner step; {hint}.", stacklevel=4)


def _fault(loss_fn: LossFn, params: PyTree, batch: PyTree, key: PRNGKeyArray) -> str:
    """Describe how a loss draws random numbers without its key; empty if it does not."""
    found = lambda key, params, batch: evaluate_loss(loss_fn, params, batch, key, initial_state(loss_fn))
    jaxpr = jax.make_jaxpr(found)(key, params, batch).jaxpr
    if not any(equation.primitive.name in DRAWS for equation in all_equations(jaxpr)):
        return ""
    if not is_random(loss_fn):
        return "the loss draws random numbers without being declared random"
    used = any(dependent(jaxpr, [i == 0 for i in range(len(jaxpr.invars))]))
    return "" if used else "the loss draws random numbers without its `key`"
