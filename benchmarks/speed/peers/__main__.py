"""One PyTorch contender: `python -m benchmarks.speed.peers NAME THREADS`."""

import copy
import sys
import time
from typing import Any

import numpy as np

from benchmarks.speed.worker_protocol import limit_memory, serve
from benchmarks.speed.workloads import NUMPY, Workload, from_dict


class Peer:
    """A meta-gradient from `methods.METHODS` with Adam as the outer optimiser."""

    def __init__(self, name: str, threads: int):
        import torch

        torch.set_num_threads(threads)
        self.name = name

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Build the network with the problem's weights and tasks."""
        import torch

        from benchmarks.speed.peers import methods, network

        limit_memory()
        self.w: Workload = from_dict(workload)
        self.method = methods.METHODS[self.name]
        self.net = network.network(self.w)
        with np.load(problem) as arrays:
            network.load_weights(self.w, self.net, arrays)
            self.tasks = network.load_tasks(self.w, arrays)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        return {"versions": versions()}

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the meta-gradient on the problem, before any step."""
        import torch

        from benchmarks.speed.peers import network

        wide = lambda x: x.double() if double and x.is_floating_point() else x
        net = copy.deepcopy(self.net).double() if double else self.net
        net.zero_grad()
        self.method(self.w, net, torch.utils._pytree.tree_map(wide, self.tasks))
        np.savez(path, **network.gradients(self.w, net))  # pyright: ignore[reportArgumentType]
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Run meta-steps on the problem's tasks, or on fresh sinusoids."""
        from benchmarks.speed.peers import network

        start = time.perf_counter()
        for _ in range(count):
            tasks = network.sinusoids(self.w) if self.w.image is None else self.tasks
            self.optimizer.zero_grad()
            self.method(self.w, self.net, tasks)
            self.optimizer.step()
        return {"seconds": time.perf_counter() - start}

    def peak(self) -> dict[str, Any]:
        """The rate of PyTorch's product of two large matrices."""
        import torch

        a = torch.rand(1536, 1536)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            torch.mm(a, a)
            times.append(time.perf_counter() - start)
        return {"gflops": 2 * 1536**3 / min(times) / 1e9}


class NumpySampler:
    """Task sampling by plain NumPy indexing, as in data loaders."""

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Read the examples: bytes of shape [classes, each, height, width, channels]."""
        self.w = from_dict(workload)
        self.random = np.random.default_rng(0)
        with np.load(problem) as arrays:
            self.examples = arrays["examples"]
        return {"versions": {"numpy": np.__version__}}

    def steps(self, count: int) -> dict[str, Any]:
        """Draw `count` meta-batches of tasks."""
        start = time.perf_counter()
        for _ in range(count * self.w.tasks):
            self.draw()
        return {"seconds": time.perf_counter() - start}

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw the support and query images of one task."""
        classes = self.random.choice(len(self.examples), self.w.ways, replace=False)
        order = self.random.permuted(np.tile(np.arange(self.examples.shape[1]), (self.w.ways, 1)), axis=1)
        drawn = self.examples[classes[:, None], order[:, : self.w.shots + self.w.queries]]
        if self.w.kind == "sampling":  # from a memory map, ours also yields bytes that the device scales
            drawn = drawn.astype(np.float32) / 255
        return drawn[:, : self.w.shots], drawn[:, self.w.shots :]


def versions() -> dict[str, str]:
    """Versions of the peers' packages."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "higher", "torchopt")}


if __name__ == "__main__":
    name, threads = sys.argv[1], int(sys.argv[2])
    serve(NumpySampler if name == NUMPY else lambda: Peer(name, threads), threads)  # pyright: ignore
