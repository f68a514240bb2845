"""A contender's process: reads one JSON request per line and answers with one JSON line. Standard library only.

Requests: {"do": NAME, ...} calls the contender's method NAME with the rest as keyword arguments; {"do": "ready"} is
answered once its libraries are imported, and {"do": "forget_peak"} resets the peak memory. An exception is answered as
{"error": ...}, so that one contender's failure does not stop the others.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol


class Contender(Protocol):
    """The methods that the driver calls on a contender."""

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Prepare for a workload; ours writes the weights and tasks to `problem`, and the peers read them."""
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
    """Pin this process to `count` cores, and limit thread pools that are created later to as many."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(count)


def limit_memory(fraction: float = 0.9) -> None:
    """Make allocation fail before the machine runs out of memory: an error answer instead of a killed process."""
    import resource

    available = memory_kb("/proc/meminfo", "MemAvailable")
    if available:
        bound = int(available * 1024 * fraction) + memory_kb("/proc/self/status", "VmSize") * 1024
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def memory_kb(path: str, name: str) -> int:
    """One value of a /proc file in kB; 0 if there is no such file or line."""
    try:
        with open(path) as file:
            return next((int(line.split()[1]) for line in file if line.startswith(name + ":")), 0)
    except OSError:
        return 0


def peak_mb() -> float:
    """The peak resident size of this process so far, in MB.

    From VmHWM, because getrusage includes the parent's size from before exec.
    """
    return memory_kb("/proc/self/status", "VmHWM") / 1024


def forget_peak() -> None:
    """Return free memory to the system and reset the peak resident size (only on Linux)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def serve(make: Callable[[], object], threads: int) -> None:
    """Answer requests until the input ends."""
    # Output that a library prints must not mix with the answers.
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
