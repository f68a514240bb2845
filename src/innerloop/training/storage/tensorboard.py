"""Scalars for TensorBoard, written as they come and never at the price of the run.

A file of events is a sequence of records: length, checksum of the length, content, checksum of the content. Each is
one unbuffered write, with no thread and no queue. Where the disk is full the board stops and says so once; the numbers
are in `metrics.jsonl` all the same.
"""

import os
import socket
import struct
import time
import warnings
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""A new file; without the last flag Windows would change bytes that look like the end of a line."""


class ScalarWriter:
    """One file of events in `folder`; times go on from the start even if the clock is set back."""

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
        """A name that TensorBoard knows, later than those that are there."""
        number = int(self.begun_at)
        while (path := self.folder / f"events.out.tfevents.{number}.{socket.gethostname()}").exists():
            number += 1
        return path

    def now(self) -> float:
        """The time of day at the start, and what has passed since then."""
        return self.begun_at + time.monotonic() - self.begun

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """One number of one meta-step."""
        self.write(Event(wall_time=self.now(), step=step, summary=scalar(name, value)))

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
        """Write no more, and say why."""
        self.close()
        text = f"innerloop: no more is written for TensorBoard in {self.folder} ({trouble.strerror})"
        warnings.warn(text, stacklevel=2)

    def close(self) -> None:
        """Nothing comes after this."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self.about = os.fstat(handle)
            os.close(handle)
