"""PyTorch on a GPU: `python -m benchmarks.gpu.torch_worker CORES`. On a CPU, the same without CUDA graphs."""

import copy
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.speed.peers import methods, network
from benchmarks.speed.worker_protocol import serve
from benchmarks.speed.workloads import Workload, from_dict

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph: warmed up on a side stream, captured once, then replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 (10-bit mantissas) in matrix products and convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def synchronize() -> None:
    """Wait for the device."""
    if CUDA:
        torch.cuda.synchronize()


class Torch:
    """A meta-gradient from `methods.METHODS` with Adam as the outer optimiser."""

    def device(self) -> dict[str, Any]:
        """The device, and whether it supports CUDA graphs."""
        name = torch.cuda.get_device_name() if CUDA else "cpu"
        return {"device": name, "graphs": CUDA, "versions": {"torch": torch.__version__}}

    def load(self, workload: dict[str, Any], problem: str, method: str, graph: bool) -> dict[str, Any]:
        """Build the network with the problem's weights and tasks."""
        self.release()
        self.w: Workload = from_dict(workload)
        self.method, self.graph = methods.METHODS[method], graph
        self.net = network.network(self.w)
        with np.load(problem) as arrays:
            network.load_weights(self.w, self.net, arrays)
            self.tasks = tuple(x.to(DEVICE) for x in network.load_tasks(self.w, arrays))
        self.net.to(DEVICE)
        return {}

    def wrap(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step, captured as a graph if requested."""
        return captured(step) if self.graph else step

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the meta-gradient on the problem in float32 or float64, computed by the code that is timed."""
        allow_tf32(False)
        wide = lambda x: x.double() if double and x.is_floating_point() else x
        net, tasks = copy.deepcopy(self.net), tuple(map(wide, self.tasks))
        net = net.double() if double else net

        def step() -> None:
            net.zero_grad(set_to_none=True)
            self.method(self.w, net, tasks)  # pyright: ignore[reportArgumentType]

        run = self.wrap(step)
        run()
        synchronize()  # while the graph still exists
        np.savez(path, **network.gradients(self.w, net))  # pyright: ignore[reportArgumentType]
        return {}

    def prepare(self, precision: str) -> dict[str, Any]:
        """Build the meta-step to be timed in this precision, and reset the peak memory."""
        self.run: Callable[[], None] | None = None
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        allow_tf32(precision == "tf32")
        begun = time.perf_counter()
        self.run = self.wrap(self.meta_step())
        self.run()
        synchronize()
        return {"prepare_s": time.perf_counter() - begun}

    def meta_step(self) -> Callable[[], None]:
        """One meta-step on the problem's tasks, or on fresh sinusoids."""
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, capturable=self.graph)

        def step() -> None:
            tasks = network.sinusoids(self.w, DEVICE) if self.w.image is None else self.tasks
            optimizer.zero_grad(set_to_none=True)
            self.method(self.w, self.net, tasks)  # pyright: ignore[reportArgumentType]
            optimizer.step()

        return step

    def steps(self, count: int) -> dict[str, Any]:
        """Run meta-steps and wait for the device."""
        assert self.run is not None
        synchronize()
        begun = time.perf_counter()
        for _ in range(count):
            self.run()
        synchronize()
        memory = torch.cuda.max_memory_allocated() / 1e6 if CUDA else None
        return {"seconds": time.perf_counter() - begun, "memory_mb": memory}

    def release(self) -> None:
        """Free the memory of the previous workload."""
        for name in ("run", "net", "tasks"):
            self.__dict__.pop(name, None)
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    serve(Torch, int(sys.argv[1]))
