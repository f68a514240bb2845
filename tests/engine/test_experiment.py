"""From a config to the parts of a run, and from a run to the numbers that are reported."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from innerloop import trained, weights
from innerloop.config import Config, DataConfig, EvaluationConfig, InnerConfig, ModelConfig, OuterConfig
from innerloop.datasets import cifar, folder, glyphs, mini_imagenet, omniglot
from innerloop.datasets.arrays import ClassArrays, Splits
from innerloop.errors import InnerloopError
from innerloop.evaluate import evaluate
from innerloop.experiment import Experiment, adapted_by, inner_loop, load_splits, outer_optimizer
from innerloop.models import MLP, Conv4
from innerloop.presets import preset
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.tree import Except

pytestmark = pytest.mark.usefixtures("quick_compilation")


def classes(count: int, side: int = 4) -> ClassArrays:
    """`count` classes of 8 noisy images."""
    rng = np.random.default_rng(count)
    centres = rng.integers(0, 200, (count, 1, side, side, 1))
    images = (centres + rng.integers(0, 50, (count, 8, side, side, 1))).astype(np.uint8)
    return ClassArrays.from_lists(list(images), [f"{count}-{i}" for i in range(count)])


SPLITS = Splits(classes(6), classes(3), classes(4))
CONFIG = Config(
    data=DataConfig(ways=3, shots=2, queries=3),
    model=ModelConfig(kind="mlp", hidden=(4,), normalize=True),
    inner=InnerConfig(steps=1, learning_rate=0.1),
    outer=OuterConfig(meta_steps=4, meta_batch=2, log_every=2, validate_every=0),
    evaluation=EvaluationConfig(tasks=4, steps=2, queries=2, validation_tasks=4),
)
EPISODES = Experiment(CONFIG, SPLITS)


def data(**fields) -> Experiment:
    return replace(EPISODES, config=replace(CONFIG, data=replace(CONFIG.data, **fields)))


def test_task_distributions():
    """Shots may differ between training and test; Reptile reads no query; rotations give four classes from each."""
    train_tasks = data(train_shots=4).train_tasks()
    assert isinstance(train_tasks, Episodes)
    assert (train_tasks.shots, train_tasks.queries, train_tasks.ways) == (4, 3, 3)
    held_out = EPISODES.held_out_tasks("test")
    assert isinstance(held_out, Episodes)
    assert (held_out.shots, held_out.queries, len(held_out.starts)) == (2, 2, 4)
    fewer = EPISODES.held_out_tasks("validation", queries=1)
    assert isinstance(fewer, Episodes)
    assert fewer.queries == 1
    reptile = replace(EPISODES, config=replace(CONFIG, algorithm="reptile")).train_tasks()
    assert isinstance(reptile, Episodes)
    assert reptile.queries == 0
    turned = data(rotations=True).held_out_tasks("test")
    assert isinstance(turned, Episodes)
    assert len(turned.starts) == 16
    waves = Experiment(preset("sinusoid-reptile"), None)
    assert waves.train_tasks() == Sinusoid(50, 50, "reptile")
    assert waves.held_out_tasks() == Sinusoid(10, 50, "reptile")
    with pytest.raises(InnerloopError, match="5 ways need as many classes, got 3"):
        data(ways=5).held_out_tasks("validation")


def test_models():
    """The same seed, the same weights; sizes from the data; the oracle sees three inputs."""
    model = EPISODES.init_params()
    assert isinstance(model, MLP)
    assert (model.body[0].weight.shape, model.head.weight.shape) == ((16, 4), (4, 3))
    jax.tree.map(np.testing.assert_array_equal, model, EPISODES.init_params())
    other = replace(EPISODES, config=replace(CONFIG, seed=1)).init_params()
    assert not np.array_equal(model.head.weight, other.head.weight)
    oracle = Experiment(preset("sinusoid-oracle"), None).init_params()
    assert oracle.body[0].weight.shape == (3, 40)
    conv = replace(CONFIG, model=ModelConfig(filters=2))
    large = Splits(classes(6, 16), classes(3, 16), classes(4, 16))
    assert isinstance(Experiment(conv, large).init_params(), Conv4)
    with pytest.raises(InnerloopError, match=r"`conv4` needs images, got inputs of shape \(1,\); use `mlp`"):
        Experiment(replace(preset("sinusoid-maml"), model=ModelConfig()), None).init_params()


def test_chunks():
    """Convolutions on a CPU go one task after the other, unless told."""
    assert EPISODES.chunk is None
    conv = replace(CONFIG, model=ModelConfig())
    assert Experiment(conv, SPLITS).chunk == 1
    assert Experiment(replace(conv, outer=replace(CONFIG.outer, chunk=4)), SPLITS).chunk == 4


def test_what_the_test_loop_moves():
    assert adapted_by("anil") == "head"
    assert adapted_by("boil") == Except("head")
    assert all(adapted_by(name) is None for name in ("maml", "fomaml", "reptile", "joint"))


def first_update(rule, gradient: float) -> float:
    return float(rule.update(np.float32(gradient), rule.init(np.float32(0)), np.float32(0))[0])


def test_inner_optimisers():
    """Adam's first step is the rate whatever the gradient; where it is differentiated, small ones are softened."""
    assert first_update(inner_loop(InnerConfig(learning_rate=0.1)).rule, 3.0) == pytest.approx(-0.3)
    adam = InnerConfig(learning_rate=0.1, optimizer="adam", minibatch=3, derivative="mixed")
    loop = inner_loop(adam)
    assert (loop.minibatch, loop.derivative) == (3, "mixed")
    assert first_update(loop.rule, 1e-5) == pytest.approx(-0.1, rel=2e-3)
    assert first_update(inner_loop(adam, True).rule, 1e-3) == pytest.approx(-0.1, rel=1e-3)
    slope = jax.grad(lambda g: inner_loop(adam, True).rule.update(g, loop.rule.init(g), g)[0])
    assert np.isfinite(slope(np.float32(0)))


def test_outer_optimisers():
    """Step sizes that fall to nothing over the run, and clipping before the step."""
    decays: tuple[tuple[Any, float], ...] = (("constant", 0.1), ("linear", 0.05), ("cosine", 0.05))
    for decay, middle in decays:
        rule: Any = outer_optimizer(
            OuterConfig(meta_steps=8, learning_rate=0.1, optimizer="sgd", decay=decay)
        )
        state, sizes = rule.init(np.float32(0)), []
        for _ in range(9):
            update, state = rule.update(np.float32(1), state)
            sizes.append(-float(update))
        assert sizes[0] == pytest.approx(0.1)
        assert sizes[4] == pytest.approx(middle)
        assert sizes[8] == pytest.approx(0.1 if decay == "constant" else 0.0, abs=1e-8)
    clipped: Any = outer_optimizer(OuterConfig(learning_rate=0.1, optimizer="sgd", clip=2.0))
    assert float(clipped.update(np.float32(9), clipped.init(np.float32(0)))[0]) == pytest.approx(-0.2)
    assert first_update(outer_optimizer(OuterConfig(learning_rate=0.1)), 7.0) == pytest.approx(-0.1, rel=1e-4)


def test_data_sets_by_name(monkeypatch: pytest.MonkeyPatch):
    """Each reader gets what the config says of it."""
    for module in (omniglot, cifar, glyphs, mini_imagenet, folder):
        name = module.__name__.split(".")[-1]
        monkeypatch.setattr(module, "load", lambda *a, name=name, **k: (name, *a, *k.items()))
    load = lambda **fields: inspect.unwrap(load_splits)(Config(data=DataConfig(**fields)))
    assert load(dataset="sinusoid") is None
    assert load(dataset="omniglot") == ("omniglot", "maml")
    assert load(dataset="omniglot", split="evaluation") == ("omniglot", "evaluation")
    assert load(dataset="cifar_fs") == ("cifar", "cifar_fs")
    assert load(dataset="fc100") == ("cifar", "fc100")
    assert load(dataset="glyphs") == ("glyphs",)
    assert load(dataset="mini_imagenet", folder="x") == ("mini_imagenet", "x")
    assert load(dataset="folder", folder="x", size=32) == ("folder", "x", ("size", 32))
    assert load(dataset="folder", folder="x") == ("folder", "x", ("size", None))
    for name in ("folder", "mini_imagenet"):
        with pytest.raises(InnerloopError, match="needs a folder of images; give --data.folder"):
            load(dataset=name)


def test_measuring_classification():
    """The record says all that the number depends on; its curve is evaluate's; another mode is another number."""
    told: list[tuple[int, int]] = []
    loaded = trained.Trained(EPISODES.init_params(), EPISODES, "here", {"meta_steps": 4})
    record = trained.measure(loaded, tasks=6, watch=lambda done, total: told.append((done, total)))
    assert told == [(6, 6)]
    assert (record["ways"], record["shots"], record["queries_per_class"], record["classes"]) == (
        3,
        2,
        2,
        "test",
    )
    assert (record["tasks"], record["inner_steps"], record["normalization"]) == (6, 2, "transductive")
    assert (record["trained_meta_steps"], record["diverged_tasks"]) == (4, 0)
    assert json.loads(json.dumps(record)) == record
    e = loaded.experiment
    curve = evaluate(
        e.score(), e.loss_fn, e.test_inner, loaded.params, e.held_out_tasks(), key=jax.random.key(0), tasks=6
    )
    assert record["curve"]["steps"] == [0, 1, 2]
    assert record["curve"]["accuracy"]["mean"] == pytest.approx(curve.mean("accuracy").tolist())
    assert record["accuracy"] == record["curve"]["accuracy"]["mean"][-1]
    assert record["ci95"] == pytest.approx(curve.ci95("accuracy")[-1])
    other = trained.measure(loaded, tasks=6, normalization="support", part="validation", steps=1)
    assert (other["normalization"], other["classes"], other["inner_steps"]) == ("support", "validation", 1)
    assert other["curve"]["loss"]["mean"][0] != record["curve"]["loss"]["mean"][0]


def test_measuring_regression(finished: Path):
    record = trained.measure(trained.load_trained(finished / "weights.safetensors"), seed=3)
    assert "accuracy" not in record
    assert record["loss"] == record["curve"]["loss"]["mean"][-1]
    assert (record["tasks"], record["seed"]) == (6, 3)


def test_what_has_no_weights(tiny: Config, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    (tmp_path / "sinusoid-maml.safetensors").write_bytes((finished / "weights.safetensors").read_bytes())
    assert trained.load_trained("sinusoid-maml").config == tiny
    with pytest.raises(
        InnerloopError, match="no trained weights of this preset ship .*weights ship for sinusoid-maml"
    ):
        trained.load_trained("sinusoid-anil")
    with pytest.raises(InnerloopError, match="there is none of this name, got 'sinus'"):
        trained.load_trained("sinus")
    with pytest.raises(InnerloopError, match="is not a run"):
        trained.load_trained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InnerloopError, match="the run has not ended; go on with `innerloop train --resume"):
        trained.load_trained(tmp_path)


def test_another_image_folder(finished: Path):
    assert trained.load_trained(finished, data_folder="elsewhere").config.data.folder == "elsewhere"
