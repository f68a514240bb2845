"""Detect, before anything is compiled, losses whose random numbers would be the same at every inner step."""

import warnings

import jax
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.jaxprs import all_equations, dependent
from innerloop.engine.loss import evaluate_loss, initial_state, is_random
from innerloop.engine.types import LossFn, Task

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
