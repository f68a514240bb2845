"""`innerloop.fit`: the run of a model that no config describes, in a folder."""

import inspect
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import types
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_cases import LOSS, PARAMS, SCHEDULE, VALIDATION, algorithm, fitted, same_bits, same_run

import innerloop as il
from innerloop.engine.inner import inner_loop as inner
from innerloop.engine.meta_state import MetaState
from innerloop.errors import InnerloopError
from innerloop.parallel.mesh import task_mesh
from innerloop.training.custom.best_validation import Best, BestRule
from innerloop.training.custom.fit_programs import program_digest
from innerloop.training.custom.fit_recorder import best_so_far
from innerloop.training.custom.run_in_folder import Fitted
from innerloop.training.interruption.signals import Stopped
from innerloop.training.progress import progress_line
from innerloop.training.progress.progress import Progress
from innerloop.training.storage import checkpoint_manager, own_weights
from innerloop.training.storage.run_directory import RunFile, RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    return fitted(tmp_path_factory.mktemp("runs") / "whole").folder


class Seen(il.Callback):
    """Keeps what it is told, and does something at one meta-step."""

    def __init__(self, at: int = 0, do=lambda: None):
        self.at, self.do = at, do
        self.told: list[Any] = []

    def on_start(self, folder: Path, settings: dict[str, Any], step: int) -> None:
        self.told.append(("start", folder.name, settings["meta_batch"], step))

    def on_block(self, progress: Progress) -> bool | None:
        self.told.append(progress.step)
        self.params = jax.device_get(progress.params)
        return self.do() if progress.step == self.at else None

    def on_end(self, error: BaseException | None) -> None:
        self.told.append(error if error is None else type(error).__name__)


def test_fit_matches_outer_loop_bitwise(whole: Path):
    loop = il.OuterLoop(algorithm(), optax.adam(1e-2), il.Sinusoid(), meta_batch=2)
    state, info = loop.run(loop.init(PARAMS, jax.random.key(0)), 12, max_steps=2)
    same_bits(il.load_params(whole, PARAMS), state.params)
    logged = [record["outer_loss"] for record in RunFolder(whole).metrics()]
    np.testing.assert_allclose(logged, np.asarray(info.outer_loss).reshape(-1, 2).mean(1), rtol=1e-6)


def test_fit_writes_metrics_checkpoints_and_environment(whole: Path):
    run = RunFolder(whole)
    records = run.metrics()
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    assert [r["step"] for r in records if r.keys() >= {"validation_loss", "validation_diverged"}] == [6, 12]
    assert {"outer_loss", "grad_norm", "inner_loss_first"} <= set(records[0])
    assert sorted(int(path.name) for path in run.checkpoints.iterdir()) == [4, 8, 12]
    assert list((whole / "tensorboard").iterdir())
    assert {"packages", "devices"} <= set(run.known())


def test_validation_loss_matches_evaluate(whole: Path):
    from innerloop.training.experiments.experiment import held_out_key

    key = held_out_key(0, "validation")
    curve = il.evaluate(algorithm(), il.load_params(whole, PARAMS), il.Sinusoid(), key=key, num_tasks=4)
    assert RunFolder(whole).metrics()[-1]["validation_loss"] == pytest.approx(
        curve.mean("loss")[-1], rel=1e-5
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_resumes_bitwise(whole: Path, tmp_path: Path, number: int):
    """Stopped at step 6, which is no checkpoint of its own."""
    stop = Seen(6, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped, match="stopped at meta-step 6; state saved; continue with `resume`"):
        fitted(tmp_path / "run", callbacks=[stop])
    assert stop.told == [("start", "run", 2, 0), 2, 4, 6, "Stopped"]
    seen = Seen()
    result = fitted(tmp_path / "run", callbacks=[seen], resume=True)
    assert seen.told == [("start", "run", 2, 6), 8, 10, 12, None]
    same_run(tmp_path / "run", whole)
    same_bits(result.params, il.load_params(whole, PARAMS))
    same_bits(result.best_params, il.load_params(whole, PARAMS, "best"))


def test_callback_error_is_raised_after_state_is_saved(whole: Path, tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "run", callbacks=[Seen(6, lambda: 1 // 0)])
    assert checkpoint_manager.manager(tmp_path / "run" / "checkpoints").latest_step() == 6
    fitted(tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole)


class Ending(il.Callback):
    """Says something at the end."""

    def __init__(self, say: Callable[[], Any]):
        self.say = say

    def on_end(self, error: BaseException | None) -> None:
        return self.say()


def test_on_end_callback_does_not_hide_training_error(tmp_path: Path):
    fails, truthy = Seen(2, lambda: 1 // 0), inspect.unwrap(Ending.on_end)
    ending = type("True", (Ending,), {"on_end": truthy})(lambda: True)
    plain: dict[str, Any] = {"validation": None, "meta_steps": 2}
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "truthy", **plain, callbacks=[fails, ending])
    raising = Ending(lambda: [][0])
    with (
        pytest.warns(UserWarning, match=r"`Ending.on_end` raised IndexError \(list index"),
        pytest.raises(ZeroDivisionError),
    ):
        fitted(tmp_path / "raising", **plain, callbacks=[fails, raising])
    with pytest.raises(IndexError):
        fitted(tmp_path / "alone", **plain, callbacks=[raising])


def test_error_in_on_start_leaves_no_folder(tmp_path: Path):
    class Offline(il.Callback):
        def on_start(self, folder: Path, settings: dict[str, Any], step: int) -> None:
            raise OSError("offline")

    with pytest.raises(OSError, match="offline"):
        fitted(tmp_path / "run", callbacks=[Offline()])
    assert not (tmp_path / "run").exists()


def test_callback_returning_true_ends_run_and_saves_weights(whole: Path, tmp_path: Path):
    seen = Seen(4, lambda: True)
    result = fitted(tmp_path / "run", callbacks=[seen])
    assert (int(result.state.step), seen.told[1:]) == (4, [2, 4, None])
    same_bits(il.load_params(tmp_path / "run", PARAMS), result.params)
    same_bits(seen.params, result.params)
    fitted(tmp_path / "run", resume=True)
    same_run(tmp_path / "run", whole)


def test_resume_starts_new_run_or_extends_existing_one(whole: Path, tmp_path: Path):
    fitted(tmp_path / "run", meta_steps=8, resume=True)
    fitted(tmp_path / "run", checkpoint_every=6, patience=9, resume=True)
    same_bits(il.load_params(tmp_path / "run", PARAMS), il.load_params(whole, PARAMS))
    with pytest.raises(InnerloopError, match="meta_steps: .* already taken 12 meta-steps, got 11; give"):
        fitted(tmp_path / "run", meta_steps=11, resume=True)


class Shifted:
    """A user's own distribution, with an array."""

    def __init__(self, shift: float):
        self.shift = np.full(3, shift, np.float32)

    def sample(self, key: jax.Array) -> il.Task:
        x = jax.random.normal(key, (2, 3, 1))
        return il.Task(*(il.Batch(each, each + self.shift[0]) for each in x))


CLIPPED = il.maml(LOSS, il.InnerLoop(optax.chain(optax.clip(0.5), optax.sgd(0.01)), steps=2))
"""The same settings as those of `algorithm()`, and another program."""

CHANGES: dict[str, dict[str, Any]] = {
    r"had `seed` 0, got 1": {"seed": 1},
    r"had `meta_batch` 2, got 4": {"meta_batch": 4},
    r"had `inner_steps` 2, got 3": {"algorithm": algorithm(steps=3)},
    r"had `algorithm` MAML, got FOMAML": {
        "algorithm": il.fomaml(LOSS, il.InnerLoop(optax.sgd(0.01), steps=2))
    },
    r"had `algorithm` MAML, got ANIL": {
        "algorithm": il.anil(LOSS, il.InnerLoop(optax.sgd(0.01), steps=2), head="layers/0")
    },
    r"had `inner_step_size` 0.01, got 0.02": {"algorithm": algorithm(rate=0.02)},
    r"the algorithm, its loss or its inner loop changed": {"algorithm": CLIPPED},
    r"the optimizer or one of its step sizes changed": {"optimizer": optax.adam(2e-2)},
    r"had `optimizer.0/count` int32\[\], got nothing": {"optimizer": optax.sgd(1e-2)},
    r"had `parameters.layers/0/weight` float32\[4, 1\], got nothing": {
        "params": il.MLP(1, 1, hidden=(4,), key=jax.random.key(0)),
        "algorithm": il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.01), steps=2)),
    },
    r"had no `chunk`, got 1": {"chunk": 1},
    r"had no `mesh`, got \{'tasks': 1\}": {"mesh": task_mesh(1)},
    r"the tasks or their data changed": {"tasks": Shifted(2.0)},
    r"the validation tasks or their data changed": {"validation": Shifted(2.0)},
    r"had `validate_every` 6, got 4": {"validate_every": 4},
    r"had `validate_every` 6, got nothing": {"validation": None},
}


@pytest.mark.parametrize("told", CHANGES)
def test_resume_with_changed_settings_raises(told: str, tmp_path: Path, begun: Path):
    shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(
        InnerloopError, match=f"^resume: .*{told}.*; use the original settings, or another folder"
    ):
        fitted(tmp_path / "run", **(OWN_TASKS | CHANGES[told]), resume=True)


OWN_TASKS: dict[str, Any] = {"tasks": Shifted(1.0), "validation": Shifted(1.0)}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tasks of a user's own."""
    return fitted(tmp_path_factory.mktemp("runs") / "begun", meta_steps=2, **OWN_TASKS).folder


def test_resume_accepts_equal_rebuilt_arguments(begun: Path, tmp_path: Path):
    shutil.copytree(begun, tmp_path / "run")
    again: dict[str, Any] = {"tasks": Shifted(1.0), "validation": Shifted(1.0), "algorithm": algorithm()}
    assert int(fitted(tmp_path / "run", meta_steps=4, resume=True, **again).state.step) == 4


def test_resume_in_new_environment_allows_unknown_step_size(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is read from what Optax keeps to itself."""
    shutil.copytree(begun, tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"python": "another"}))
    monkeypatch.setattr(inner, "step_size_of", lambda rule: None)
    with pytest.warns(UserWarning, match="in another environment"):
        fitted(tmp_path / "run", **OWN_TASKS, meta_steps=2, resume=True)


def test_changed_processor_does_not_hide_changed_algorithm(begun: Path, tmp_path: Path):
    shutil.copytree(begun, tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor": "another", "commit": "another"}))
    with pytest.raises(InnerloopError, match="the algorithm, its loss or its inner loop changed"):
        fitted(tmp_path / "run", **OWN_TASKS, algorithm=CLIPPED, resume=True)


def test_fit_and_train_runs_are_not_interchangeable(whole: Path, finished: Path, tmp_path: Path):
    """Those of the command, and the other way round."""
    with pytest.raises(
        InnerloopError, match="already holds a run of `innerloop.fit` or `fit_policy`; .*`resume=True`"
    ):
        fitted(whole)
    with pytest.raises(InnerloopError, match="already holds a run;.*innerloop train --resume"):
        fitted(finished, resume=True)
    for source in (whole, whole / "weights.safetensors"):
        with pytest.raises(
            InnerloopError, match=r"of `innerloop.fit`.*`innerloop.load_params\(folder, like=params\)`"
        ):
            il.load_trained(source)
    with pytest.raises(InnerloopError, match="not a run of `innerloop.fit` .*innerloop.load_trained"):
        il.load_params(finished, PARAMS)
    with pytest.raises(InnerloopError, match="weights of a preset.*innerloop.load_trained"):
        il.load_params(finished / "weights.safetensors", PARAMS)
    with pytest.raises(InnerloopError, match=r"belongs to another model: .* pass as `like` the parameters"):
        il.load_params(whole, {"other": jnp.zeros(3)})


def test_load_params_without_saved_weights_raises(whole: Path, tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "run", validation=None, callbacks=[Seen(2, lambda: 1 // 0)])
    with pytest.raises(InnerloopError, match="the run has not ended; continue it with"):
        il.load_params(tmp_path / "run", PARAMS)
    with pytest.raises(InnerloopError, match="the run has had no validation; give `validation`"):
        il.load_params(tmp_path / "run", PARAMS, "best")


def drifting(params: Any, task: il.Task) -> dict[str, jax.Array]:
    """A score that falls until the parameters have come so far from the first ones, and rises from there on."""
    moved = jax.tree.map(jnp.subtract, params, PARAMS)
    return {"distance": jnp.abs(optax.global_norm(moved) - 0.6)}


def test_patience_stops_run_and_keeps_best_weights(tmp_path: Path):
    own: dict[str, Any] = {"score": drifting, "mode": "min", "validate_every": 2, "meta_steps": 40}
    long = fitted(tmp_path / "long", **own)
    scores = {r["step"]: r["validation_distance"] for r in long.metrics}
    best = min(scores, key=scores.__getitem__)
    assert 2 < best < 30
    assert long.best_step == best
    short = fitted(tmp_path / "short", **own, patience=3)
    assert (int(short.state.step), short.best_step) == (best + 6, best)
    same_bits(short.best_params, long.best_params)
    assert short.metrics == long.metrics[: len(short.metrics)]
    again = fitted(tmp_path / "short", **own, patience=3, resume=True)
    assert int(again.state.step) == best + 6  # it had ended
    interrupted = Seen(best + 4, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "cut", **own, patience=3, callbacks=[interrupted])
    cut = fitted(tmp_path / "cut", **own, patience=3, resume=True)
    assert int(cut.state.step) == best + 6
    same_bits(cut.params, short.params)


def test_best_weights_without_logged_step_are_ignored(tmp_path: Path):
    """Those of a later step than the last checkpoint's, of which a crash has left no line, are not taken for them."""
    own: dict[str, Any] = {"validate_every": 2, "checkpoint_every": 4}
    fitted(tmp_path / "run", **own, score=drifting, mode="min", meta_steps=4)
    later = fitted(tmp_path / "later", **own, score=drifting, mode="min", meta_steps=8)
    assert later.best_step == 8
    shutil.copy(tmp_path / "later" / "best.safetensors", tmp_path / "run")
    result = fitted(tmp_path / "run", **own, score=drifting, mode="min", meta_steps=4, resume=True)
    assert result.best_step is None
    same_bits(result.best_params, result.params)
    again = fitted(tmp_path / "run", **own, score=drifting, mode="min", meta_steps=8, resume=True)
    assert again.best_step == 8
    same_bits(again.best_params, later.best_params)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="best.safetensors is missing or cannot be read"):
        longer = fitted(tmp_path / "run", **own, score=drifting, mode="min", meta_steps=10, resume=True)
    assert longer.best_step == 10


def test_best_so_far_falls_back_when_best_weights_are_lost(tmp_path: Path):
    """Once better ones are lost, those after them are kept, when the run is resumed again too."""
    run, rule = RunFolder(tmp_path), BestRule("loss", "min")
    assert best_so_far(run, rule) == Best()
    for step, loss in enumerate((1.0, 3.0, 2.0, 4.0)):
        run.log({"step": step, "validation_loss": loss})
    with pytest.warns(UserWarning, match="is missing or .*: it held the weights of meta-step 0. The best"):
        assert best_so_far(run, rule) == Best()
    for written, found in ((0, Best(0, 1.0, 3)), (1, Best()), (2, Best(2, 2.0, 1)), (9, Best())):
        own_weights.save(run.best, {"w": jax.numpy.ones(1)}, {"meta_steps": written})
        assert best_so_far(run, rule) == found


def test_best_rule_depends_only_on_metrics():
    rule, nan = BestRule("accuracy", "max", patience=2), float("nan")
    values = {2: nan, 4: 0.5, 6: 0.7, 8: 0.7, 10: nan, 12: 0.8}
    records = [{"step": step, "validation_accuracy": value} for step, value in values.items()]
    assert rule.best_of(records[:1])._replace(value=0.0) == Best(None, 0.0, 1)
    assert rule.best_of(records[:3]) == Best(6, 0.7, 0)
    assert rule.best_of([*records[:5], {"step": 11}]) == Best(6, 0.7, 2)
    assert rule.best_of(records) == Best(12, 0.8, 0)
    assert [rule.exhausted(rule.best_of(records[:n])) for n in range(1, 7)] == [False] * 4 + [True, False]


def test_diverged_validation_tasks_are_counted_not_averaged(tmp_path: Path):
    """On inputs of a thousand the inner loop explodes."""

    class Scaled:
        def sample(self, key: jax.Array) -> il.Task:
            scale = jnp.where(jax.random.bernoulli(key), 1e3, 1.0)
            x = scale * jax.random.normal(key, (2, 3, 1))
            return il.Task(*(il.Batch(each, each) for each in x))

    result = fitted(tmp_path / "run", validation=Scaled(), validation_tasks=20, meta_steps=6)
    last = result.metrics[-1]
    assert 0 < last["validation_diverged"] < 20
    assert last["validation_loss"] < 100


def test_divergence_error_names_location(tmp_path: Path):
    with pytest.raises(
        il.Diverged, match=r"^fit: the run diverged at meta-step 1, in inner step \d+ of task 0 .*"
    ):
        fitted(tmp_path / "inner", algorithm=algorithm(rate=1e12, steps=9), validation=None)
    assert not (tmp_path / "inner").exists()
    with pytest.raises(
        InnerloopError, match=r"diverged at meta-step (\d+), in .*that of the optimizer; the last good"
    ):
        fitted(tmp_path / "outer", optimizer=optax.sgd(1e6), log_every=1, checkpoint_every=1, validation=None)
    overflow = optax.chain(optax.sgd(1.0), optax.scale(1e38), optax.scale(1e38))
    with pytest.raises(InnerloopError, match=r"diverged at meta-step 1, in the outer update of `layers/"):
        fitted(tmp_path / "update", optimizer=overflow, log_every=1, validation=None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"meta_steps": 0}, "`meta_steps` must be 1 or more, got 0"),
        ({"log_every": 0}, "`log_every` must be 1 or more"),
        ({"patience": 0}, "`patience` must be 1 or more"),
        ({"patience": 3, "validation": None}, "`patience` needs a validation"),
        ({"monitor": "accuracy"}, "`monitor` is unknown, got 'accuracy'; choose among: loss"),
        ({"score": drifting}, "`mode` is needed for the score `distance`"),
        ({"params": {"w": jnp.arange(3)}}, "parameter `w` is not a float array"),
        (
            {"params": {"w": jnp.array([1.0, jnp.nan])}},
            "parameter `w` holds NaN; give parameters without NaN",
        ),
        ({"params": {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}}, "two parameters share a path, got a/b"),
        ({"tasks": il.Sinusoid}, "fit: `tasks` must be a distribution of tasks"),
        ({"validation": il.Sinusoid}, "`validation` must be a distribution of tasks"),
        ({"mode": "min", "validation": None}, "`mode` needs a validation"),
        ({"score": drifting, "validation": None}, "`score` needs a validation"),
        ({"seed": 2**32}, r"`seed` must be 4294967295 or less"),
        ({"seed": -1}, "`seed` must be 0 or more"),
        ({"meta_batch": 0}, "`meta_batch` must be 1 or more, got 0"),
        (
            {"score": lambda params, task: {"f1": jnp.ones(()), "accuracy": jnp.ones(())}},
            "`monitor` is needed; choose among: accuracy, f1",
        ),
        ({"validation_tasks": 1}, "`validation_tasks` must be 2 or more"),
    ],
)
def test_invalid_arguments_raise_before_writing_files(changes: dict[str, Any], told: str, tmp_path: Path):
    with pytest.raises(InnerloopError, match=told):
        fitted(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"meta_steps": 7.0}, "`meta_steps` must be a whole number, got 7.0"),
        ({"log_every": 2.5}, "`log_every` must be a whole number"),
        ({"meta_batch": 4.0}, "`meta_batch` must be a whole number"),
        ({"seed": 1.5}, "`seed` must be a whole number"),
        ({"patience": 1.5}, "`patience` must be a whole number"),
        ({"chunk": "1"}, "`chunk` must be a whole number, got '1'"),
        ({"callbacks": Seen()}, "`callbacks` must be a list of callbacks, got <.*Seen object"),
        ({"callbacks": [Seen]}, "`callbacks` must be a list of callbacks, got <class .*Seen"),
        ({"callbacks": Seen}, "`callbacks` must be a list of callbacks, got <class .*Seen"),
    ],
)
def test_arguments_of_wrong_type_raise_clear_errors(changes: dict[str, Any], told: str, tmp_path: Path):
    own = {"algorithm": algorithm(), "params": PARAMS, "tasks": il.Sinusoid(), "optimizer": optax.adam(1e-2)}
    arguments = own | SCHEDULE | VALIDATION | {"folder": tmp_path / "run"} | changes
    with pytest.raises(InnerloopError, match=f"^fit: {told}"):
        inspect.unwrap(il.fit)(**arguments)
    assert not (tmp_path / "run").exists()


def waves(step: int) -> Iterator[il.Task]:
    """The meta-batches from a meta-step on."""
    for number in count(step):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(9), number), 2)
        yield jax.vmap(il.Sinusoid().sample)(keys)


@pytest.fixture(scope="module")
def waved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these meta-batches that was never interrupted."""
    return fitted(tmp_path_factory.mktemp("runs") / "waved", tasks=waves).folder


def test_meta_batches_from_step_function_resume_bitwise(waved: Path, tmp_path: Path):
    fitted(tmp_path / "iterator", tasks=waves(0))
    same_run(waved, tmp_path / "iterator")
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "run", tasks=waves, callbacks=[Seen(6, lambda: 1 // 0)])
    fitted(tmp_path / "run", tasks=waves, resume=True)
    same_run(tmp_path / "run", waved)
    with pytest.raises(
        InnerloopError, match=r"an iterator cannot be resumed exactly.*a function `tasks\(step\)`"
    ):
        fitted(tmp_path / "iterator", tasks=waves(0), meta_steps=14, resume=True)
    killed = RunFolder(tmp_path / "killed")  # before its first checkpoint
    killed.begin(RunFile.FIT, (tmp_path / "iterator" / RunFile.FIT).read_text())
    fitted(killed.path, tasks=waves(0), resume=True)
    same_run(killed.path, tmp_path / "iterator")


def test_exhausted_meta_batches_leave_resumable_checkpoint(waved: Path, tmp_path: Path):
    few = lambda step: islice(waves(step), max(7 - step, 0))
    with pytest.raises(InnerloopError, match="the iterator ended after"):
        fitted(tmp_path / "run", tasks=few, checkpoint_every=100)
    assert (checkpoint_manager.manager(tmp_path / "run" / "checkpoints").latest_step() or 0) >= 6
    fitted(tmp_path / "run", tasks=waves, resume=True)
    same_run(tmp_path / "run", waved)


def test_streamed_episodes_resume_bitwise(tmp_path: Path):
    rng = np.random.default_rng(0)
    classes = il.ClassArrays.from_lists(
        list(rng.integers(0, 255, (5, 6, 2, 2, 1)).astype(np.uint8)), list("abcde")
    )
    own: dict[str, Any] = {
        "algorithm": il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.1))),
        "params": il.MLP(4, 3, hidden=(4,), key=jax.random.key(0)),
        "validation": None,
    }
    streamed = lambda: il.StreamedEpisodes(classes, ways=3, shots=1, queries=2)
    on_device = fitted(tmp_path / "device", tasks=il.Episodes(classes, ways=3, shots=1, queries=2), **own)
    with pytest.raises(ZeroDivisionError):
        fitted(tmp_path / "run", tasks=streamed(), callbacks=[Seen(6, lambda: 1 // 0)], **own)
    result = fitted(tmp_path / "run", tasks=streamed(), resume=True, **own)
    for x, y in zip(jax.tree.leaves(result.params), jax.tree.leaves(on_device.params), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-4, atol=1e-6)
    whole = fitted(tmp_path / "whole", tasks=streamed(), **own)
    same_bits(result.params, whole.params)


def episodes(seed: int = 0, queries: int = 2) -> il.StreamedEpisodes:
    """Of five classes of six examples, from the host."""
    rng = np.random.default_rng(seed)
    classes = il.ClassArrays.from_lists(
        list(rng.integers(0, 255, (5, 6, 2, 2, 1)).astype(np.uint8)), list("abcde")
    )
    return il.StreamedEpisodes(classes, ways=3, shots=1, queries=queries)


def test_divergence_error_names_streamed_task(tmp_path: Path):
    classes = il.ClassArrays.from_lists(
        [np.full((6, 2, 2, 1), i, np.float32) for i in range(5)], list("abcde")
    )
    classes.examples[:] = np.nan  # a memory map is not checked when it is opened
    streamed = il.StreamedEpisodes(classes, ways=3, shots=1, queries=2)
    wanted = (
        "fit: the run diverged at meta-step 1, in inner step 0 of task 0 of the meta-batch .*, in its data"
        ".*; check that task's data"
    )
    with pytest.raises(InnerloopError, match=wanted):
        fitted(tmp_path / "run", **(STREAMED | {"tasks": streamed}))


def louder(step: int) -> Iterator[il.Task]:
    """Other meta-batches, of the same shapes."""
    return (jax.tree.map(lambda x: 2 * x, task) for task in waves(step))


STREAMED: dict[str, Any] = {
    "tasks": episodes(),
    "algorithm": il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.1))),
    "params": il.MLP(4, 3, hidden=(4,), key=jax.random.key(0)),
    "validation": None,
}


@pytest.mark.parametrize(
    ("own", "changes"),
    [
        (
            STREAMED,
            [
                ({"tasks": episodes(1)}, "the tasks or their data"),
                ({"tasks": episodes(queries=3)}, "the tasks or their data"),
                (
                    {"algorithm": il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.2)))},
                    "had `inner_step_size` 0.1, got 0.2",
                ),
            ],
        ),
        (
            {"tasks": waves},
            [
                ({"tasks": louder}, "the tasks or their data"),
                ({"algorithm": CLIPPED}, "the algorithm"),
                ({"tasks": il.Sinusoid()}, "had `tasks` meta-batches, got a distribution"),
            ],
        ),
        (
            {"optimizer": optax.inject_hyperparams(optax.adam)(1e-2)},
            [
                (
                    {"optimizer": optax.inject_hyperparams(optax.adam)(2e-2)},
                    "the optimizer or one of its step sizes",
                )
            ],
        ),
    ],
    ids=["streamed", "meta-batches", "hyperparameters"],
)
def test_resume_compares_contents_of_tasks_and_optimizer(
    own: dict[str, Any], changes: list[tuple[dict[str, Any], str]], tmp_path: Path
):
    fitted(tmp_path / "run", meta_steps=2, **own)
    for change, told in changes:
        with pytest.raises(InnerloopError, match=f"^resume: .*{told}"):
            fitted(tmp_path / "run", **(own | change), resume=True)
    assert int(fitted(tmp_path / "run", **own, meta_steps=4, resume=True).state.step) == 4


def test_program_digest_ignores_names_and_earlier_traces():
    """JAX's text of a program holds a function once if it was traced once, and names it."""

    def renamed(x: jax.Array) -> jax.Array:
        return x % 3

    first, second, other = jax.jit(lambda x: x % 3), jax.jit(renamed), jax.jit(lambda x: x % 4)
    both = lambda a, b: program_digest(lambda x: a(x) + b(x), jnp.ones(2))
    assert both(first, first) == both(first, second) != both(first, other)


def test_validation_uses_each_task_of_list_once(tmp_path: Path):
    tasks = [il.Sinusoid().sample(jax.random.key(i)) for i in range(3)]
    result = fitted(
        tmp_path / "run", tasks=il.TaskList(tasks), validation=il.TaskList(tasks), validation_tasks=200
    )
    curve = il.evaluate(algorithm(), result.params, il.TaskList(tasks), key=jax.random.key(5))
    assert result.metrics[-1]["validation_loss"] == pytest.approx(curve.mean("loss")[-1], rel=1e-5)


def test_long_run_prints_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress_line, "QUIET", 1e9)
    fitted(tmp_path / "run", progress=True, meta_steps=6)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_line, "QUIET", 0.0)
    monkeypatch.setattr(progress_line.LiveLine, "seconds", 0.0)
    fitted(tmp_path / "run", progress=True, meta_steps=12, resume=True)
    compiling, first, _, last = capsys.readouterr().err.splitlines()
    assert compiling == "fit: compiling"
    assert re.fullmatch(r"fit: 8/12 meta-steps, estimating the time left  outer loss \d+\.\d{4}", first)
    assert re.fullmatch(
        r"fit: 12/12 meta-steps, done  [\d ]+ tasks/s  outer loss \d+\.\d{4}  validation loss \d+\.\d{4}",
        last,
    )


def test_progress_line_is_overwritten_in_terminal(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress_line, "QUIET", 0.0)
    line = progress_line.ProgressLine()
    line.on_start(Path("run"), {}, 0)
    line.timer.join()
    for step in (1, 2):
        line.on_block(Progress(step, 2, 100.0, 60.0 * (2 - step), {"outer_loss": 1.0, "train_x\x1b": 2.0}))
    line.on_end(None)
    begin, told = "\r\x1b[K", r"100 tasks/s  outer loss 1.0000  training x\x1b 2"
    first, second = "1/2 meta-steps, 1 min 00 s left", "2/2 meta-steps, done"
    shown = f"{begin}fit: compiling{begin}fit: {first}  {told}{begin}fit: {second}  {told}\n"
    assert screen.getvalue() == shown


def test_progress_updates_single_notebook_display(monkeypatch: pytest.MonkeyPatch):
    """As nbclient and saved notebooks keep it: a single output, in its last state."""
    shown: list[list[str]] = []

    class Handle:
        def update(self, content: dict[str, str], *, raw: bool) -> None:
            shown[-1].append(content["text/plain"])

    def display(content: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        shown.append([content["text/plain"]])
        return Handle()

    shell = types.SimpleNamespace(kernel=object())
    module = types.SimpleNamespace(get_ipython=lambda: shell, display=types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress_line, "QUIET", 0.0)
    monkeypatch.setattr(progress_line.time, "monotonic", itertools.count(0.0, 0.05).__next__)
    for _ in range(2):
        line = progress_line.ProgressLine()
        line.on_start(Path("run"), {}, 0)
        line.timer.join()
        for step in range(1, 101):
            line.on_block(Progress(step, 100, 100.0, 1.0, {"outer_loss": 1.0}))
        line.on_end(None)
    assert [lines[0] for lines in shown] == 2 * ["fit: compiling"]  # two runs, two lines
    assert all("100/100 meta-steps, done" in lines[-1] for lines in shown)
    assert all(20 <= len(lines) <= 30 for lines in shown)  # five a second of clock time at most
    assert sys.stderr.getvalue() == ""  # pyright: ignore[reportAttributeAccessIssue]


def test_terminal_ipython_is_not_a_notebook(monkeypatch: pytest.MonkeyPatch):
    module = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert not progress_line.in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not progress_line.in_notebook()


def test_fitted_repr_shows_scores_but_no_arrays(tmp_path: Path):
    state = MetaState(PARAMS, (), jax.random.key(0), jnp.zeros((), jnp.int32))
    lines = [{"step": 12, "outer_loss": 1.5, "grad_norm": 2.0, "validation_loss": 0.25}]
    found = Fitted(state, PARAMS, 6, lines, tmp_path)
    told = f"step=12, outer_loss=1.5, validation_loss=0.25, best_step=6, folder={tmp_path}"
    assert repr(found) == f"<Fitted: {told}>"
    assert "array" not in repr(state).lower()
    assert "step=i32[]" in repr(state)


def test_report_shows_logged_metrics(whole: Path, command, complaint, tmp_path: Path):
    other = fitted(tmp_path / "other", validation=None, validate_every=1, validation_tasks=2).folder
    out = tmp_path / "page.html"
    assert command("report", whole, other, "--out", out)[0] == 0
    page = out.read_text()
    cells = [re.sub("<[^>]*>", "|", row) for row in re.findall(r"<tr class=\"\">.*?</tr>", page)]
    lines = [line for line in RunFolder(whole).metrics() if "validation_loss" in line]
    lowest = min(lines, key=lambda line: line["validation_loss"])
    assert any(f"|{lowest['validation_loss']:.4g}||{lowest['step']}|" in row for row in cells)
    assert page.count("<img") == 2  # with a validation, and without
    assert "Validation by loss" in page
    assert "Without validation" in page
    assert ["", "inner_step_size", "0.01", "0.01", ""] in [re.split(r"\|+", row) for row in cells]
    assert ["", "adapts", "all", "all", ""] in [re.split(r"\|+", row) for row in cells]
    assert command("report", whole)[0] == 0
    assert (whole / "report.html").is_file()
    assert "is not a run of `innerloop.fit` or `fit_policy`, unlike others" in complaint(
        "report", whole, "sinusoid-maml"
    )
    for words in (("--tasks", 5), ("--devices", 2)):
        assert f"{words[0]}: nothing is measured" in complaint("report", whole, *words)
    missing = tmp_path / "missing"
    assert f"{missing}: there is no such folder or file" in complaint("report", whole, missing)


def test_commands_reject_fit_runs(whole: Path, complaint):
    for words in (("compare", whole), ("evaluate", whole), ("train", "--resume", whole)):
        assert "is a run of `innerloop.fit` or `fit_policy`, on a model of your own" in complaint(*words)
