"""Finite differences of a function along directions, with their own uncertainty, against a gradient."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.engine.pytree import paths

STEPS = tuple(10.0**-i for i in range(2, 9))


@dataclass(frozen=True)
class Directions:
    """For each direction: its name, the finite difference, its uncertainty, and the gradient's product with it."""

    names: list[str]
    finite: np.ndarray
    unsure: np.ndarray
    product: np.ndarray
    floor: float

    @property
    def errors(self) -> np.ndarray:
        """Relative errors; differences far below the largest parameter's gradient count as rounding."""
        return np.abs(self.finite - self.product) / self.size

    @property
    def size(self) -> np.ndarray:
        """The scale of the relative errors."""
        return np.maximum(np.maximum(np.abs(self.finite), np.abs(self.product)), self.floor)


def compare(
    objective: Callable, params: PyTree, grads: PyTree, directions: int, steps: tuple[float, ...]
) -> Directions:
    """Finite differences along one direction for each parameter and some for all."""
    rng = np.random.default_rng(0)
    x = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    g = [np.asarray(leaf) for leaf in jax.tree.leaves(grads)]
    structure = jax.tree.structure(params)
    value = lambda v, h: float(objective(structure.unflatten([a + h * b for a, b in zip(x, v, strict=True)])))
    ways = [[i] for i in range(len(x))] + [list(range(len(x)))] * directions
    finite, unsure, product = [], [], []
    for way in ways:
        # Half along the gradient, so that the product is not near zero by chance.
        v = [unit(unit(b) + unit(rng.normal(size=b.shape))) if i in way else 0 * b for i, b in enumerate(g)]
        scale = max(float(np.linalg.norm(np.concatenate([x[i].ravel() for i in way]))), 1e-2)
        slopes = [(value(v, h * scale) - value(v, -h * scale)) / (2 * h * scale) for h in steps]
        gaps = np.abs(np.diff(slopes))
        best = int(np.argmin(gaps))
        finite.append(slopes[best + 1])
        unsure.append(gaps[best])
        product.append(sum(float(np.vdot(a, b)) for a, b in zip(v, g, strict=True)))
    names = paths(params) + ["all parameters"] * directions
    floor = 1e-7 * max(np.abs(finite).max(), np.abs(product).max()) + 1e-12
    return Directions(names, np.array(finite), np.array(unsure), np.array(product), floor)


def unit(x: np.ndarray) -> np.ndarray:
    """x over its norm; zeros stay zeros."""
    return x / (np.linalg.norm(x) or 1.0)
