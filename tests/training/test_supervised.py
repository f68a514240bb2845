"""From a config to the parts of a run."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from training_cases import CONFIG, EPISODES, SPLITS, classes

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, DataConfig, InnerConfig, ModelConfig, OuterConfig
from innerloop.config.specs import ALGORITHMS
from innerloop.engine.pytree import Except
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.datasets import cifar, glyphs, image_folder, mini_imagenet, omniglot
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.tasks.supervised import SupervisedBatches
from innerloop.training.experiments.build import build, load_splits
from innerloop.training.experiments.optimizers import inner_loop, outer_optimizer
from innerloop.training.experiments.supervised import SupervisedExperiment


def data(**fields) -> SupervisedExperiment:
    return replace(EPISODES, config=replace(CONFIG, data=replace(CONFIG.data, **fields)))


def test_task_distributions_follow_config():
    """Shots may differ between training and test; Reptile reads no query; rotations give four classes from each."""
    train_tasks = data(train_shots=4).train_tasks()
    assert isinstance(train_tasks, Episodes)
    assert (train_tasks.shots, train_tasks.queries, train_tasks.ways) == (4, 3, 3)
    held_out = EPISODES.held_out_tasks("test")
    assert isinstance(held_out, Episodes)
    assert (held_out.shots, held_out.queries, len(held_out.rows.starts)) == (2, 2, 4)
    fewer = EPISODES.held_out_tasks("validation", queries=1)
    assert isinstance(fewer, Episodes)
    assert fewer.queries == 1
    reptile = replace(EPISODES, config=replace(CONFIG, algorithm="reptile")).train_tasks()
    assert isinstance(reptile, Episodes)
    assert reptile.queries == 0
    turned = data(rotations=True).held_out_tasks("test")
    assert isinstance(turned, Episodes)
    assert len(turned.rows.starts) == 16
    upright = data(rotations=True)
    upright = upright.with_config(
        replace(upright.config, evaluation=replace(upright.config.evaluation, rotations=False))
    )
    for part, count in (("test", 4), ("validation", 3)):
        tested = upright.held_out_tasks(part)
        assert isinstance(tested, Episodes)
        assert len(tested.rows.starts) == count
    trained = upright.train_tasks()
    assert isinstance(trained, Episodes)
    assert len(trained.rows.starts) == 24
    waves = SupervisedExperiment(preset("sinusoid-reptile"), None)
    assert waves.train_tasks() == Sinusoid(50, 50, protocol="reptile")
    assert waves.held_out_tasks() == Sinusoid(10, 50, protocol="reptile")
    with pytest.raises(InnerloopError, match="validation classes: 5 ways need as many classes, got 3"):
        data(ways=5).held_out_tasks("validation")


def test_init_params_follow_config_and_seed():
    """The same seed, the same weights; sizes from the data; the oracle sees three inputs."""
    model = EPISODES.init_params()
    assert isinstance(model, MLP)
    assert (model.body[0].weight.shape, model.head.weight.shape) == ((16, 4), (4, 3))
    jax.tree.map(np.testing.assert_array_equal, model, EPISODES.init_params())
    other = replace(EPISODES, config=replace(CONFIG, seed=1)).init_params()
    assert not np.array_equal(model.head.weight, other.head.weight)
    oracle = SupervisedExperiment(preset("sinusoid-oracle"), None).init_params()
    assert oracle.body[0].weight.shape == (3, 40)
    conv = replace(CONFIG, model=ModelConfig(filters=2))
    large = Splits(classes(6, 16), classes(3, 16), classes(4, 16))
    assert isinstance(SupervisedExperiment(conv, large).init_params(), Conv4)
    with pytest.raises(InnerloopError, match=r"`conv4` needs images, got inputs of shape \(1,\); use `mlp`"):
        SupervisedExperiment(replace(preset("sinusoid-maml"), model=ModelConfig()), None).init_params()


def test_joint_baseline_gets_new_zero_head():
    """Joint training classifies all training classes at once, and meets tasks with a new head of zeros."""
    joint = replace(EPISODES, config=replace(CONFIG, algorithm="joint"))
    tasks = joint.train_tasks()
    assert isinstance(tasks, SupervisedBatches)
    assert tasks.batch == 3 * (2 + 3)
    model = joint.init_params()
    assert model.head.weight.shape == (4, 6)
    fresh = joint.for_tasks(model)
    assert fresh.head.weight.shape == (4, 3)
    assert not np.asarray(fresh.head.weight).any()
    np.testing.assert_array_equal(fresh.body[0].weight, model.body[0].weight)
    assert EPISODES.for_tasks(model) is model


def scarce(part: str, left: int) -> SupervisedExperiment:
    """One class of a set has so few examples."""
    found = SPLITS._asdict()[part]
    per_class = [found.rows(i)[: left if i == 1 else None] for i in range(found.classes)]
    short = ClassArrays.from_lists(per_class, found.names)
    config = replace(CONFIG, data=replace(CONFIG.data, dataset="folder", train_shots=4))
    return SupervisedExperiment(config, SPLITS._replace(**{part: short}))


@pytest.mark.parametrize(
    ("part", "needs", "shots", "field"),
    [
        ("train", 7, 4, "data.queries"),
        ("validation", 4, 2, "evaluation.queries"),
        ("test", 4, 2, "evaluation.queries"),
    ],
)
def test_check_classes_uses_shots_and_queries_of_each_split(part, needs, shots, field):
    """In training 4 shots and 3 queries; at validation and at test 2 and 2."""
    scarce(part, needs).check_classes()
    with pytest.raises(InnerloopError) as refused:
        scarce(part, needs - 1).check_classes()
    words = f"{part} classes: {shots} shots and {needs - shots} queries need {needs} examples of every class"
    assert str(refused.value).startswith(words)
    assert (
        f"lower `data.shots` or `{field}`, or leave out small classes with `data.min_examples` {needs}"
        in str(refused.value)
    )


def test_check_classes_ignores_examples_that_are_never_drawn():
    """Reptile draws no queries in training, and the pre-trained baseline no episodes."""
    for algorithm, minimum in (("reptile", 4), ("joint", 1)):
        few = scarce("train", minimum)
        few.with_config(replace(few.config, algorithm=algorithm)).check_classes()
    few = scarce("train", 3)
    reptile = few.with_config(replace(few.config, algorithm="reptile"))
    with pytest.raises(InnerloopError, match="train classes: 4 shots and 0 queries"):
        reptile.check_classes()
    SupervisedExperiment(preset("sinusoid-maml")).check_classes()


def test_rotations_quadruple_training_classes():
    """For episodes, and for the pre-trained baseline, which tells all of them apart."""
    tasks = data(rotations=True).train_tasks()
    assert isinstance(tasks, Episodes)
    assert len(tasks.rows.starts) == 4 * SPLITS.train.classes
    turned = replace(CONFIG, algorithm="joint", data=replace(CONFIG.data, rotations=True))
    joint = EPISODES.with_config(turned)
    pooled = joint.train_tasks()
    assert isinstance(pooled, SupervisedBatches)
    assert len(pooled.starts) == 4 * SPLITS.train.classes
    assert joint.init_params().head.weight.shape[1] == 4 * SPLITS.train.classes


def test_training_and_test_use_separate_minibatches():
    config = replace(
        CONFIG, inner=replace(CONFIG.inner, minibatch=2), evaluation=replace(CONFIG.evaluation, minibatch=3)
    )
    e = EPISODES.with_config(config)
    assert (e.algorithm.inner.minibatch, e.test_algorithm.inner.minibatch) == (2, 3)
    assert (e.algorithm.inner.steps, e.test_algorithm.inner.steps) == (1, 2)


def test_class_names_follow_rotations():
    assert EPISODES.class_names("train") == SPLITS.train.names
    turned = data(rotations=True)
    assert turned.class_names() == turned.classes_of("test").names
    assert SupervisedExperiment(preset("sinusoid-maml")).class_names() == ()


def test_chunk_defaults_to_one_for_convolutions_on_cpu():
    """Convolutions on a CPU go one task after the other, unless told."""
    assert EPISODES.chunk is None
    conv = replace(CONFIG, model=ModelConfig())
    assert SupervisedExperiment(conv, SPLITS).chunk == 1
    assert SupervisedExperiment(replace(conv, outer=replace(CONFIG.outer, chunk=4)), SPLITS).chunk == 4


def test_test_algorithm_keeps_selection_of_parameters():
    """As in training, with the steps and minibatches of the evaluation."""
    moved = {}
    for name in ALGORITHMS:
        inner = replace(EPISODES, config=replace(CONFIG, algorithm=name)).test_algorithm.inner
        assert (inner.steps, inner.minibatch) == (CONFIG.evaluation.steps, CONFIG.evaluation.minibatch)
        moved[name] = inner.select
    assert moved["anil"] == "head"
    assert moved["boil"] == Except("head")
    assert all(moved[name] is None for name in ("maml", "fomaml", "reptile", "joint"))


def first_update(rule, gradient: float) -> float:
    return float(rule.update(np.float32(gradient), rule.init(np.float32(0)), np.float32(0))[0])


def test_inner_optimisers_take_expected_first_step():
    """Adam's first step is the rate whatever the gradient; where it is differentiated, small ones are softened."""
    assert first_update(inner_loop(InnerConfig(learning_rate=0.1)).rule, 3.0) == pytest.approx(-0.3)
    adam = InnerConfig(learning_rate=0.1, optimizer="adam", minibatch=3, derivative="mixed")
    loop = inner_loop(adam)
    assert (loop.minibatch, loop.derivative) == (3, "mixed")
    assert first_update(loop.rule, 1e-5) == pytest.approx(-0.1, rel=2e-3)
    assert first_update(inner_loop(adam, True).rule, 1e-3) == pytest.approx(-0.1, rel=1e-3)
    slope = jax.grad(lambda g: inner_loop(adam, True).rule.update(g, loop.rule.init(g), g)[0])
    assert np.isfinite(slope(np.float32(0)))


@pytest.mark.parametrize("name", ["omniglot-5way-1shot-maml", "navigation-reptile"])
def test_persistent_adam_requires_reptile_on_examples(name: str):
    config = preset(name)
    with pytest.raises(
        InnerloopError, match="`persistent_adam` is for Reptile on examples, got .*; choose sgd or adam"
    ):
        build(replace(config, inner=replace(config.inner, optimizer="persistent_adam")))


def test_outer_optimisers_decay_and_clip():
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


def test_load_splits_passes_config_to_dataset_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each reader gets what the config says of it."""
    x = str(tmp_path)
    for module in (omniglot, cifar, glyphs, mini_imagenet, image_folder):
        name = module.__name__.split(".")[-1]
        monkeypatch.setattr(module, "load", lambda *a, name=name, **k: (name, *a, *k.items()))
    load = lambda **fields: inspect.unwrap(load_splits)(Config(data=DataConfig(**fields)))
    assert load(dataset="sinusoid") is None
    assert load(dataset="omniglot") == ("omniglot", "maml")
    assert load(dataset="omniglot", split="evaluation") == ("omniglot", "evaluation")
    assert load(dataset="cifar_fs") == ("cifar", "cifar_fs")
    assert load(dataset="fc100") == ("cifar", "fc100")
    assert load(dataset="glyphs") == ("glyphs",)
    assert load(dataset="mini_imagenet", folder=x) == ("mini_imagenet", x)
    sized = load(dataset="folder", folder=x, size=32, background="teal")
    assert sized == ("image_folder", x, ("size", 32), ("background", "teal"), ("min_examples", 0))
    plain = ("image_folder", x, ("size", None), ("background", "white"), ("min_examples", 4))
    assert load(dataset="folder", folder=x, min_examples=4) == plain
    for name in ("folder", "mini_imagenet"):
        with pytest.raises(InnerloopError, match="needs a folder of images; give `data.folder`"):
            load(dataset=name)
