"""Measure whether runs agree across numbers of processes and restarts, and what happens when a process is lost."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling.launch import end, lose, start, train, wait_for_lines
from innerloop.training.storage import weights

STEPS = 50
SHORT = (
    "sinusoid-maml",
    "--outer.meta-batch",
    "8",
    "--outer.meta-steps",
    str(STEPS),
    "--outer.log-every",
    "10",
)
SHORT += ("--outer.checkpoint-every", "10", "--outer.validate-every", "25")
SHORT += ("--evaluation.validation-tasks", "64", "--evaluation.steps", "2")
LONG = (
    "sinusoid-maml",
    "--outer.meta-batch",
    "24",
    "--outer.log-every",
    "10",
    "--outer.checkpoint-every",
    "20",
)
LONG += ("--outer.validate-every", "0")
PATIENCE = 10


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """A run's weights by path."""
    return weights.load(folder / "weights.safetensors")[0]


def apart(folder: Path, other: Path) -> float:
    """Largest difference between two runs' weights, relative to each array's maximum; 0 if bitwise equal."""
    a, b = weights_of(folder), weights_of(other)
    return max(float(np.abs(a[n] - b[n]).max() / np.abs(a[n]).max()) for n in a)


def equality(folder: Path) -> list[dict[str, Any]]:
    """Compare 50 meta-steps in every arrangement with one process on as many devices, and with one device."""
    arrangements = [(1, 1), (1, 2), (2, 1), (1, 4), (4, 1), (2, 2)]
    at = lambda processes, devices: folder / f"{processes}x{devices}"
    for processes, devices in arrangements:
        if processes == 1:
            from subprocess import run
            from sys import executable

            words = [*SHORT, "--folder", str(at(processes, devices)), "--devices", str(devices)]
            run([executable, "-m", "innerloop", "train", *words], check=True, capture_output=True)
        else:
            train(processes, [*SHORT, "--folder", str(at(processes, devices))], devices)
    return [
        {
            "processes": processes,
            "devices_each": devices,
            "from_one_process": apart(at(1, processes * devices), at(processes, devices)),
            "from_one_device": apart(at(1, 1), at(processes, devices)),
        }
        for processes, devices in arrangements
    ]


def restarts(folder: Path) -> list[dict[str, Any]]:
    """Stop a run of 4 processes by SIGTERM to one of them, then resume it on other numbers of processes."""
    whole, parted = folder / "whole", folder / "parted"
    train(4, [*SHORT, "--folder", str(whole)])
    words = ("--outer.meta-steps", str(STEPS), "--outer.log-every", "1", "--folder", str(parted))
    processes = start(4, [*SHORT, *words])
    wait_for_lines(parted, 15, processes)
    processes[2].send_signal(signal.SIGTERM)
    codes = [code for code, _ in end(processes)]
    stopped = max(int(p.name) for p in (parted / "checkpoints").glob("[0-9]*"))
    rows = []
    for count in (1, 2, 4, 8):
        again = folder / f"on{count}"
        shutil.copytree(parted, again)
        train(count, ["--resume", str(again)])
        rows.append({"processes": count, "stopped_at": stopped, "codes": codes, "apart": apart(whole, again)})
    return rows


def losses(folder: Path) -> list[dict[str, Any]]:
    """Kill or suspend one of three processes: the last, and the first."""
    rows = []
    for number, what in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "hangs")):
        for index in (2, 0):
            run = folder / f"{what}{index}"
            processes = start(3, [*LONG, "--folder", str(run)], patience=PATIENCE)
            wait_for_lines(run, 5, processes)
            found = lose(processes, index, number)
            rows.append(
                {
                    "what": f"process {index} {what}",
                    "codes": [code for code, _, _ in found],
                    "told": all("another process of this run was lost" in told for _, _, told in found),
                    "seconds": max(seconds for _, seconds, _ in found),
                    "patience": PATIENCE,
                }
            )
    return rows
