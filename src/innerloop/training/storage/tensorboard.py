"""Writes scalars for TensorBoard at once, without ever failing the run.

An event file is a sequence of records: length, checksum of the length, content, checksum of the content. Each record is
one unbuffered write, with no thread and no queue. If the disk is full, the writer warns once and stops; the numbers are
still in `metrics.jsonl`.
"""

import os
import re
import socket
import struct
import time
import warnings
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""Flags to create a new file; without the last one Windows would translate line endings."""


class ScalarWriter:
    """Writes one event file in `folder`; times keep increasing even if the clock is set back."""

    def __init__(self, folder: Path):
        self.folder, self.begun, self.begun_at = folder, time.monotonic(), time.time()
        self.handle: int | None = None
        self.about: os.stat_result | None = None
        self.path = self.new_path()
        try:
            self.handle = os.open(self.path, NEW, 0o644)
        except OSError as trouble:
            self.stop(trouble)
        self.write(Event(wall_time=self.now(), file_version="brain.Event:2"))

    def new_path(self) -> Path:
        """A file name that TensorBoard recognises, with a later time than existing ones."""
        number = int(self.begun_at)
        while (path := self.folder / f"events.out.tfevents.{number}.{socket.gethostname()}").exists():
            number += 1
        return path

    def now(self) -> float:
        """The wall time at the start plus the time elapsed since."""
        return self.begun_at + time.monotonic() - self.begun

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write one scalar of one meta-step; it may be NaN, which `tensorboardX.summary.scalar` would warn about."""
        tag = re.sub(r"[^-/\w.]", "_", name).lstrip("/")
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=float(value))])
        self.write(Event(wall_time=self.now(), step=step, summary=summary))

    def write(self, event: Event) -> None:
        """Append one record, unless writing has failed before."""
        if self.handle is None:
            return
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        checked = lambda part: part + struct.pack("<I", masked_crc32c(part))
        try:
            os.write(self.handle, checked(length) + checked(content))
        except OSError as trouble:
            self.stop(trouble)

    def stop(self, trouble: OSError) -> None:
        """Stop writing, and warn why."""
        self.close()
        text = f"innerloop: stopped writing for TensorBoard in {self.folder} ({trouble.strerror})"
        warnings.warn(text, stacklevel=2)

    def close(self) -> None:
        """Close the file; further writes are ignored."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self.about = os.fstat(handle)
            os.close(handle)
