"""Inputs for testing a fitted learner: like the examples of its `fit`, so that they exercise the same behaviour."""

from typing import TYPE_CHECKING

import numpy as np

from innerloop.learner.validation import Numbers

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner

MAX_SAMPLES = 32
"""Examples tried at a time."""


def numbers_in_use(learner: "Learner") -> Numbers:
    """What a fitted learner takes; if it is unknown what `fit` was given, bytes cannot be told from floats."""
    return learner.numbers_ or ("floats" if learner.support_.dtype.kind in "fV" else "whole numbers")


def samples_of(learner: "Learner") -> np.ndarray:
    """Some examples of `fit`, and as many mixtures of them, in the type that `predict` takes.

    For a learner that was loaded without examples, random numbers.
    """
    examples, rng = learner.support_, np.random.default_rng(0)
    if not len(examples):
        shape = (MAX_SAMPLES // 8, *examples.shape[1:])
        examples = rng.random(shape, np.float32) if examples.dtype.kind in "fV" else rng.integers(0, 2, shape)
        examples = examples.astype(learner.support_.dtype)
    if numbers_in_use(learner) == "bytes":
        examples = np.rint(examples * 255).astype(np.uint8)
    return np.concatenate([examples[: MAX_SAMPLES // 8], mixed(examples, MAX_SAMPLES // 8, rng)])


def mixed(examples: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """New examples, `[count, ...]`: each number is taken from an example or, for floats, lies between those of two."""
    draw = lambda: np.take_along_axis(
        examples, rng.integers(0, len(examples), (count, *examples.shape[1:])), axis=0
    )
    one, other = draw(), draw()
    if examples.dtype.kind in "iu":
        return one
    between = one + rng.random(one.shape, np.float32) * (other - one)
    return np.clip(between, np.minimum(one, other), np.maximum(one, other)).astype(examples.dtype)


def support_pairs(examples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Queries with two different support sets, both similar to the examples and at random.

    Args:
        examples: have the shape and type that the model takes; may be empty.
    """
    rng, count = np.random.default_rng(0), min(len(examples), MAX_SAMPLES) or 3
    whole = examples.dtype.kind not in "fV"

    def at_random(size: float) -> list[np.ndarray]:
        shape, sizes = examples.shape[1:], (3, count, count)
        draw = lambda n: (
            rng.integers(0, 2, (n, *shape)) if whole else rng.uniform(min(0, 1 - size), size, (n, *shape))
        )
        return [draw(n).astype(examples.dtype) for n in sizes]

    found = []
    if len(examples):
        queries, one, other = (mixed(examples, n, rng) for n in (3, count, count))
        if not whole:  # mixtures of equal examples are the examples themselves
            other = (other * rng.uniform(0.5, 1.5, other.shape)).astype(other.dtype)
        found.append((queries, one, other))
    found += [at_random(size) for size in ((1.0,) if whole else (1.0, 100.0))]
    return [tuple(triple) for triple in found]
