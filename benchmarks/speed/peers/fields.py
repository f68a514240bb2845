"""Modulated SIRENs in PyTorch, batched over pictures by hand, as in the code of COIN++.

python -m benchmarks.speed.peers.fields THREADS, a contender of benchmarks/neural_fields.py
"""

import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.speed.worker_protocol import serve

FREQUENCY = 30.0


class Fields:
    """The meta-gradient through three inner steps on latents, with Adam as the outer optimiser."""

    def __init__(self, threads: int):
        torch.set_num_threads(threads)

    def load(self, workload: dict[str, Any], problem: str) -> dict[str, Any]:
        """Load the problem's weights and pictures."""
        self.steps_inside, self.rate, self.tasks = workload["steps"], workload["rate"], workload["tasks"]
        with np.load(problem) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.places, self.pictures = tensors.pop("places"), tensors.pop("pictures")
        self.weights = {name: x.requires_grad_() for name, x in tensors.items()}
        self.optimizer = torch.optim.Adam(list(self.weights.values()), lr=1e-4)
        return {"versions": {"torch": torch.__version__}}

    def colours(self, latents: torch.Tensor) -> torch.Tensor:
        """Colours of all pictures at all pixels: [pictures, pixels, channels]."""
        w, depth = self.weights, sum(name.startswith("weight") for name in self.weights)
        shifts = (latents @ w["shifts"]).reshape(len(latents), depth, 1, -1)
        x = self.places.to(latents.dtype)
        for i in range(depth):
            x = torch.sin(FREQUENCY * (x @ w[f"weight{i}"] + w[f"bias{i}"] + shifts[:, i]))
        return x @ w["out_weight"] + w["out_bias"] + 0.5

    def meta_loss(self, pictures: torch.Tensor) -> torch.Tensor:
        """The mean error after inner steps on the sum of the pictures' errors."""
        shifts = self.weights["shifts"]
        latents = torch.zeros(len(pictures), len(shifts), dtype=shifts.dtype, requires_grad=True)
        for _ in range(self.steps_inside):
            loss = (self.colours(latents) - pictures).square().mean(dim=(1, 2)).sum()
            (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
            latents = latents - self.rate * gradient
        return (self.colours(latents) - pictures).square().mean()

    def gradient(self, path: str, double: bool) -> dict[str, Any]:
        """Write the meta-gradient on the first pictures, before any step."""
        kept = self.weights
        if double:
            self.weights = {name: x.detach().double().requires_grad_() for name, x in kept.items()}
        pictures = self.pictures[: self.tasks].to(self.weights["out_bias"].dtype)
        found = torch.autograd.grad(self.meta_loss(pictures), list(self.weights.values()))
        named = {name: x.numpy() for name, x in zip(self.weights, found, strict=True)}
        self.weights = kept
        np.savez(path, **named)  # pyright: ignore[reportArgumentType]
        return {}

    def steps(self, count: int) -> dict[str, Any]:
        """Run meta-steps on freshly drawn pictures."""
        start = time.perf_counter()
        for _ in range(count):
            pictures = self.pictures[torch.randint(len(self.pictures), (self.tasks,))]
            self.optimizer.zero_grad()
            self.meta_loss(pictures).backward()
            self.optimizer.step()
        return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    threads = int(sys.argv[1])
    serve(lambda: Fields(threads), threads)
