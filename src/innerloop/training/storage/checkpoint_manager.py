"""Orbax's manager of checkpoints, with remedies for paths, signals, log messages and remains that it handles badly."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import jax
import orbax.checkpoint as ocp

from innerloop.io.files import cannot_write, remove_folders
from innerloop.io.folders import OwnFolder
from innerloop.training.storage import checkpoint_files

FOREVER = 10**8
"""Timeout of a save in seconds: Orbax measures it by the system clock, which may be changed meanwhile."""

DELETED = "deleted"
"""The folder to which Orbax moves old checkpoints atomically, so that a killed run leaves no partial one."""

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
