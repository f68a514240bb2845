"""The workloads' networks as PyTorch modules, and the conversion of weights, images and gradients between layouts.

Ours pads a convolution of stride 2 like XLA's SAME, on the right and bottom; PyTorch's `padding=1` acts on the left and
top. Rotating images and kernels by 180 degrees turns one into the other, so the peers need no extra padding.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.speed.workloads import Workload


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Net(nn.Module):
    """A body and a linear head."""

    def __init__(self, body: nn.Sequential, features: int, outputs: int):
        super().__init__()
        self.body, self.head = body, nn.Linear(features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def network(w: Workload) -> Net:
    """The network as in the packages' Omniglot examples: convolution, normalisation, ReLU, pooling."""
    if w.image is None:
        widths = (1, *w.hidden)
        pairs = zip(widths, widths[1:], strict=False)
        body = nn.Sequential(*[layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())])
        return Net(body, widths[-1], 1)
    height, width, channels = w.image
    blocks: list[nn.Module] = []
    for _ in range(4):
        stride = 2 if w.downsample == "stride" else 1
        norm = nn.BatchNorm2d(w.filters, eps=1e-3, track_running_stats=False)
        conv = nn.Conv2d(channels, w.filters, 3, stride=stride, padding=1, bias=False)
        blocks += [conv, norm, nn.ReLU(), *([nn.MaxPool2d(2)] if stride == 1 else [])]
        up = stride == 2
        height, width = (-(-height // 2), -(-width // 2)) if up else (height // 2, width // 2)
        channels = w.filters
    blocks.append(Mean() if w.features == "mean" else nn.Flatten())
    return Net(nn.Sequential(*blocks), w.filters * (1 if w.features == "mean" else height * width), w.ways)


def criterion(w: Workload) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss: a mean over examples."""
    return functional.mse_loss if w.image is None else functional.cross_entropy


def layers(w: Workload, net: Net) -> dict[str, tuple[nn.Module, str]]:
    """Our path of every parameter -> (module, its name in the module)."""
    linear = {"weight": "weight", "bias": "bias"}
    found: dict[str, tuple[nn.Module, str]] = {f"head/{k}": (net.head, v) for k, v in linear.items()}
    products = [m for m in net.body if isinstance(m, nn.Linear | nn.Conv2d)]
    norms = [m for m in net.body if isinstance(m, nn.BatchNorm2d)]
    for i, module in enumerate(products):
        found[f"body/{i}/weight"] = (module, "weight")
        if w.image is None:
            found[f"body/{i}/bias"] = (module, "bias")
    for i, module in enumerate(norms):
        found[f"body/{i}/norm/scale"] = (module, "weight")
        found[f"body/{i}/norm/offset"] = (module, "bias")
    return found


def to_torch(w: Workload, path: str, x: np.ndarray) -> np.ndarray:
    """Convert one of our weights to PyTorch's layout."""
    if x.ndim == 4:
        x = x[::-1, ::-1] if w.downsample == "stride" else x
        return np.ascontiguousarray(x.transpose(3, 2, 0, 1))
    if path == "head/weight" and w.image and w.features == "flatten":
        side = math.isqrt(x.shape[0] // w.filters)  # ours flattens in the order height, width, channels
        x = x.reshape(side, side, w.filters, -1).transpose(2, 0, 1, 3).reshape(x.shape)
    return np.ascontiguousarray(x.T) if x.ndim == 2 else x


def from_torch(w: Workload, path: str, x: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    if x.ndim == 4:
        x = x.transpose(2, 3, 1, 0)
        return x[::-1, ::-1] if w.downsample == "stride" else x
    x = x.T if x.ndim == 2 else x
    if path == "head/weight" and w.image and w.features == "flatten":
        side = math.isqrt(x.shape[0] // w.filters)
        x = x.reshape(w.filters, side, side, -1).transpose(1, 2, 0, 3).reshape(x.shape)
    return x


def load_weights(w: Workload, net: Net, problem: Any) -> None:
    """Set the network's parameters from the problem's `weights:PATH`."""
    with torch.no_grad():
        for path, (module, name) in layers(w, net).items():
            getattr(module, name).copy_(torch.tensor(to_torch(w, path, problem[f"weights:{path}"])))


def gradients(w: Workload, net: Net) -> dict[str, np.ndarray]:
    """The gradients of the network's parameters, in our layout."""
    return {
        path: np.ascontiguousarray(from_torch(w, path, getattr(module, name).grad.cpu().numpy()))
        for path, (module, name) in layers(w, net).items()
    }


def load_tasks(w: Workload, problem: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support inputs and targets, query inputs and targets, each with a leading task axis."""

    def inputs(x: np.ndarray) -> Tensor:
        if x.ndim == 5:
            x = x[:, :, ::-1, ::-1] if w.downsample == "stride" else x
            x = x.transpose(0, 1, 4, 2, 3)
        return torch.tensor(x.copy())  # torch does not support negative strides

    def targets(y: np.ndarray) -> Tensor:
        return torch.tensor(y, dtype=torch.long if w.image else torch.float32)

    parts = [problem[name] for name in ("support_x", "support_y", "query_x", "query_y")]
    return inputs(parts[0]), targets(parts[1]), inputs(parts[2]), targets(parts[3])


def sinusoids(w: Workload, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fresh sinusoid tasks with the distribution of `innerloop.tasks.sinusoid`."""
    uniform = lambda *shape: torch.rand(w.tasks, *shape, device=device)
    amplitude = 0.1 + 4.9 * uniform(1, 1)
    phase = math.pi * uniform(1, 1)
    x = 10 * uniform(w.support + w.query, 1) - 5
    y = amplitude * torch.sin(x - phase)
    return x[:, : w.support], y[:, : w.support], x[:, w.support :], y[:, w.support :]
