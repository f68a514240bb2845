"""A NaN in one task of one meta-step is found there: task, inner step, layer; the last good state stays."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms.maml import MAML
from innerloop.config.schema import Config
from innerloop.engine.diagnosis import Diverged, Place
from innerloop.engine.meta_state import MetaState, copy_to_host, restore_to_device
from innerloop.engine.outer.outer_loop import OuterLoop, StepInfo
from innerloop.engine.outer.task_draws import task_keys
from innerloop.engine.types import Batch, LossFn, Task, TaskDistribution
from innerloop.errors import InnerloopError
from innerloop.training.diagnosis import nan_diagnosis
from innerloop.training.experiments.build import build
from innerloop.training.experiments.experiment import Experiment
from innerloop.training.experiments.supervised import SupervisedExperiment, supervised
from innerloop.training.storage import checkpoint, checkpoint_manager
from innerloop.training.train import train

STEP, TASK = 5, 1


class Poisoned(eqx.Module):
    """Sinusoids, of which one task, known by its key, is spoilt."""

    clean: TaskDistribution = eqx.field(static=True)
    key: jax.Array
    field: str = eqx.field(static=True)
    value: float = eqx.field(static=True)

    def sample(self, key: jax.Array) -> Task:
        task = self.clean.sample(key)
        hit = (jax.random.key_data(key) == self.key).all()
        part, name = self.field.split(".")
        batch: Batch = getattr(task, part)
        values = getattr(batch, name)
        spoilt = batch._replace(**{name: jnp.where(hit, values.at[0].set(self.value), values)})
        return task._replace(**{part: spoilt})


def poison(monkeypatch: pytest.MonkeyPatch, config: Config, field: str, value: float) -> None:
    key = task_keys(build(config).keys().tasks, jnp.asarray(STEP), config.outer.meta_batch)[TASK]
    clean: Any = SupervisedExperiment.train_tasks
    spoilt = lambda self: Poisoned(clean(self), jax.random.key_data(key), field, value)
    monkeypatch.setattr(SupervisedExperiment, "train_tasks", spoilt)


def fresh(experiment: Experiment) -> MetaState:
    return experiment.outer_loop().start(experiment.init_params(), experiment.keys().tasks)


def found(config: Config, scale: float = 1.0) -> str:
    """Where the meta-step goes wrong, from initial parameters made larger."""
    experiment = build(config)
    state = fresh(experiment)
    large = jax.tree.map(lambda x: x * scale, state.params)
    state = state._replace(params=large, step=jnp.asarray(STEP, jnp.int32))
    loop = experiment.outer_loop()
    place = loop.locate(copy_to_host(state), 0, nan_diagnosis.outputs_by_layer)
    return "" if place is None else place.text


CASES: list[tuple[Any, str, float, str]] = [
    ("maml", "support.targets", np.nan, "inner step 0 of task 1 .*, in its data"),
    ("maml", "query.targets", np.nan, "the query loss or its gradient of task 1 .*, in its data"),
    ("maml", "support.inputs", 3e38, "inner step 0 of task 1 .*, at the output of layer `hidden1`"),
    ("reptile", "support.targets", 1e30, "inner step 0 of task 1 .*, at the loss"),
    ("joint", "query.inputs", 3e38, "the query loss .* of task 1 .*, at the output of layer `hidden1`"),
]


@pytest.mark.parametrize(("algorithm", "field", "value", "where"), CASES)
def test_diagnosis_names_poisoned_task(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, algorithm: Any, field: str, value: float, where: str
):
    config = replace(tiny, algorithm=algorithm, inner=replace(tiny.inner, steps=2))
    poison(monkeypatch, config, field, value)
    assert re.search(where, found(config, scale=4.0))


def test_diagnosis_names_parameter_with_nan_gradient(tiny: Config, monkeypatch: pytest.MonkeyPatch):
    """The loss stays finite: sqrt has no derivative at zero."""
    kept: LossFn = supervised(build(tiny)).loss_fn
    spoilt = lambda params, batch: kept(params, batch) + jnp.sqrt(0 * params.body[0].weight.sum())
    monkeypatch.setattr(SupervisedExperiment, "loss_fn", property(lambda self: spoilt))
    assert re.search("inner step 0 of task 0 .*, at the gradient of `body/0/weight`", found(tiny))


def test_diagnosis_of_finite_run_is_empty(tiny: Config):
    assert found(tiny) == ""


def test_failing_diagnosis_returns_none(tiny: Config):
    experiment = build(tiny)
    loop: Any = experiment.outer_loop()
    loop.tasks = None
    assert loop.locate(copy_to_host(fresh(experiment)), 0, nan_diagnosis.outputs_by_layer) is None


def test_nan_stops_run_and_keeps_last_good_checkpoint(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """In the middle of a dispatch; the checkpoint before it is whole, and the run goes on from there once cured."""
    config = replace(tiny, outer=replace(tiny.outer, log_every=4))
    with monkeypatch.context() as patch:
        poison(patch, config, "query.targets", np.nan)
        wanted = f"meta-step {STEP + 1}, in the query loss or its gradient of task {TASK} of the meta-batch"
        with pytest.raises(InnerloopError, match=wanted):
            train(config, tmp_path / "run")
    manager = checkpoint_manager.manager(tmp_path / "run" / "checkpoints")
    kept = checkpoint.restore(manager, fresh(build(config)))
    manager.close()
    assert kept is not None
    assert int(kept.step) == 4
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(kept.params))
    assert train(None, tmp_path / "run", resume=True).facts["meta_steps"] == 12


def test_outer_update_overflow_raises_before_checkpoint(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Loss and gradient are finite, the parameters after the step are not."""
    monkeypatch.setattr(SupervisedExperiment, "optimizer", property(lambda self: optax.sgd(3e38)))
    config = replace(tiny, outer=replace(tiny.outer, log_every=1, checkpoint_every=1))
    with pytest.raises(Diverged, match="meta-step 1, in the outer update of `body/0/weight`"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_copy_to_host_round_trips_state(tiny: Config):
    state = fresh(build(tiny))
    raw = lambda state: state._replace(key=jax.random.key_data(state.key))
    back = restore_to_device(copy_to_host(state))
    jax.tree.map(np.testing.assert_array_equal, raw(back), raw(state))


class EarlyOnly(MAML):
    """Its meta-gradient is lost in the first updates alone."""

    def at(self, step: jax.Array) -> "EarlyOnly":
        return replace(self, outer_loss_fn=lambda p, b: self.loss_fn(p, b) / jnp.where(step < STEP, 0, 1))


def test_diagnosis_uses_algorithm_at_failing_step(tiny: Config):
    """What follows a schedule over updates is taken apart as it was then."""
    experiment = supervised(build(tiny))
    algorithm = EarlyOnly(experiment.loss_fn, experiment.algorithm.inner)
    state, tasks = fresh(experiment), experiment.train_tasks()
    loop = OuterLoop(algorithm, experiment.optimizer, tasks, meta_batch=2)
    at = lambda step: copy_to_host(state._replace(step=jnp.asarray(step, jnp.int32)))
    found = [loop.locate(at(step), 0) for step in (STEP - 1, STEP)]
    assert found[0] is not None
    assert "the query loss or its gradient of task 0" in found[0].text
    assert found[1] is None


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        (Place("data", "in its data"), "check that task's data"),
        (Place("computation", "at the output of layer `its data`"), "lower `inner.learning_rate`"),
        (Place("parameters", "the parameters"), "check the parameters that were given, or lower `outer"),
        (None, "lower `inner.learning_rate` or `outer.learning_rate`"),
    ],
)
def test_error_hint_depends_on_kind_of_place(tmp_path: Path, place: Place | None, hint: str):
    """And what is told is the number that is not finite: here the norm of the third meta-gradient."""
    losses = jnp.arange(3.0)
    info = StepInfo(losses, losses[:, None], jnp.array([1, 1, jnp.inf]))
    block = nan_diagnosis.Block(10, tmp_path, {}, lambda good: place)
    with pytest.raises(InnerloopError) as error:
        nan_diagnosis.check_finite(info, block)
    told = str(error.value)
    assert f"meta-step 10, in {place.text if place else 'the query loss'}" in told
    assert f"got a meta-gradient of norm inf; {hint}" in told
