"""What a training run leaves behind, and what it says when something went wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from callback_cases import EachBlock
from training_cases import EPISODES, SPLITS, classes

from innerloop.cli.seeds import Job, remaining
from innerloop.config.schema import Config
from innerloop.engine.diagnosis import Diverged
from innerloop.engine.outer.outer_loop import StepInfo
from innerloop.errors import InnerloopError
from innerloop.parallel import multi_process
from innerloop.tasks.class_arrays import Splits
from innerloop.training.diagnosis.nan_diagnosis import Block, check_finite
from innerloop.training.experiments.build import build
from innerloop.training.experiments.schedule import due
from innerloop.training.interruption.signals import Guard
from innerloop.training.loop import TrainingLoop
from innerloop.training.measure import measure
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress
from innerloop.training.progress.progress_line import ProgressLine
from innerloop.training.recording.recorder import Recorder
from innerloop.training.reproduce import Ended, compare, reproduce
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import load_trained


def test_train_writes_metrics_checkpoints_and_weights(tiny: Config, finished: Path):
    run = RunFolder(finished)
    records = run.metrics()
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    assert [record["step"] for record in records if "validation_loss" in record] == [6, 12]
    assert {"outer_loss", "grad_norm", "inner_loss_first"} <= set(records[0])
    assert run.config() == tiny
    assert sorted(int(p.name) for p in run.checkpoints.iterdir()) == [4, 8, 12]
    assert list((finished / "tensorboard").iterdir())
    assert weights.load(run.weights)[2]["meta_steps"] == 12


def test_resuming_finished_run_rewrites_identical_weights(finished: Path):
    before = weights.load(finished / "weights.safetensors")[0]
    (finished / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="weights.safetensors could not be read, and is .* meta-step 12"):
        assert train(None, finished, resume=True).facts["meta_steps"] == 12
    after = weights.load(finished / "weights.safetensors")[0]
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_failed_extension_keeps_weights_and_metrics(tiny: Config, finished: Path, tmp_path: Path):
    """Whether its checkpoints are damaged or gone."""
    run, longer = RunFolder(tmp_path / "run"), replace(tiny, outer=replace(tiny.outer, meta_steps=14))
    shutil.copytree(finished, run.path)
    for path in run.checkpoints.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(
        InnerloopError, match="checkpoint 12: is damaged, .*; put back a copy of .*checkpoints, or"
    ):
        train(longer, run.path, resume=True)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(
        InnerloopError, match="run: has ended, and its checkpoints are gone; put them back, start"
    ):
        train(longer, run.path, resume=True)
    assert run.weights.read_bytes() == (finished / run.weights.name).read_bytes()
    assert (run.config(), run.metrics()) == (tiny, RunFolder(finished).metrics())


def test_extended_run_matches_uninterrupted_run(tiny: Config, finished: Path, tmp_path: Path):
    """Even if its first length was not a whole number of blocks; what tells of its first end is not compared."""
    run = RunFolder(tmp_path / "run")
    train(replace(tiny, outer=replace(tiny.outer, meta_steps=5)), run.path)
    seven = replace(tiny, outer=replace(tiny.outer, meta_steps=7))
    with pytest.raises(InnerloopError, match="outer.meta_steps: .* already taken 5 meta-steps, got 4"):
        train(replace(tiny, outer=replace(tiny.outer, meta_steps=4)), run.path, resume=True)
    chunked = replace(seven, outer=replace(seven.outer, chunk=1))
    for other, told in (
        (replace(seven, seed=7), "seed: .*, 0, got 7"),
        (chunked, "outer.chunk: .*, None, got 1"),
    ):
        with pytest.raises(InnerloopError, match=f"{told}; leave it out, or start a new run"):
            train(other, run.path, resume=True)
    for config in (seven, tiny, None):
        result = train(config, run.path, resume=True)
    assert result.facts["meta_steps"] == 12
    assert (run.config(), run.earlier_lengths()) == (tiny, [5, 7])
    verdict = compare(Ended.read(run.path), Ended.read(finished))
    assert (verdict.same, verdict.lines) == (True, 4)


def test_divergence_keeps_last_good_checkpoint(tiny: Config, tmp_path: Path):
    """An outer step of 1e6: finite at first, then not."""
    wild = replace(
        tiny,
        outer=replace(
            tiny.outer, learning_rate=1e6, optimizer="sgd", log_every=1, checkpoint_every=1, validate_every=0
        ),
    )
    with pytest.raises(
        InnerloopError, match=r"diverged at meta-step (\d+), in .*; lower `inner.learning_rate`"
    ) as e:
        train(wild, tmp_path / "run")
    step = int(str(e.value).split("meta-step ")[1].split(",")[0])
    assert "the last good checkpoint is kept in" in str(e.value)
    manager = checkpoint_manager.manager(tmp_path / "run" / "checkpoints")
    assert manager.latest_step() == step - 1 > 0
    experiment = build(wild)
    like = experiment.outer_loop().start(experiment.init_params(), experiment.keys().tasks)
    kept = checkpoint.restore(manager, like)
    assert kept is not None
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(kept.params))
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_inner_divergence_error_names_inner_step(tiny: Config, tmp_path: Path):
    wild = replace(tiny, inner=replace(tiny.inner, learning_rate=1e9, steps=20))
    with pytest.raises(
        InnerloopError, match=r"meta-step 1, in inner step \d+ of task 0 .*, got outer loss (nan|inf)"
    ):
        train(wild, tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "index", "where"),
    [
        ("inner_losses", (1, 2), "meta-step 9, in inner step 2"),
        ("outer_loss", (2,), "meta-step 10, in the query"),
        ("grad_norm", (0,), "meta-step 8, in the query"),
    ],
)
def test_check_finite_names_step_of_divergence(field: str, index: tuple, where: str):
    """The last of three steps of this dispatch is number 10."""
    values: list[Any] = [np.ones(shape) for shape in (3, (3, 4), 3)]
    sound, block = StepInfo(*values), Block(10, Path("run"), after=jnp.ones(1))
    check_finite(sound, block)
    check_finite(sound._replace(inner_losses=jnp.ones((3, 0))), block)
    getattr(sound, field)[index] = np.nan
    with pytest.raises(Diverged, match=where):
        check_finite(jax.tree.map(jnp.asarray, sound), block)


def validated(splits: Splits, folder: Path) -> dict[str, float]:
    """The validation of a run that has not begun."""
    loop = TrainingLoop(replace(EPISODES, splits=splits), Recorder(folder), lambda progress: None, Guard())
    return loop.validate()


def test_validation_uses_only_validation_classes(tmp_path: Path):
    """Steps and settings may be chosen by it, so the test classes must not take part."""
    found = validated(SPLITS, tmp_path)
    assert validated(SPLITS._replace(test=classes(9)), tmp_path) == found
    assert validated(SPLITS._replace(validation=classes(9)), tmp_path) != found


class Told(Callback):
    """Keeps what it is told, and ends the run at a meta-step."""

    def __init__(self, end: int):
        self.end = end
        self.calls: list[Any] = []

    def on_start(self, folder: Path, settings: dict[str, Any], step: int) -> None:
        self.calls.append((folder.name, settings["outer"]["meta_steps"], step))

    def on_message(self, text: str) -> None:
        self.calls.append(text)

    def on_block(self, progress: Progress) -> bool:
        self.calls.append(progress.step)
        return progress.step == self.end

    def on_end(self, error: BaseException | None) -> None:
        self.calls.append(error)


def test_callback_ends_run_that_can_be_reproduced_and_continued(tiny: Config, finished: Path, tmp_path: Path):
    run, told, more, other = RunFolder(tmp_path / "run"), Told(4), Told(0), Told(0)
    result = train(tiny, run.path, callbacks=[told, other])
    assert told.calls == other.calls == [("run", 12, 0), 2, 4, None]
    assert (result.facts["meta_steps"], result.metrics[-1]["step"]) == (4, 4)
    assert result.state is not None
    assert int(result.state.step) == 4
    assert load_trained(run.path).facts["meta_steps"] == 4
    assert reproduce(run.path, tmp_path / "again").same
    assert remaining(run.path, tiny) == Job(run.path, tiny, resume=True)
    with pytest.raises(ZeroDivisionError):
        train(
            None, run.path, callbacks=[EachBlock(lambda progress: progress.step == 8 and 1 // 0)], resume=True
        )
    with pytest.raises(InnerloopError, match="the run has not ended"):
        load_trained(run.path)
    train(tiny, run.path, callbacks=[more], resume=True)
    assert more.calls == [("run", 12, 8), 10, 12, None]
    assert compare(Ended.read(run.path), Ended.read(finished)).same
    assert remaining(run.path, tiny) is None


def test_run_ends_in_every_process_when_the_first_asks(tiny: Config, tmp_path: Path, monkeypatch):
    of_both = lambda value: [value, True] if value is False else [value]
    monkeypatch.setattr(multi_process, "all_gather_int", of_both)
    assert train(tiny, tmp_path / "run").facts["meta_steps"] == 2


def test_progress_line_names_its_function_and_shows_messages(capsys: pytest.CaptureFixture[str]):
    line, text = ProgressLine("train"), f"Memory: {'about ' * 40}"
    line.on_start(Path("x"), {}, 0)
    line.on_message(text)
    line.compiling()
    line.on_end(None)
    assert capsys.readouterr().err.splitlines() == [f"train: {text}", "train: compiling"]


def test_train_returns_what_load_trained_loads(tiny: Config, finished: Path):
    result, loaded = train(None, finished, resume=True), load_trained(finished)
    assert (result.config, result.source, result.folder) == (loaded.config, loaded.source, loaded.folder)
    assert repr(result) == repr(loaded) == f"<Trained: {tiny.title}, meta_steps=12, source={finished}>"
    jax.tree.map(np.testing.assert_array_equal, result.params, loaded.params)
    assert (loaded.state, loaded.metrics) == (None, RunFolder(finished).metrics())
    assert measure(result, num_tasks=4).value == measure(loaded, num_tasks=4).value
    assert result.algorithm.inner.steps == tiny.evaluation.steps
    assert result.tasks("validation") == result.experiment.held_out_tasks("validation")


def test_invalid_train_calls_raise(tiny: Config, finished: Path, tmp_path: Path):
    with pytest.raises(InnerloopError, match="needs a config"):
        train(None, tmp_path / "x")
    with pytest.raises(InnerloopError, match="already holds a run"):
        train(tiny, finished)
    with pytest.raises(InnerloopError, match="there is no such folder"):
        train(None, tmp_path / "x", resume=True)


def test_resume_with_changed_model_raises(finished: Path, tmp_path: Path):
    """The config in the folder was changed by hand."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    values["model"]["hidden"] = [5]
    (tmp_path / "run" / "config.json").write_text(json.dumps(values))
    with pytest.raises(InnerloopError, match="belongs to another model"):
        train(None, tmp_path / "run", resume=True)


def test_due_includes_multiples_passed_since_last_step():
    """A multiple of `every` reached or passed in the last `length` steps; 0: never."""
    assert [step for step in range(2, 21, 2) if due(5, step, 2)] == [6, 10, 16, 20]
    assert not any(due(0, step, 2) for step in range(2, 21, 2))
