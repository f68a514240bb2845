"""A run of `innerloop.fit` on a model of Equinox, in a few seconds: 12 meta-steps of 2 tasks."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import innerloop as il
from innerloop.engine.types import Params

MODEL = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
PARAMS, STATIC = eqx.partition(MODEL, eqx.is_inexact_array)


def predict(params: Params, inputs: jax.Array) -> jax.Array:
    """The model on a batch."""
    return jax.vmap(eqx.combine(params, STATIC))(inputs)


LOSS = il.mean_squared_error(predict)


def algorithm(rate: float = 0.01, steps: int = 2) -> il.Algorithm:
    """MAML on it."""
    return il.maml(LOSS, il.InnerLoop(optax.sgd(rate), steps=steps))


SCHEDULE: dict[str, Any] = {"meta_batch": 2, "meta_steps": 12, "log_every": 2, "checkpoint_every": 4}
VALIDATION: dict[str, Any] = {"validation": il.Sinusoid(), "validate_every": 6, "validation_tasks": 4}


def fitted(folder: Path, **changes: Any):
    """The run, with other arguments where they are given."""
    own = {"algorithm": algorithm(), "params": PARAMS, "tasks": il.Sinusoid(), "optimizer": optax.adam(1e-2)}
    return il.fit(**(own | SCHEDULE | VALIDATION | {"folder": folder, "progress": False} | changes))


def same_bits(a: Params, b: Params) -> None:
    """Two trees are equal to the bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def same_run(folder: Path, other: Path) -> None:
    """Weights to the bit, those of the best validation too, and metrics to the letter."""
    for which in ("final", "best"):
        same_bits(il.load_params(folder, PARAMS, which), il.load_params(other, PARAMS, which))
    assert (folder / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


class Score:
    """Scores of tasks: what a test wants of a validation by its number, whatever the model does."""

    def __init__(self, *values: float):
        self.values = jnp.asarray(values)
