"""The neural networks: one for all groups, the same fine-tuned, MAML and ANIL; one architecture, one training."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import innerloop as il
from benchmarks.tables.baselines import Predict, chosen, errors
from benchmarks.tables.families import Fold
from innerloop.nn.losses import call

UPDATES, BLOCK = 1500, 150
"""Outer updates of a training, and between two validations; the best initialisation is kept."""
RATES = (0.03, 0.1)
"""Inner step sizes, of which validation chooses one."""
STEPS = 5
MOST = 5
"""Examples of a task in training: 1 to this many."""


class AnyShots(eqx.Module):
    """Training tasks with a random number of examples, so that one initialisation serves 1 to 5."""

    groups: il.tables.GroupTasks

    def sample(self, key: jax.Array) -> il.Task:
        """Draw a task and hide some of its examples."""
        own, number = jax.random.split(key)
        support, query = self.groups.sample(own)
        seen = jnp.arange(len(support.targets)) < jax.random.randint(number, (), 1, MOST + 1)
        mask = seen if support.mask is None else seen & support.mask
        return il.Task(support._replace(mask=mask), query)


def _algorithm(make: Callable[..., Any], rate: float) -> il.Algorithm:
    return make(il.mean_squared_error(), il.InnerLoop(optax.sgd(rate), steps=STEPS))


def _predictions(algorithm: il.Algorithm, params: Any, steps: int = STEPS) -> Predict:
    """Adapts to the examples of each task, and predicts its queries."""
    algorithm = algorithm.with_inner(steps=steps)
    one = lambda params, task: call(algorithm.adapt(params, task.support), task.query.inputs)[:, 0]
    run = jax.jit(jax.vmap(one, (None, 0)))
    return lambda tasks, k: np.asarray(run(params, tasks))


def _trained(fold: Fold, algorithm: il.Algorithm, steps: int) -> Any:
    """The initialisation that is best on the validation groups, of those after each block of a training."""
    tasks = AnyShots(fold.table.train.draws(MOST, 64))
    schedule = optax.cosine_decay_schedule(2e-3, UPDATES)
    loop = il.OuterLoop(algorithm, optax.chain(optax.clip(1.0), optax.adam(schedule)), tasks, meta_batch=16)
    model = il.MLP(
        fold.table.preparation.features, 1, hidden=(32, 32), activation="tanh", key=jax.random.key(0)
    )
    state, kept = loop.init(model, jax.random.key(1)), []
    score = _validation(fold, algorithm, steps)
    for _ in range(UPDATES // BLOCK):
        state, _ = loop.run(state, BLOCK)
        kept.append((score(state.params), jax.device_get(state.params)))
    return min(kept, key=lambda pair: pair[0])[1]


def _validation(fold: Fold, algorithm: il.Algorithm, steps: int) -> Callable[[Any], float]:
    """The mean error over validation tasks of all numbers of examples."""
    algorithm = algorithm.with_inner(steps=steps)
    one = lambda params, task: call(algorithm.adapt(params, task.support), task.query.inputs)[:, 0]
    run = jax.jit(jax.vmap(one, (None, 0)))
    return lambda params: float(
        np.mean([errors(tasks, np.asarray(run(params, tasks))).mean() for tasks in fold.validation.values()])
    )


def meta_learned(make: Callable[..., Any]) -> Callable[[Fold], Predict]:
    """MAML or ANIL, with the step size that is best on the validation groups."""

    def fit(fold: Fold) -> Predict:
        algorithms = [_algorithm(make, rate) for rate in RATES]
        return chosen(fold, [_predictions(a, _trained(fold, a, STEPS)) for a in algorithms])

    return fit


def pooled_and_tuned(fold: Fold) -> tuple[Predict, Predict]:
    """One network for all groups, as it is and fine-tuned on the examples of a group."""
    algorithm = _algorithm(il.joint, RATES[0])
    params = _trained(fold, algorithm, 0)
    tuned = [_predictions(_algorithm(il.joint, rate), params) for rate in (0.003, 0.01, *RATES)]
    return _predictions(algorithm, params, 0), chosen(fold, tuned)
