"""`python -m tests.faults.fit_child FOLDER`: a script of a user's own, to be killed and started again unchanged."""

import sys
from typing import Any

import equinox as eqx
import jax
import optax

import innerloop as il
from innerloop.engine.types import Params
from innerloop.training.interruption.signals import Stopped

PARAMS, STATIC = eqx.partition(eqx.nn.MLP(1, 1, 8, 1, key=jax.random.key(3)), eqx.is_inexact_array)


def predict(params: Params, inputs: jax.Array) -> jax.Array:
    return jax.vmap(eqx.combine(params, STATIC))(inputs)


SETTINGS: dict[str, Any] = {
    "optimizer": optax.adam(optax.cosine_decay_schedule(1e-2, 400)),
    "meta_batch": 4,
    "meta_steps": 400,
    "log_every": 4,
    "checkpoint_every": 8,
    "validation": il.Sinusoid(),
    "validate_every": 20,
    "validation_tasks": 8,
    "seed": 5,
}


def main() -> int:
    algorithm = il.maml(il.mean_squared_error(predict), il.InnerLoop(optax.sgd(0.02), steps=2))
    try:
        il.fit(algorithm, PARAMS, il.Sinusoid(), folder=sys.argv[1], resume=True, **SETTINGS)
    except Stopped as stopped:
        return 128 + stopped.signal_number
    return 0


if __name__ == "__main__":
    sys.exit(main())
