"""Start, kill and wait for several processes of one `innerloop train` over loopback."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WAIT = 240.0
"""Timeout in seconds for everything here."""


def free_port() -> int:
    """A free port."""
    with socket.create_server(("", 0)) as listening:
        return listening.getsockname()[1]


def meeting(count: int, index: int, port: int, patience: int) -> list[str]:
    """The options by which one of `count` processes finds the others."""
    told = {"coordinator": f"127.0.0.1:{port}", "processes": count, "process": index, "patience": patience}
    return [word for name, value in told.items() for word in (f"--distributed.{name}", str(value))]


class Process(subprocess.Popen[str]):
    """A process that writes its output to a file: an unread pipe would fill up and block it."""

    def __init__(self, words: Sequence[str], **options: Any):
        self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115  read after the process ends
        super().__init__(words, stdout=self.file, stderr=subprocess.STDOUT, text=True, **options)

    def told(self) -> str:
        """Wait for the process, and return its output."""
        self.wait(timeout=WAIT)
        with self.file:
            self.file.seek(0)
            return self.file.read()


def start(count: int, words: Sequence[str], devices: int = 1, patience: int = 10) -> list[Process]:
    """Start `innerloop train` in `count` processes with `devices` CPU devices each."""
    port = free_port()
    command = [sys.executable, "-m", "innerloop", "train", *words, "--devices", str(devices)]
    return [Process([*command, *meeting(count, index, port, patience)]) for index in range(count)]


def end(processes: Sequence[Process]) -> list[tuple[int, str]]:
    """Wait for the processes, and return each one's exit code and output."""
    try:
        told = [process.told() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def train(count: int, words: Sequence[str], devices: int = 1) -> None:
    """Train in `count` processes. Raises RuntimeError if one fails."""
    for code, told in end(start(count, words, devices)):
        if code:
            raise RuntimeError(f"exit code {code}: {told}")


def wait_for_lines(folder: Path, lines: int, processes: Sequence[Process]) -> None:
    """Wait until the run has logged `lines` lines."""
    deadline, path = time.monotonic() + WAIT, folder / "metrics.jsonl"
    while not path.exists() or path.read_text().count("\n") < lines:
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise RuntimeError(f"the run did not log {lines} lines: {end(processes)}")
        time.sleep(0.02)


def child_of(process: Process) -> int:
    """The id of the process that trains, a child of the command."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[1]) == process.pid:
            return int(stat.parent.name)
    raise RuntimeError(f"process {process.pid} has no child")


def lose(processes: Sequence[Process], index: int, number: int) -> list[tuple[int, float, str]]:
    """Send one process a signal; return the exit code, the seconds until exit and the output of each other one."""
    victim, begun = child_of(processes[index]), time.monotonic()
    os.kill(victim, number)
    others = [process for i, process in enumerate(processes) if i != index]
    found = []
    for process in others:
        told = process.told()
        found.append((process.returncode, time.monotonic() - begun, told))
    os.kill(victim, signal.SIGKILL) if number == signal.SIGSTOP else None
    end([processes[index]])
    return found
