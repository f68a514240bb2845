"""Where a run lost finiteness: the task of the meta-batch, the inner step, the layer.

A meta-step is a function of the state and its step number alone. So the state before the dispatch, of which a copy is
kept, is taken forward again to the meta-step that went wrong, and that one is taken apart: task by task, inner step by
inner step. A healthy run pays one copy of its state per dispatch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.outer import MetaState, task_keys
from innerloop.engine.pytree import paths
from innerloop.engine.types import Batch, Params, Task
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import own_copy
from innerloop.training.experiment import Block
from innerloop.training.storage.run_directory import last_checkpoint_hint


class FiniteMask(NamedTuple):
    """What of one task's meta-gradient is finite: losses and parameters by inner step, the outcome by parameter."""

    losses: Bool[Array, " steps"]
    adapted: Bool[Array, " steps+1"]
    outer_loss: Bool[Array, ""]
    grads: Bool[Array, " parameters"]


def keep(state: MetaState) -> MetaState:
    """A copy on the host: a dispatch consumes the state that it is given."""
    return jax.tree.map(np.array, state._replace(key=jax.random.key_data(state.key)))


def to_device(kept: MetaState) -> MetaState:
    """The state that was kept."""
    state = jax.tree.map(jnp.array, kept)
    return state._replace(key=jax.random.wrap_key_data(state.key))


def is_finite(tree: Any) -> Bool[Array, " parameters"]:
    """Leaf by leaf, whether all values are finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)])


def check_params(params: Params, step: int, folder: Path) -> None:
    """Raise InnerloopError for parameters that are not finite though all losses were: the outer step overflowed."""
    sound = np.asarray(jax.jit(is_finite)(params))
    if not sound.all():
        lost = paths(params)[int(np.argmin(sound))]
        wrong = f"the run diverged at meta-step {step}, in the outer update of `{lost}`"
        raise InnerloopError("train", wrong, do="lower `outer.learning_rate`" + last_checkpoint_hint(folder))


def locate_nonfinite(algorithm: Algorithm, meta_batch: int, block: Block, good: int) -> str:
    """In words, where the block's meta-step after `good` good ones lost finiteness; empty if that cannot be told."""
    state = to_device(block.before)
    try:
        state = block.run(state, good)[0] if good > 0 else state
        return first_nonfinite(algorithm, meta_batch, block.tasks, state)
    except Exception:  # whatever goes wrong here, the divergence itself must be told
        return ""


def first_nonfinite(algorithm: Algorithm, meta_batch: int, tasks: Any, state: MetaState) -> str:
    """The first task whose meta-gradient at this state is not finite, taken apart; empty if there is none."""
    state = state._replace(params=jax.tree.map(lambda x: jnp.asarray(np.asarray(own_copy(x))), state.params))
    algorithm = algorithm.at(state.step)
    see = eqx.filter_jit(lambda tasks, params, key: inspect_task(algorithm, params, tasks.sample(key)))
    for number, key in enumerate(task_keys(state.key, state.step, meta_batch)):
        seen = jax.tree.map(np.asarray, see(tasks, state.params, key))
        if all(part.all() for part in seen):
            continue
        step = inner_step_lost(seen)
        which = f"of task {number} of the meta-batch (counted from 0)"
        task = jax.tree.map(jnp.asarray, tasks.sample(key))
        begun = algorithm if step is None else algorithm.with_inner(steps=step)
        params = begun.adapt(state.params, task.support)
        batch = task.query if step is None and jax.tree.leaves(task.query)[0].size else task.support
        when = "the query loss or its gradient" if step is None else f"inner step {step}"
        where = layer_lost(algorithm, params, batch) or gradient_lost(state.params, seen.grads)
        return f"{when} {which}, {where or 'at the step itself'}"
    return ""


def inspect_task(algorithm: Algorithm, params: Params, task: Task) -> FiniteMask:
    """One task's meta-gradient, reduced to what is finite of it."""
    grads, info = algorithm.meta_grad(params, task)
    watch = lambda params, i: is_finite(params).all()
    trajectory = algorithm.trajectory(params, task.support, observe=watch)
    finite = jnp.isfinite(trajectory.losses)
    return FiniteMask(finite, trajectory.observed, jnp.isfinite(info.outer_loss), is_finite(grads))


def inner_step_lost(seen: FiniteMask) -> int | None:
    """The first inner step whose loss, or whose result, is not finite; None if all are."""
    sound = np.asarray(seen.losses) & np.asarray(seen.adapted)[1:]
    return None if sound.all() else int(np.argmin(sound))


def layer_lost(algorithm: Algorithm, params: Params, batch: Batch) -> str:
    """Where it began: the data, a layer's output, the loss, or a parameter's gradient; empty if all are finite."""
    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(batch)):
        return "in its data"
    for name, output in outputs_by_layer(params, batch).items():
        if not np.isfinite(np.asarray(output)).all():
            return f"at the output of layer `{name}`"
    loss, grads = jax.value_and_grad(algorithm.loss_fn)(params, batch)
    return gradient_lost(params, is_finite(grads)) if np.isfinite(loss) else "at the loss"


def gradient_lost(params: Params, sound: Any) -> str:
    """The parameter nearest the output whose gradient is lost; empty if none is."""
    lost = np.flatnonzero(~np.asarray(sound))
    return f"at the gradient of `{paths(params)[lost[-1]]}`" if len(lost) else ""


def outputs_by_layer(params: Params, batch: Batch) -> dict[str, Any]:
    """Every layer's output of a built-in network, first to last; nothing for any other."""
    from innerloop.nn.named_layers import named_layers

    try:
        return named_layers(params).activations(params, batch.inputs)
    except InnerloopError:
        return {}


def check_finite(info: Any, step: int, folder: Path, located: Callable[[int], str] = lambda good: "") -> None:
    """Raise InnerloopError at the first meta-step whose loss or gradient is not finite.

    `located(good)` tells where in the meta-step after so many good ones; else the inner step alone is named.
    """
    inner = np.asarray(info.inner_losses)
    sound = np.isfinite(np.asarray(info.outer_loss)) & np.isfinite(np.asarray(info.grad_norm))
    sound &= np.isfinite(inner).all(axis=1)
    if sound.all():
        return
    bad = int(np.argmin(sound))
    lost = np.flatnonzero(~np.isfinite(inner[bad]))
    where = f"inner step {lost[0]}" if len(lost) else "the query loss or its gradient"
    raise InnerloopError(
        "train",
        f"the run diverged at meta-step {step - len(sound) + bad + 1}, in {located(bad) or where}",
        got=f"outer loss {info.outer_loss[bad]}",
        do="lower `inner.learning_rate` or `outer.learning_rate`" + last_checkpoint_hint(folder),
    )
