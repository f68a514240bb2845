"""Inputs to try a fitted learner on: like the examples of its `fit`, so that they reach what the model does there."""

from typing import TYPE_CHECKING

import numpy as np

from innerloop.learner.validation import Numbers

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner

MOST = 32
"""Examples that are tried at a time."""


def numbers_in_use(learner: "Learner") -> Numbers:
    """What a fitted learner takes; bytes and floats look alike where it is not known what `fit` was given."""
    return learner.numbers_ or ("floats" if learner.support_.dtype.kind in "fV" else "whole numbers")


def samples_of(learner: "Learner") -> np.ndarray:
    """Some examples of `fit`, and as many mixtures of them, in the type that `predict` takes.

    Of a learner that was loaded without examples: numbers at random.
    """
    examples, rng = learner.support_, np.random.default_rng(0)
    if not len(examples):
        shape = (MOST // 8, *examples.shape[1:])
        examples = rng.random(shape, np.float32) if examples.dtype.kind in "fV" else rng.integers(0, 2, shape)
        examples = examples.astype(learner.support_.dtype)
    if numbers_in_use(learner) == "bytes":
        examples = np.rint(examples * 255).astype(np.uint8)
    return np.concatenate([examples[: MOST // 8], mixed(examples, MOST // 8, rng)])


def mixed(examples: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """New examples, `[count, ...]`, whose every number is one of the examples', or lies between two if not whole."""
    draw = lambda: np.take_along_axis(
        examples, rng.integers(0, len(examples), (count, *examples.shape[1:])), axis=0
    )
    one, other = draw(), draw()
    if examples.dtype.kind in "iu":
        return one
    between = one + rng.random(one.shape, np.float32) * (other - one)
    return np.clip(between, np.minimum(one, other), np.maximum(one, other)).astype(examples.dtype)


def contrasts(examples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Queries and two different supports for them, like the examples and at random.

    Args:
        examples: of the shape and type that the model takes; may be empty.
    """
    rng, count = np.random.default_rng(0), min(len(examples), MOST) or 3
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
        if not whole:  # equal examples have no mixtures but themselves
            other = (other * rng.uniform(0.5, 1.5, other.shape)).astype(other.dtype)
        found.append((queries, one, other))
    found += [at_random(size) for size in ((1.0,) if whole else (1.0, 100.0))]
    return [tuple(triple) for triple in found]
