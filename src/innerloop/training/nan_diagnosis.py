"""Where a run first had NaN or infinity: `innerloop.engine.diagnosis` with layers, settings and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.diagnosis import first_nonfinite, first_nonfinite_leaf, first_nonfinite_update
from innerloop.engine.meta_state import restore_to_device
from innerloop.engine.outer import drawn_tasks
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import local_copy
from innerloop.training.experiment import Block
from innerloop.training.storage.run_directory import last_checkpoint_hint


class Caller(NamedTuple):
    """Who reports a divergence, and what the step sizes are called there."""

    who: str = "train"
    inner: str = "`inner.learning_rate`"
    outer: str = "`outer.learning_rate`"


COMMAND = Caller()
FIT = Caller("fit", "the step size of the inner loop", "that of the optimizer")


def check_params(params: Params, step: int, folder: Path, caller: Caller = COMMAND) -> None:
    """Raise InnerloopError for parameters that are not finite although all losses were: the outer step overflowed."""
    lost = first_nonfinite_leaf(params)
    if lost is not None:
        wrong = f"the run diverged at meta-step {step}, in the outer update of `{lost}`"
        raise InnerloopError(caller.who, wrong, hint=f"lower {caller.outer}{last_checkpoint_hint(folder)}")


def locate_nonfinite(algorithm: Algorithm, meta_batch: int, block: Block, good: int) -> str:
    """In words, where the meta-step after `good` finite ones first had NaN or infinity; empty if that is unknown."""
    state = restore_to_device(block.before)
    try:
        state = block.run(state, good)[0] if good > 0 else state
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(local_copy(x))), state.params)
        drawn = drawn_tasks(block.tasks, state.key, state.step, meta_batch)
        return first_nonfinite(algorithm.at(state.step), params, drawn, outputs_by_layer)
    except Exception:  # whatever goes wrong here, the divergence itself must be reported
        return ""


def outputs_by_layer(params: Params, batch: Batch) -> dict[str, PyTree]:
    """The output of every layer of a built-in network, in order; empty for any other network."""
    from innerloop.nn.named_layers import named_layers

    try:
        return named_layers(params).activations(params, batch.inputs)
    except InnerloopError:
        return {}


def check_finite(
    info: PyTree,
    step: int,
    folder: Path,
    located: Callable[[int], str] = lambda good: "",
    caller: Caller = COMMAND,
) -> None:
    """Raise InnerloopError at the first meta-step whose loss or gradient is not finite.

    `located(good)` describes where in the meta-step after `good` finite ones; without it only the inner step is named.
    """
    lost = first_nonfinite_update(info)
    if lost is None:
        return
    bad, where = lost
    raise InnerloopError(
        caller.who,
        f"the run diverged at meta-step {step - len(info.outer_loss) + bad + 1}, in {located(bad) or where}",
        got=f"outer loss {info.outer_loss[bad]}",
        hint=f"lower {caller.inner} or {caller.outer}{last_checkpoint_hint(folder)}",
    )
