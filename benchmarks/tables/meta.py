"""The neural networks: pooled over groups, pooled and fine-tuned, MAML and ANIL, with one architecture and schedule."""

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

UPDATES, BLOCK = 1000, 100
"""Outer updates in total and between validations; training keeps the best initialisation."""
RATES = (0.03, 0.1)
"""Candidate inner step sizes, chosen by validation."""
STEPS = 5
MOST = 5
"""Most examples per task in training."""


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


def _adapted(algorithm: il.Algorithm, steps: int = STEPS) -> Callable[[Any, Any], np.ndarray]:
    """`run(params, tasks)` adapts to each task's examples and predicts its queries: `[tasks, query]`."""
    algorithm = algorithm.with_inner(steps=steps)
    one = lambda params, task: call(algorithm.adapt(params, task.support), task.query.inputs)[:, 0]
    run = jax.jit(jax.vmap(one, (None, 0)))
    return lambda params, tasks: np.asarray(run(params, tasks))


def _predict(run: Callable[[Any, Any], np.ndarray], params: Any) -> Predict:
    return lambda tasks, k: run(params, tasks)


def _trained(fold: Fold, algorithm: il.Algorithm, run: Callable[[Any, Any], np.ndarray]) -> Any:
    """Train, and return the initialisation that is best on the validation groups, checked after each block."""
    tasks = AnyShots(fold.table.train.draws(MOST, 64))
    schedule = optax.cosine_decay_schedule(2e-3, UPDATES)
    loop = il.OuterLoop(algorithm, optax.chain(optax.clip(1.0), optax.adam(schedule)), tasks, meta_batch=16)
    model = il.MLP(
        fold.table.preparation.features, 1, hidden=(32, 32), activation="tanh", key=jax.random.key(0)
    )
    state, kept = loop.init(model, jax.random.key(1)), []
    score = lambda params: np.mean([errors(t, run(params, t)).mean() for t in fold.validation.values()])
    for _ in range(UPDATES // BLOCK):
        state, _ = loop.run(state, BLOCK)
        kept.append((score(state.params), jax.device_get(state.params)))
    return min(kept, key=lambda pair: pair[0])[1]


def meta_learned(make: Callable[..., Any]) -> Callable[[Fold], Predict]:
    """MAML or ANIL with the step size that is best on the validation groups."""

    def fit(fold: Fold) -> Predict:
        algorithms = [_algorithm(make, rate) for rate in RATES]
        runs = [_adapted(algorithm) for algorithm in algorithms]
        trained = [_trained(fold, algorithm, run) for algorithm, run in zip(algorithms, runs, strict=True)]
        return chosen(fold, map(_predict, runs, trained))

    return fit


def pooled_and_tuned(fold: Fold) -> tuple[Predict, Predict]:
    """One network for all groups, without and with fine-tuning on a group's examples."""
    algorithm = _algorithm(il.joint, RATES[0])
    as_it_is = _adapted(algorithm, 0)
    params = _trained(fold, algorithm, as_it_is)
    tuned = [_predict(_adapted(_algorithm(il.joint, rate)), params) for rate in (0.01, *RATES)]
    return _predict(as_it_is, params), chosen(fold, tuned)
