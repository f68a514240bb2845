"""`innerloop train --seeds ... --at-once N`: one process per seed, N at a time.

Each process gets a share of the cores, or of an accelerator's memory, and trains exactly what its seed would train
alone on a machine of that size: the same bits, in the same folder. Its output goes to a file next to the folder.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from rich.console import Console

from innerloop.cli.distributed import forward_signal, same_package
from innerloop.cli.seeds import Job
from innerloop.config.serialization import to_json
from innerloop.errors import InnerloopError
from innerloop.io.folders import OwnFolder
from innerloop.io.text import as_json, printable
from innerloop.training.interruption import signals

CODE = "from innerloop.__main__ import entry; from innerloop.cli.at_once_child import child; entry(child)"
COMMAND = (sys.executable, "-P", "-c", CODE)

POLL_EVERY = 0.2
"""Seconds between polls of the processes."""

PROGRESS_EVERY = 5.0
"""Seconds between progress lines."""

TAIL = 4096
"""Bytes at the end of a job's output in which to look for its last line."""


class Running(NamedTuple):
    """A job, its process, and the length of its output file when it started."""

    job: Job
    process: subprocess.Popen[str]
    output_start: int


@dataclass
class ParallelRunner:
    """Runs jobs, a few at a time; after a failure or a signal, starts no more and ends the others."""

    jobs: list[Job]
    at_once: int
    devices: int | None
    out: Console
    running: dict[int, Running] = field(default_factory=dict)
    """The running jobs by place, which numbers the shares of the machine."""
    last_printed: dict[Path, str] = field(default_factory=dict)
    """The last progress line printed for each folder."""
    ending: tuple[int, int] | None = None
    """Once ending early: the overall exit code, and the signal for the running jobs."""

    def run(self) -> int:
        """Run all jobs; return 0, or the exit code of the first that did not finish."""
        self.at_once = max(1, min(self.at_once, len(self.jobs)))
        signals.remove_guard()
        signals.handle_all(lambda number, frame: self.end(128 + number, number))
        try:
            self.work()
        finally:  # after an error in this process, running jobs save and exit
            for one in self.running.values():
                forward_signal(one.process, signal.SIGTERM)
                one.process.wait()
        return self.ending[0] if self.ending else 0

    def work(self) -> None:
        """Start jobs as places become free, until all have ended."""
        waiting, last = list(self.jobs), time.monotonic()
        while self.running or (waiting and not self.ending):
            for place in range(self.at_once):
                if place not in self.running and waiting and not self.ending:
                    self.start(place, waiting.pop(0))
            time.sleep(POLL_EVERY)
            for place, one in list(self.running.items()):
                if (code := one.process.poll()) is not None:
                    del self.running[place]
                    self.ended(one, code if code >= 0 else 128 - code)
            if time.monotonic() - last > PROGRESS_EVERY:
                last = time.monotonic()
                self.print_progress()

    def print_progress(self) -> None:
        """Print a progress line for each job that has advanced."""
        for one in self.running.values():
            folder = one.job.folder
            if (line := last_line(one)) and line != self.last_printed.get(folder):
                self.last_printed[folder] = line
                self.out.print(f"{folder}: {line}")

    def start(self, place: int, job: Job) -> None:
        """Start a job on one share of the machine."""
        folder = OwnFolder(job.folder.parent)
        folder.make()
        with folder.appending(output_of(job).name) as output:
            begin, process = os.fstat(output.fileno()).st_size, self.process(output)
        self.running[place] = Running(job, process, begin)
        if self.ending:  # a signal arrived while it was starting
            forward_signal(process, self.ending[1])
        share_cores(process.pid, place, self.at_once)
        self.out.print(f"{job.folder}: started; its output is in {output_of(job)}")
        assert process.stdin is not None
        order = {
            "folder": str(job.folder),
            "config": to_json(job.config),
            "resume": job.resume,
            "devices": self.devices,
            "parent": os.getpid(),
        }
        with suppress(BrokenPipeError):
            process.stdin.write(as_json(order))
        with suppress(BrokenPipeError):
            process.stdin.close()

    def process(self, output: TextIO) -> subprocess.Popen[str]:
        """A process that waits for its instructions. Raises InnerloopError if the system cannot start one."""
        try:
            # In its own session, so that Ctrl-C reaches only this process, which forwards it once.
            return subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            hint = "train fewer at once"
            raise InnerloopError("--at-once", f"a process cannot be started ({error})", hint=hint) from None

    def environment(self) -> dict[str, str]:
        """The environment of a job: its share of an accelerator's memory, unless that is already set."""
        fraction = f"{0.9 / self.at_once:.2g}"
        return {"XLA_PYTHON_CLIENT_MEM_FRACTION": fraction, **same_package(), "PYTHONUNBUFFERED": "1"}

    def ended(self, one: Running, code: int) -> None:
        """Report how a job ended; after a failure, end the others unless they are already ending."""
        if code == 0:
            self.out.print(f"{one.job.folder}: done")
            return
        self.out.print(f"{one.job.folder}: exited with code {code}: {last_line(one)}")
        if not self.ending:
            self.end(code, signal.SIGTERM)

    def end(self, code: int, number: int) -> None:
        """Ask all running jobs to save and exit."""
        self.ending = self.ending or (code, number)
        for one in self.running.values():
            forward_signal(one.process, number)


def output_of(job: Job) -> Path:
    """The file with a job's output."""
    return job.folder.with_name(f"output-{job.folder.name}.txt")


def last_line(one: Running) -> str:
    """The last line a process has printed, without escape sequences; empty if it cannot be read."""
    with suppress(OSError), output_of(one.job).open("rb") as output:
        output.seek(max(one.output_start, output.seek(0, os.SEEK_END) - TAIL))
        if lines := output.read().decode("utf-8", "replace").splitlines():
            return printable(lines[-1])
    return ""


def share_cores(process: int, place: int, shares: int) -> None:
    """Pin a process to its equal share of this process's cores, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if size := len(cores) // shares:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process, cores[place * size : (place + 1) * size])
