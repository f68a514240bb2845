"""Checkpoints of a run, written atomically by Orbax: everything the next meta-step needs, and nothing else."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from innerloop.errors import InnerloopError
from innerloop.outer import MetaState
from innerloop.tree import paths


def manager(folder: Path, keep: int = 3) -> ocp.CheckpointManager:
    """The checkpoints under `folder`, the newest `keep` of them. Of several processes, one alone has it."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    whose = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # else Orbax would wait for the others
        index = jax.process_index()
        whose = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=False, multiprocessing_options=whose)
    return ocp.CheckpointManager(folder, options=options)


def as_arrays(state: MetaState) -> dict[str, Any]:
    """The state as plain leaves by path, so that no class is written into the file."""
    tree = {"params": state.params, "opt_state": state.opt_state}
    leaves = dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    return arrays | {"key": np.asarray(jax.random.key_data(state.key)), "step": np.asarray(state.step)}


def save(checkpoints: ocp.CheckpointManager, state: MetaState) -> None:
    """Write the state under its step number, atomically, in the background."""
    checkpoints.save(int(state.step), args=ocp.args.StandardSave(as_arrays(state)))


def restore(checkpoints: ocp.CheckpointManager, like: MetaState) -> MetaState | None:
    """The newest state, with the structure of `like`; None if there is none.

    Raises InnerloopError for a checkpoint of another model or optimiser, or one that cannot be read.
    """
    step = checkpoints.latest_step()
    if step is None:
        return None
    wanted = as_arrays(like)
    try:
        found = dict(checkpoints.restore(step, args=ocp.args.StandardRestore()))
    except Exception as error:
        raise InnerloopError(
            f"checkpoint {step}",
            f"cannot be read ({type(error).__name__})",
            do=f"delete {checkpoints.directory / str(step)} to go on from the one before",
        ) from error
    check_same(wanted, found, f"checkpoint {step}")
    tree = {"params": like.params, "opt_state": like.opt_state}
    structure = jax.tree.structure(tree)
    tree = structure.unflatten([jax.numpy.asarray(found[path]) for path in paths(tree)])
    key = jax.random.wrap_key_data(jax.numpy.asarray(found["key"]))
    return MetaState(tree["params"], tree["opt_state"], key, jax.numpy.asarray(found["step"]))


def check_same(wanted: dict[str, Any], found: dict[str, Any], who: str) -> None:
    """Raise InnerloopError unless names and shapes agree."""
    for path in sorted(set(wanted) | set(found)):
        if path not in wanted or path not in found or wanted[path].shape != found[path].shape:
            raise InnerloopError(
                who,
                f"is of another model: `{path}` should be {shape_of(wanted, path)}",
                got=shape_of(found, path),
                do="use the config that it was trained with",
            )


def shape_of(arrays: dict[str, Any], path: str) -> str:
    """An array's shape in words."""
    return f"of shape {arrays[path].shape}" if path in arrays else "absent"
