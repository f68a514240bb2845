"""Checkpoints of a run, written atomically by Orbax: everything the next meta-step needs, and nothing else.

Each checkpoint also holds the sha256 of its content, which is checked when it is read. If the newest cannot be read or
is not what was written, the one before is used, with a warning. Names and shapes are compared before any array is read,
so that a file from elsewhere cannot ask for more memory than the run itself.
"""

import itertools
import math
import os
import re
import shutil
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from innerloop.engine.meta_state import MetaState
from innerloop.engine.pytree import by_path, paths
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256_of_arrays
from innerloop.io.files import cannot_write
from innerloop.io.folders import OwnFolder
from innerloop.training.storage import checkpoint_files
from innerloop.training.storage.checkpoint_manager import Manager, remove_deleted
from innerloop.training.storage.run_directory import NotWritten, RunFile
from innerloop.training.storage.shapes import check_same_shapes

SHA256 = "sha256"
"""The leaf that holds the digest of all other leaves."""

SPARE = 1 << 14
"""Bytes that a checkpoint takes in addition to its arrays."""

RUN = "run"
"""The leaf that holds the identity of the run, to recognise checkpoints of other runs."""

PAUSES = (0.5, 1, 2)
"""Seconds to wait before each retry of a save that timed out."""


class Damaged(InnerloopError):
    """A checkpoint is not what was written."""

    def __init__(self, who: str, hint: str = ""):
        super().__init__(who, "is damaged, or its files cannot be read", hint=hint)


def as_arrays(state: MetaState) -> dict[str, PyTree]:
    """The state as plain leaves by path, so that no classes are stored in the file."""
    tree = {"params": state.params, "opt_state": state.opt_state}
    arrays = {path: np.asarray(leaf) for path, leaf in by_path(tree).items()}
    key = state.key if isinstance(state.key, np.ndarray) else jax.random.key_data(state.key)
    return arrays | {"key": np.asarray(key), "step": np.asarray(state.step)}


def digest(arrays: dict[str, PyTree]) -> np.ndarray:
    """sha256 over names, dtypes, shapes and bytes, as 32 unsigned bytes."""
    return np.frombuffer(sha256_of_arrays({path: np.asarray(x) for path, x in arrays.items()}), np.uint8)


def save(checkpoints: Manager, state: MetaState) -> None:
    """Write the state under its step number, atomically, in the background.

    The first checkpoint is waited for and read back. Raises InnerloopError if this write cannot start, if the previous
    one failed, or if the first one does not read back as written.
    """
    finish(checkpoints)  # Orbax would wait here too; this way nothing is in flight while old ones are removed
    if int(state.step) in checkpoints.all_steps():
        return
    arrays = as_arrays(state)
    if checkpoints.run:
        arrays[RUN] = np.frombuffer(checkpoints.run, np.uint8)
    check_room(checkpoints.folder, sum(array.nbytes for array in arrays.values()))
    try:
        content = ocp.args.StandardSave(arrays | {SHA256: digest(arrays)})
        checkpoints.under_way = (int(state.step), content)
        checkpoints.save(int(state.step), args=content)
    except Exception as trouble:
        raise not_written(checkpoints, trouble) from trouble
    if not checkpoints.proven:
        finish(checkpoints)
        read(checkpoints, int(state.step), state)
        checkpoints.proven = True


def check_room(folder: Path, size: int) -> None:
    """Raise InnerloopError if the disk has no room for `size` bytes, before the write starts."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        wrong = f"a checkpoint of {size} bytes does not fit on the disk{last_whole(folder)}"
        raise NotWritten(str(folder), wrong, got=f"{free} bytes free", hint="free some room, then `resume`")


def finish(checkpoints: Manager) -> None:
    """Wait until everything is on disk. Raises InnerloopError if writing failed."""
    try:
        wait(checkpoints)
        remove_deleted(checkpoints.folder)
    except Exception as trouble:
        raise not_written(checkpoints, trouble) from trouble


def wait(checkpoints: Manager) -> None:
    """Wait until everything is on disk. A save that timed out is retried: the clock may have been changed."""
    try:
        return checkpoints.wait_until_finished()
    except TimeoutError as error:
        trouble: Exception = error
    if checkpoints.under_way is None:
        raise trouble
    step, content = checkpoints.under_way
    for seconds in PAUSES:
        time.sleep(seconds)  # the abandoned save may still be writing
        try:
            checkpoints.save(step, args=content)
            return checkpoints.wait_until_finished()
        except Exception as error:
            trouble = error
    raise trouble


def not_written(checkpoints: Manager, trouble: Exception) -> InnerloopError:
    """The error for a checkpoint that could not be written: a full disk or a read-only folder."""
    folder = checkpoints.folder
    wrong = f"a checkpoint cannot be written ({reason(trouble)}){last_whole(folder)}"
    return NotWritten(str(folder), wrong, hint="free some room or give write access, then `resume`")


def last_whole(folder: Path) -> str:
    """In words, which checkpoint the run could be resumed from."""
    whole = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    return f"; the last complete one is from meta-step {max(whole)}" if whole else ""


def reason(trouble: Exception) -> str:
    """The operating system's message, which TensorStore wraps in its own."""
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror
    said = re.search(r": ([^:\[\]]+) \[os_error", str(trouble))
    return said[1] if said else f"{type(trouble).__name__}: {str(trouble)[:160]}"


def restore(checkpoints: Manager, like: MetaState) -> MetaState | None:
    """The newest usable state, with the structure of `like`; None if there is no checkpoint.

    Unusable checkpoints are moved to the folder `damaged`, with a warning. Raises InnerloopError if all are unusable:
    damaged, or of another model or optimiser.
    """
    troubles: dict[int, InnerloopError] = {}
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            state = read(checkpoints, step, like)
        except InnerloopError as trouble:
            troubles[step] = trouble
            continue
        for passed, trouble in troubles.items():
            place = set_aside(checkpoints, passed)
            text = f"innerloop: {trouble} The checkpoint of meta-step {step} is used instead; this one is now {place}."
            warnings.warn(text, stacklevel=2)
        return state
    if not troubles:
        return None
    trouble = troubles[max(troubles)]
    if isinstance(trouble, Damaged):
        away = f"move it away (and `{RunFile.WEIGHTS}`, if the run has ended) to train from the beginning"
        hint = f"put back a copy of {checkpoints.folder}, or {away}"
        raise Damaged(trouble.who, hint) from trouble
    raise trouble


def read(checkpoints: Manager, step: int, like: MetaState) -> MetaState:
    """Read the checkpoint of one step. Raises InnerloopError if it is damaged or of another model."""
    who, wanted = f"checkpoint {step}", as_arrays(like)
    size = sum(array.nbytes for array in wanted.values())
    checkpoint_files.check_size(checkpoints.folder / str(step), size, who)
    try:
        known = dict(checkpoints.item_metadata(step))  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name in (SHA256, RUN):
            known.pop(name, None)
        check_same_shapes(wanted, known, who)
        check_chunks(known, who)
        found = dict(checkpoints.restore(step, args=ocp.args.StandardRestore()))
    except InnerloopError:
        raise
    except Exception as error:
        raise Damaged(who) from error
    check_digest(found, who)
    check_run(found, checkpoints.run, who)
    check_same_shapes(wanted, found, who)
    if odd := [path for path in wanted if found[path].dtype != wanted[path].dtype]:
        wrong = f"belongs to another model: `{odd[0]}` should be {wanted[odd[0]].dtype}"
        raise InnerloopError(who, wrong, got=found[odd[0]].dtype)
    tree = {"params": like.params, "opt_state": like.opt_state}
    structure = jax.tree.structure(tree)
    tree = structure.unflatten([jax.numpy.asarray(found[path]) for path in paths(tree)])
    key = jax.random.wrap_key_data(jax.numpy.asarray(found["key"]))
    return MetaState(tree["params"], tree["opt_state"], key, jax.numpy.asarray(found["step"]))


def check_chunks(known: dict[str, PyTree], who: str) -> None:
    """Raise InnerloopError for chunks larger than their array: a few compressed bytes may expand to gigabytes."""
    for path, array in known.items():
        chunk = getattr(array.storage, "chunk_shape", None) or array.shape
        if math.prod(chunk) > max(math.prod(array.shape), 1):
            raise InnerloopError(who, f"`{path}` is stored in chunks larger than the array", got=chunk)


def check_digest(found: dict[str, PyTree], who: str) -> None:
    """Remove the digest and compare it. Checkpoints of version 0.1.0 have none, and pass."""
    kept = found.pop(SHA256, None)
    if kept is not None and not np.array_equal(np.asarray(kept), digest(found)):
        raise Damaged(who)


def check_run(found: dict[str, PyTree], run: bytes, who: str) -> None:
    """Remove the run's identity and compare it. Checkpoints of version 0.1.0 have none, and pass."""
    kept = found.pop(RUN, None)
    if run and kept is not None and np.asarray(kept).tobytes() != run:
        wrong = "belongs to a run with other settings or data"
        raise InnerloopError(who, wrong, hint="restore its config.json and data, or give another folder")


def set_aside(checkpoints: Manager, step: int) -> Path:
    """Move an unusable checkpoint out of the way, as its step will be written again; returns where it is then."""
    target = OwnFolder(checkpoints.folder.parent).make(RunFile.DAMAGED)
    number = next(n for n in itertools.count() if not os.path.lexists(target / f"{step}-{n}"))
    with cannot_write(target):
        os.replace(checkpoints.folder / str(step), target / f"{step}-{number}")
    checkpoints.reload()
    return target / f"{step}-{number}"
