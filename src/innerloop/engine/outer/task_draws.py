"""The tasks of a meta-step: their keys, and how many meta-steps' tasks are drawn at once."""

from collections.abc import Callable

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from innerloop.engine.outer.chunking import divisor_up_to
from innerloop.engine.types import Task, TaskDistribution, TwoStageSampler

AHEAD_BYTES = 2_000_000
"""Small tasks are drawn for as many meta-steps at once as fit in a core's cache. Drawing them for one meta-step at a
time costs as much as the meta-step of a small network."""


def steps_ahead(draw: Callable[[Array], PyTree], keys: Array | jax.ShapeDtypeStruct, steps: int) -> int:
    """The number of meta-steps, a divisor of `steps`, whose tasks fit in `AHEAD_BYTES`; `keys` are those of one."""
    leaves = jax.tree.leaves(jax.eval_shape(jax.vmap(draw), keys))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return divisor_up_to(steps, AHEAD_BYTES // max(size, 1))


def draw_and_fetch(tasks: TaskDistribution) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], Task]]:
    """`draw`, applied to all keys of a meta-step at once, and `fetch`, which makes a task from what was drawn."""
    if isinstance(tasks, TwoStageSampler) and type(tasks).sample is TwoStageSampler.sample:
        return tasks.draw, tasks.fetch
    return (lambda key: key), tasks.sample  # even if a subclass overrides `sample`


def task_keys(key: PRNGKeyArray, step: Array, meta_batch: int) -> Array:
    """The keys of the tasks of one meta-step, `[tasks]`; they depend only on the run's key and the step number."""
    return jax.random.split(jax.random.fold_in(key, step), meta_batch)
