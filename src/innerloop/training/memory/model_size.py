"""Compares the size of a config's model with the stored weights, before the model is built.

A config is untrusted text: a few bytes may ask for a layer of 10^18 numbers, or for a hundred thousand layers. A stored
model contains all of its numbers, so a config that asks for more than the file holds can be rejected at once.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.training.storage.shapes import HINT


def least_size(config: Config) -> tuple[int, int]:
    """Lower bounds on the numbers of arrays and of elements of the model, for any inputs."""
    m = config.model
    if m.kind == "conv4" and not config.reinforcement:
        return 10, 27 * m.filters**2 + head_size(config, m.filters)
    inside = sum(a * b for a, b in pairwise(m.hidden))
    return 2 * len(m.hidden), inside + sum(m.hidden) + head_size(config, m.hidden[-1] if m.hidden else 1)


def head_size(config: Config, features: int) -> int:
    """A lower bound on the number of weights of the output layer."""
    return features * (config.data.ways if config.data.spec.kind == "images" else 1)


def check_stored(config: Config, arrays: dict[str, np.ndarray], who: str) -> None:
    """Raise InnerloopError if the config's model is too large to be stored in these arrays.

    Joint training stores a head for all training classes, whose number may differ from the config's ways.
    """
    minimum, numbers = least_size(config)
    stored = sum(array.size for array in arrays.values()) + (0 if config.spec.adapts_in_training else 1 << 22)
    if minimum > len(arrays) or numbers > stored:
        got = f"at least {minimum} arrays and {numbers} numbers against {len(arrays)} and {stored}"
        raise InnerloopError(
            who, "the config describes a larger model than the file holds", got=got, hint=HINT
        )


def check_kept(config: Config, checkpoints: Path) -> None:
    """Raise InnerloopError if the config's model is too large for these checkpoints, if there are any."""
    kept = [path.lstat().st_size for path in checkpoints.glob("[0-9]*/**/*")]
    arrays, numbers = least_size(config)
    needs, bound = 4 * numbers + 256 * arrays, 4 * sum(kept) + (1 << 20)  # compression saves less than 4x
    if kept and needs > bound:
        wrong = "the config describes a larger model than the checkpoints can hold"
        raise InnerloopError(str(checkpoints), wrong, got=f"{needs} bytes for {bound}", hint=HINT)


def shapes_of(make: Callable[[], PyTree], who: str) -> PyTree:
    """Shapes and types of the result of `make`. Raises InnerloopError for impossible shapes."""
    try:
        return jax.eval_shape(make)
    except InnerloopError:
        raise
    except (OverflowError, TypeError, ValueError) as trouble:
        wrong = f"its config does not describe a valid model ({type(trouble).__name__})"
        raise InnerloopError(who, wrong, hint=HINT) from None
