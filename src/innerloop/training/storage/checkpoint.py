"""Checkpoints of a run, written atomically by Orbax: everything the next meta-step needs, and nothing else.

Each checkpoint also holds the sha256 of its content, which is checked when it is read. If the newest cannot be read or
is not what was written, the one before is used, with a warning. Names and shapes are compared before any array is read,
so that a file from elsewhere cannot ask for more memory than the run itself.
"""

import itertools
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from innerloop.engine.meta_state import MetaState
from innerloop.engine.pytree import by_path, paths
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.files import cannot_write, remove_folders
from innerloop.io.folders import OwnFolder
from innerloop.training.storage import checkpoint_files
from innerloop.training.storage.run_directory import NotWritten
from innerloop.training.storage.shapes import check_same_shapes

SHA256 = "sha256"
"""The leaf that holds the digest of all other leaves."""

SPARE = 1 << 14
"""Bytes that a checkpoint takes in addition to its arrays."""

RUN = "run"
"""The leaf that holds the identity of the run, to recognise checkpoints of other runs."""

FOREVER = 10**8
"""Timeout of a save in seconds: Orbax measures it by the system clock, which may be changed meanwhile."""

PAUSES = (0.5, 1, 2)
"""Seconds to wait before each retry of a save that timed out."""

DELETED = "deleted"
"""The folder to which Orbax moves old checkpoints atomically, so that a killed run leaves no partial one."""

DAMAGED = "damaged"
"""The folder beside the checkpoints to which unusable ones are moved."""


PLAIN = re.compile(r"[\w/.,:=@+ -]+", re.ASCII)
"""Paths that Orbax and TensorStore accept unchanged, with slashes between the folders."""

LAYOUT = re.compile(
    r"_CHECKPOINT_METADATA|default(/(_METADATA|_sharding|manifest\.ocdbt|array_metadatas/.*|d/.*|ocdbt\.process_\d+/.*))?"
)
"""The files that Orbax writes into a checkpoint: no others are removed with it."""


def is_plain(folder: PurePath) -> bool:
    """Whether Orbax and TensorStore accept a path unchanged."""
    return PLAIN.fullmatch(folder.as_posix()) is not None


def linked(folder: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A temporary folder with a link `checkpoints` to this one; None if links cannot be created."""
    parent = tempfile.TemporaryDirectory(prefix="innerloop-")
    try:
        os.symlink(folder, Path(parent.name) / "checkpoints")
    except OSError:  # on Windows few users may create links
        parent.cleanup()
        return None
    return parent


class Manager(ocp.CheckpointManager):
    """Orbax's manager without preemption: we handle SIGTERM, and the JAX service that Orbax would ask is off.

    Orbax expands wildcards in paths and cannot write to some others; it then gets a link to the folder instead.
    """

    def __init__(self, folder: Path, run: bytes, **settings: Any):
        self.folder, self.link, self.proven = folder, None, False
        self.run = run
        """The identity of the run that owns the checkpoints; empty: not checked."""
        self.under_way: tuple[int, Any] | None = None
        """Step and content of the last save."""
        if not is_plain(folder):
            self.link = linked(folder)
        super().__init__(Path(self.link.name) / "checkpoints" if self.link else folder, **settings)

    def close(self) -> None:
        """Close the manager, and remove the link."""
        super().close()
        if self.link is not None:
            self.link.cleanup()

    def reached_preemption(self, step: int) -> bool:
        """Never (JAX 0.8 raises an error where its service is off)."""
        return False


def manager(folder: Path, run: bytes = b"") -> Manager:
    """A manager of the checkpoints in `folder` that keeps the newest three; only one process may have it.

    Raises InnerloopError if the folder cannot be created, or is a link.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(suppress_duplicate_log)
    checkpoint_files.check_kinds(folder)
    folder = OwnFolder(folder.parent).make(folder.name)
    whose = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # otherwise Orbax would wait for the others
        index = jax.process_index()
        whose = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=3,
        create=False,
        todelete_subdir=DELETED,
        multiprocessing_options=whose,
        async_options=ocp.options.AsyncOptions(timeout_secs=FOREVER),
    )
    remove_deleted(folder)
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=whose)
    return Manager(folder, run, options=options, item_handlers=handler)


def remove_deleted(folder: Path) -> None:
    """Remove the old checkpoints in the folder `deleted`; files that Orbax did not write are kept."""
    deleted = OwnFolder(folder).path_of(DELETED)
    for place, folders, files in os.walk(deleted, topdown=False):
        inside = Path(place).relative_to(deleted)
        for name in files:
            if len(inside.parts) and LAYOUT.fullmatch("/".join([*inside.parts[1:], name])):
                with suppress(OSError):
                    (Path(place) / name).unlink()
        remove_folders([Path(place) / name for name in folders])
    remove_folders([deleted])


@contextmanager
def opened(folder: Path, run: bytes = b"") -> Iterator[Manager]:
    """`manager(folder, run)`, closed at the end.

    Raises InnerloopError if the folder cannot be written to.
    """
    with cannot_write(folder):
        checkpoints = manager(folder, run)
    try:
        yield checkpoints
    except BaseException:
        with suppress(Exception):  # a failed write raises again on closing
            checkpoints.close()
        raise
    checkpoints.close()


def suppress_duplicate_log(record: logging.LogRecord) -> bool:
    """Whether to show a log record: errors that Orbax logs are also raised, and reported then."""
    late = "exception was never retrieved" in record.getMessage() and "OCDBT" in str(record.exc_info)
    return record.levelno < logging.ERROR or not ("orbax" in record.pathname or late)


def silence_teardown_errors() -> None:
    """Do not print what TensorStore raises after Orbax has closed its event loop: the error has been reported."""
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.object is not None or "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook


def as_arrays(state: MetaState) -> dict[str, PyTree]:
    """The state as plain leaves by path, so that no classes are stored in the file."""
    tree = {"params": state.params, "opt_state": state.opt_state}
    arrays = {path: np.asarray(leaf) for path, leaf in by_path(tree).items()}
    key = state.key if isinstance(state.key, np.ndarray) else jax.random.key_data(state.key)
    return arrays | {"key": np.asarray(key), "step": np.asarray(state.step)}


def digest(arrays: dict[str, PyTree]) -> np.ndarray:
    """sha256 over names, dtypes, shapes and bytes, as 32 unsigned bytes."""
    found = {path: np.asarray(arrays[path]) for path in sorted(arrays)}
    blocks = (f"{path}\0{x.dtype}\0{x.shape}\0".encode() + x.tobytes() for path, x in found.items())
    return np.frombuffer(sha256(blocks), np.uint8)


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
            set_aside(checkpoints, passed)
            text = f"innerloop: {trouble} The checkpoint of meta-step {step} is used instead."
            warnings.warn(text, stacklevel=2)
        return state
    if troubles:
        raise troubles[max(troubles)]
    return None


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
        wrong = f"cannot be read ({type(error).__name__})"
        raise InnerloopError(who, wrong, hint=f"it is in {checkpoints.folder / str(step)}") from error
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
        raise InnerloopError(who, "is not what was written: its sha256 does not match")


def check_run(found: dict[str, PyTree], run: bytes, who: str) -> None:
    """Remove the run's identity and compare it. Checkpoints of version 0.1.0 have none, and pass."""
    kept = found.pop(RUN, None)
    if run and kept is not None and np.asarray(kept).tobytes() != run:
        wrong = "belongs to a run with other settings or data"
        raise InnerloopError(who, wrong, hint="restore its config.json and data, or give another folder")


def set_aside(checkpoints: Manager, step: int) -> None:
    """Move an unusable checkpoint out of the way: its step will be written again."""
    target = OwnFolder(checkpoints.folder.parent).make(DAMAGED)
    number = next(n for n in itertools.count() if not os.path.lexists(target / f"{step}-{n}"))
    with cannot_write(target):
        os.replace(checkpoints.folder / str(step), target / f"{step}-{number}")
    checkpoints.reload()
