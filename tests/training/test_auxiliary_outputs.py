"""What a loss returns besides its value reaches the log, the progress line and TensorBoard."""

import types
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from callback_cases import EachBlock
from training_cases import EPISODES

from innerloop.config.schema import Config, DataConfig
from innerloop.engine.outer.outer_loop import StepInfo
from innerloop.nn.losses import accuracy, call
from innerloop.training.progress.progress_words import in_words
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train


def test_image_run_logs_training_accuracy(tiny: Config, tmp_path: Path):
    config = replace(
        tiny,
        data=DataConfig(dataset="glyphs", ways=2, shots=1, queries=2),
        outer=replace(tiny.outer, meta_steps=4, log_every=2, validate_every=0),
    )
    told = []
    train(
        config,
        tmp_path / "run",
        callbacks=[EachBlock(lambda progress: told.append(in_words(progress.metrics)))],
    )
    records = RunFolder(tmp_path / "run").metrics()
    assert len(records) == 2
    assert all(0 <= record["train_accuracy"] <= 1 for record in records)
    assert f"training accuracy {100 * records[-1]['train_accuracy']:.1f} %" in told[-1]
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train_accuracy") == 2


def test_aux_accuracy_uses_adapted_params_on_query_set():
    """And the meta-gradient is that without it."""
    tasks, params = EPISODES.train_tasks(), EPISODES.init_params()
    task = tasks.sample(EPISODES.keys().tasks)
    grads, info = EPISODES.logged_algorithm.meta_grad(params, task)
    adapted = EPISODES.algorithm.adapt(params, task.support)
    assert info.aux["accuracy"] == accuracy(call(adapted, task.query.inputs), task.query.targets)
    plain, _ = EPISODES.algorithm.meta_grad(params, task)
    np.testing.assert_allclose(grads.head.weight, plain.head.weight, rtol=1e-5)


def test_series_includes_only_scalar_aux_outputs():
    """By their paths; a picture of every update is what `run` returned, and no number."""
    aux = {"terms": {"data": jnp.array([1.0, 2.0])}, "mask": jnp.ones((2, 3))}
    info = StepInfo(jnp.zeros(2), jnp.zeros((2, 0)), jnp.zeros(2), aux)
    assert EPISODES.series(info).keys() == {"outer_loss", "grad_norm", "train_terms/data"}
    without = types.SimpleNamespace(**(info._asdict() | {"aux": None}))
    assert EPISODES.series(without).keys() == {"outer_loss", "grad_norm"}


def test_in_words_orders_returns_by_update():
    metrics = {f"return_after_{i}": float(i) for i in (10, 2, 0, 11, 1)}
    assert in_words(metrics) == "return 0.0 → 1.0 → 2.0 → 10.0 → 11.0"


def test_in_words_formats_auxiliary_outputs():
    assert (
        in_words({"outer_loss": 1.0, "train_data_term": 0.25}) == "outer loss 1.0000  training data term 0.25"
    )
