"""A contender's process: reads one JSON request a line, answers with one JSON line. Standard library alone.

Requests: {"do": NAME, ...} calls the contender's method NAME with the rest as keywords; {"do": "ready"} is answered
once its libraries are imported, and {"do": "forget_peak"} starts the measurement of memory anew. Anything raised is
answered as {"error": ...}, so that one contender's failure does not end the others' run.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol


class Contender(Protocol):
    """What the driver asks of every contender."""

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Get ready for a workload; ours writes the weights and tasks to `problem`, the peers read them."""
        ...

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the meta-gradient on the problem's weights and tasks, in float32 or float64."""
        ...

    def steps(self, count: int) -> dict[str, Any]:
        """Run `count` meta-steps and answer {"seconds": ...}."""
        ...

    def peak(self) -> dict[str, Any]:
        """The rate of a large matrix product, {"gflops": ...}."""
        ...


def stay_on_cores(count: int) -> None:
    """Stay on `count` cores, and let every thread pool that is made later see no more."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)


def limit_memory(fraction: float = 0.9) -> None:
    """Let allocation fail before the machine runs out of memory: then it is an answer, not a killed process."""
    import resource

    available = memory_kb("/proc/meminfo", "MemAvailable")
    if available:
        bound = int(available * 1024 * fraction) + memory_kb("/proc/self/status", "VmSize") * 1024
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def memory_kb(path: str, name: str) -> int:
    """One line of /proc in kB; 0 where there is no such file or line."""
    try:
        with open(path) as file:
            return next((int(line.split()[1]) for line in file if line.startswith(name + ":")), 0)
    except OSError:
        return 0


def peak_mb() -> float:
    """The largest resident size of this process so far, in MB.

    VmHWM, not getrusage: the latter remembers the parent that started the process.
    """
    return memory_kb("/proc/self/status", "VmHWM") / 1024


def forget_peak() -> None:
    """Give free memory back and count the largest resident size from here on (Linux; elsewhere nothing happens)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def serve(make: Callable[[], object], threads: int) -> None:
    """Answer requests until the input ends."""
    # Whatever a library prints must not stand among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stay_on_cores(threads)
    contender = make()
    for line in sys.stdin:
        request = json.loads(line)
        name, cpu = request.pop("do"), time.process_time()
        try:
            if name == "forget_peak":
                forget_peak()
            answer = {} if name in ("ready", "forget_peak") else getattr(contender, name)(**request)
        except Exception as error:
            words = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {words[0]}"[:300]}
        answers.write(json.dumps({**answer, "cpu_s": time.process_time() - cpu, "peak_mb": peak_mb()}) + "\n")
        answers.flush()
