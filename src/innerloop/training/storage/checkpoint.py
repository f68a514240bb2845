"""Checkpoints of a run, written atomically by Orbax: everything the next meta-step needs, and nothing else.

Beside the state each checkpoint holds the sha256 of its content, and reading one checks it. Where the newest cannot be
read or is not what was written, the one before is used and a warning says so. Names and shapes are compared before any
array is read, so that a file made by somebody else cannot ask for more memory than the run itself.
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

from innerloop.engine.outer import MetaState
from innerloop.engine.pytree import check_same, paths
from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.io.files import OwnFolder, cannot_write, remove_folders
from innerloop.training.storage import checkpoint_files
from innerloop.training.storage.run_directory import NotWritten

SHA256 = "sha256"
"""The leaf that holds the digest of all others."""

SPARE = 1 << 14
"""Bytes that a checkpoint takes besides its arrays."""

RUN = "run"
"""The leaf that holds the identity of the run, by which a checkpoint of another one is told apart."""

FOREVER = 10**8
"""Seconds for a save: Orbax takes them by the clock, which may be set meanwhile."""

PAUSES = (0.5, 1, 2)
"""Seconds before each new try of a save that ran out of time."""

DELETED = "deleted"
"""Where Orbax moves old checkpoints in one step, so that a run that is killed meanwhile leaves no half of one."""

DAMAGED = "damaged"
"""The folder beside the checkpoints into which those are moved that could not be used."""


PLAIN = re.compile(r"[\w/.,:=@+ -]+", re.ASCII)
"""Paths that Orbax and TensorStore take as they are, with slashes between the folders."""

LAYOUT = re.compile(
    r"_CHECKPOINT_METADATA|default(/(_METADATA|_sharding|manifest\.ocdbt|array_metadatas/.*|d/.*|ocdbt\.process_\d+/.*))?"
)
"""What Orbax writes into a checkpoint: nothing else is removed with one."""


def is_plain(folder: PurePath) -> bool:
    """Whether Orbax and TensorStore take a path as it is."""
    return PLAIN.fullmatch(folder.as_posix()) is not None


def linked(folder: Path) -> tempfile.TemporaryDirectory[str] | None:
    """A folder that holds a link `checkpoints` to this one; None where none can be made."""
    parent = tempfile.TemporaryDirectory(prefix="innerloop-")
    try:
        os.symlink(folder, Path(parent.name) / "checkpoints")
    except OSError:  # Windows lets few users make links
        parent.cleanup()
        return None
    return parent


class Manager(ocp.CheckpointManager):
    """Orbax's, but for preemption: SIGTERM is ours, and JAX's service that Orbax would ask is off.

    Orbax expands wildcards in paths and cannot write some others, so it may be given a link to the folder.
    """

    def __init__(self, folder: Path, **settings: Any):
        self.folder, self.link, self.proven = folder, None, False
        if not is_plain(folder):
            self.link = linked(folder)
        super().__init__(Path(self.link.name) / "checkpoints" if self.link else folder, **settings)

    def close(self) -> None:
        """Close it, and remove the link."""
        super().close()
        if self.link is not None:
            self.link.cleanup()

    run = b""
    """The identity of the run whose checkpoints these are; empty: it does not matter."""

    under_way: tuple[int, Any] | None = None
    """Step and content of the last save."""

    def reached_preemption(self, step: int) -> bool:
        """Never (JAX 0.8 raises an error where its service is off)."""
        return False


def manager(folder: Path, keep: int = 3) -> Manager:
    """The checkpoints under `folder`, the newest `keep` of them. Of several processes, one alone has it.

    Raises InnerloopError for a folder that cannot be made, or is a link.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(suppress_duplicate_log)
    checkpoint_files.check_kinds(folder)
    folder = OwnFolder(folder.parent).make(folder.name)
    whose = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # else Orbax would wait for the others
        index = jax.process_index()
        whose = ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        todelete_subdir=DELETED,
        multiprocessing_options=whose,
        async_options=ocp.options.AsyncOptions(timeout_secs=FOREVER),
    )
    remove_deleted(folder)
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=whose)
    return Manager(folder, options=options, item_handlers=handler)


def remove_deleted(folder: Path) -> None:
    """Remove the old checkpoints that were moved out of the way; files that Orbax did not write stay."""
    deleted = OwnFolder(folder).place(DELETED)
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
    """`manager(folder)` for the run of this identity, closed at the end.

    Raises InnerloopError for a folder that cannot be written.
    """
    with cannot_write(folder):
        checkpoints = manager(folder)
    checkpoints.run = run
    try:
        yield checkpoints
    except BaseException:
        with suppress(Exception):  # what a failed write says again when it is closed
            checkpoints.close()
        raise
    checkpoints.close()


def suppress_duplicate_log(record: logging.LogRecord) -> bool:
    """Whether a line of the log is to be shown: what Orbax logs as an error it raises too, and that is told."""
    late = "exception was never retrieved" in record.getMessage() and "OCDBT" in str(record.exc_info)
    return record.levelno < logging.ERROR or not ("orbax" in record.pathname or late)


def silence_teardown_errors() -> None:
    """Let no answer be printed that TensorStore gives after Orbax has closed its event loop: the error was told."""
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.object is not None or "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook


def as_arrays(state: MetaState) -> dict[str, PyTree]:
    """The state as plain leaves by path, so that no class is written into the file."""
    tree = {"params": state.params, "opt_state": state.opt_state}
    leaves = dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    key = state.key if isinstance(state.key, np.ndarray) else jax.random.key_data(state.key)
    return arrays | {"key": np.asarray(key), "step": np.asarray(state.step)}


def digest(arrays: dict[str, PyTree]) -> np.ndarray:
    """sha256 over names, dtypes, shapes and bytes, as 32 unsigned bytes."""
    found = {path: np.asarray(arrays[path]) for path in sorted(arrays)}
    blocks = (f"{path}\0{x.dtype}\0{x.shape}\0".encode() + x.tobytes() for path, x in found.items())
    return np.frombuffer(sha256(blocks), np.uint8)


def save(checkpoints: Manager, state: MetaState) -> None:
    """Write the state under its step number, atomically, in the background.

    The first one is waited for and read back. Raises InnerloopError if this write cannot begin, the one before it did
    not end well, or the first one is not what was written.
    """
    finish(checkpoints)  # Orbax would wait here too; now nothing moves while old ones are removed
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
    """Raise InnerloopError where the disk cannot hold so many bytes: told before anything is begun."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        wrong = f"a checkpoint of {size} bytes does not fit on the disk{last_whole(folder)}"
        raise NotWritten(str(folder), wrong, got=f"{free} bytes free", do="free some room, then `resume`")


def finish(checkpoints: Manager) -> None:
    """Wait until all is on disk. Raises InnerloopError if it did not get there."""
    try:
        wait(checkpoints)
        remove_deleted(checkpoints.folder)
    except Exception as trouble:
        raise not_written(checkpoints, trouble) from trouble


def wait(checkpoints: Manager) -> None:
    """Wait until all is on disk. A save that ran out of time is begun again: the clock may have been set."""
    try:
        return checkpoints.wait_until_finished()
    except TimeoutError as error:
        trouble: Exception = error
    if checkpoints.under_way is None:
        raise trouble
    step, content = checkpoints.under_way
    for seconds in PAUSES:
        time.sleep(seconds)  # what was given up may still write
        try:
            checkpoints.save(step, args=content)
            return checkpoints.wait_until_finished()
        except Exception as error:
            trouble = error
    raise trouble


def not_written(checkpoints: Manager, trouble: Exception) -> InnerloopError:
    """What to say when the disk is full or the folder read-only."""
    folder = checkpoints.folder
    wrong = f"a checkpoint cannot be written ({reason(trouble)}){last_whole(folder)}"
    return NotWritten(str(folder), wrong, do="free some room or give write access, then `resume`")


def last_whole(folder: Path) -> str:
    """From where a run could go on, in words."""
    whole = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()]
    return f"; the last whole one is of meta-step {max(whole)}" if whole else ""


def reason(trouble: Exception) -> str:
    """What the operating system said, which TensorStore wraps in its own words."""
    if isinstance(trouble, OSError) and trouble.strerror:
        return trouble.strerror
    said = re.search(r": ([^:\[\]]+) \[os_error", str(trouble))
    return said[1] if said else f"{type(trouble).__name__}: {str(trouble)[:160]}"


def restore(checkpoints: Manager, like: MetaState) -> MetaState | None:
    """The newest sound state, with the structure of `like`; None if there is no checkpoint.

    Those that had to be passed over are moved to the folder `damaged`, and a warning names them. Raises InnerloopError
    if none can be used: of another model or optimiser, or damaged.
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
            text = f"innerloop: {trouble} The checkpoint of meta-step {step} is used in its place."
            warnings.warn(text, stacklevel=2)
        return state
    if troubles:
        raise troubles[max(troubles)]
    return None


def read(checkpoints: Manager, step: int, like: MetaState) -> MetaState:
    """The state of one step. Raises InnerloopError if it is damaged or of another model."""
    who, wanted = f"checkpoint {step}", as_arrays(like)
    size = sum(array.nbytes for array in wanted.values())
    checkpoint_files.check_size(checkpoints.folder / str(step), size, who)
    try:
        known = dict(checkpoints.item_metadata(step))  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name in (SHA256, RUN):
            known.pop(name, None)
        check_same(wanted, known, who)
        check_chunks(known, who)
        found = dict(checkpoints.restore(step, args=ocp.args.StandardRestore()))
    except InnerloopError:
        raise
    except Exception as error:
        wrong = f"cannot be read ({type(error).__name__})"
        raise InnerloopError(who, wrong, do=f"it lies in {checkpoints.folder / str(step)}") from error
    check_digest(found, who)
    check_run(found, checkpoints.run, who)
    check_same(wanted, found, who)
    if odd := [path for path in wanted if found[path].dtype != wanted[path].dtype]:
        wrong = f"is of another model: `{odd[0]}` should be {wanted[odd[0]].dtype}"
        raise InnerloopError(who, wrong, got=found[odd[0]].dtype)
    tree = {"params": like.params, "opt_state": like.opt_state}
    structure = jax.tree.structure(tree)
    tree = structure.unflatten([jax.numpy.asarray(found[path]) for path in paths(tree)])
    key = jax.random.wrap_key_data(jax.numpy.asarray(found["key"]))
    return MetaState(tree["params"], tree["opt_state"], key, jax.numpy.asarray(found["step"]))


def check_chunks(known: dict[str, PyTree], who: str) -> None:
    """Raise InnerloopError for a chunk larger than its array: a few compressed bytes of it may be gigabytes."""
    for path, array in known.items():
        chunk = getattr(array.storage, "chunk_shape", None) or array.shape
        if math.prod(chunk) > max(math.prod(array.shape), 1):
            raise InnerloopError(who, f"`{path}` is stored in chunks larger than itself", got=chunk)


def check_digest(found: dict[str, PyTree], who: str) -> None:
    """Take the digest out and compare it. Checkpoints of version 0.1.0 have none, and pass."""
    kept = found.pop(SHA256, None)
    if kept is not None and not np.array_equal(np.asarray(kept), digest(found)):
        raise InnerloopError(who, "is not what was written: its sha256 does not match")


def check_run(found: dict[str, PyTree], run: bytes, who: str) -> None:
    """Take the run's identity out and compare it. Checkpoints of version 0.1.0 have none, and pass."""
    kept = found.pop(RUN, None)
    if run and kept is not None and np.asarray(kept).tobytes() != run:
        wrong = "is of a run with other settings or data"
        raise InnerloopError(who, wrong, do="bring its config.json and data back, or give another folder")


def set_aside(checkpoints: Manager, step: int) -> None:
    """Move a checkpoint that cannot be used out of the way: its step will be written again."""
    target = OwnFolder(checkpoints.folder.parent).make(DAMAGED)
    number = next(n for n in itertools.count() if not os.path.lexists(target / f"{step}-{n}"))
    with cannot_write(target):
        os.replace(checkpoints.folder / str(step), target / f"{step}-{number}")
    checkpoints.reload()
