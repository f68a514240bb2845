"""Splitting names, of classes or of groups, into training, validation and test sets by fractions."""

import math
from collections.abc import Sequence

import numpy as np

from innerloop.errors import InnerloopError


def check_fractions(split: Sequence[float], who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless these are three positive fractions that sum to 1."""
    if np.shape(split) != (3,) or min(split) <= 0 or not math.isclose(sum(split), 1, abs_tol=1e-6):
        raise InnerloopError(who, "`split` must be three positive fractions that sum to 1", got=split)


def split_by_fractions(
    names: list[str], split: Sequence[float], seed: int, minimum: int
) -> tuple[list[str], list[str], list[str]]:
    """Shuffle the names, and cut them into three sets of at least `minimum` each."""
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    test = min(max(minimum, round(split[2] * len(names))), len(names) - 2 * minimum)
    validation = min(max(minimum, round(split[1] * len(names))), len(names) - test - minimum)
    train = len(names) - test - validation
    return order[:train], order[train : train + validation], order[train + validation :]
