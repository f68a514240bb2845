"""Configs: JSON there and back, strictness, and every preset."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from innerloop.config.data_settings import for_dataset
from innerloop.config.presets.published import PAPER_LENGTH
from innerloop.config.presets.recipes import RECIPES
from innerloop.config.presets.registry import all_presets, preset
from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
)
from innerloop.config.serialization import from_json, to_json
from innerloop.config.unread_settings import check_effective
from innerloop.errors import InnerloopError
from innerloop.training.experiments import reinforcement, supervised
from innerloop.training.storage import shipped

PRESETS = all_presets()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_round_trips_and_builds(name: str):
    """It knows its name, survives JSON to the last field, and its parts can be built."""
    config = preset(name)
    assert config.name == name
    assert from_json(to_json(config)) == config
    if config.reinforcement:
        parts = reinforcement.RLExperiment(config)
        inner = parts.test_sampler.inner
    else:
        parts = supervised.SupervisedExperiment(config)
        inner = parts.test_algorithm.inner
    assert parts.algorithm.meta_grad
    assert inner.steps == config.evaluation.steps
    assert parts.optimizer.init({}) is not None


def test_presets_have_error_prone_paper_settings():
    """Step sizes are for a mean loss: 0.4 for 5 ways is 2.0; Reptile's Adam and minibatches; mini-ImageNet's."""
    omniglot = preset("omniglot-5way-1shot-maml-short")
    assert (omniglot.inner.learning_rate, omniglot.inner.steps, omniglot.evaluation.steps) == (2.0, 1, 3)
    assert omniglot.data.rotations
    twenty = preset("omniglot-20way-1shot-maml-short")
    assert (twenty.inner.learning_rate, twenty.inner.steps, twenty.outer.meta_batch) == (2.0, 5, 16)
    assert preset("mini-imagenet-5way-1shot-maml").inner.learning_rate == 0.05
    reptile = preset("omniglot-5way-1shot-reptile-short")
    assert (reptile.inner.optimizer, reptile.inner.minibatch, reptile.data.train_shots) == (
        "persistent_adam",
        10,
        10,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_keep_data_of_short_presets(name: str):
    """What is trained longer in the papers keeps its tasks, and its evaluation but for the number of steps."""
    ours, short = preset(name), preset(f"{name}-short")
    assert ours.data == short.data
    assert replace(ours.evaluation, steps=0) == replace(short.evaluation, steps=0)
    assert ours != replace(short, name=ours.name)
    assert ours.model.start in ("", *shipped.names())


def test_policy_presets_keep_no_snapshots():
    """Only `innerloop analyze` reads them, which takes no policies."""
    kept = {config.data.spec.kind for config in all_presets().values() if config.outer.snapshots}
    assert kept == {"regression", "images"}


# The papers and their code, in their own numbers: meta-steps, how the outer step decays, tasks, inner steps, inner step
# size, its factor for a mean loss, steps at test, queries at test, shots and queries in training, rotated test classes.
PRINTED = {
    "omniglot-5way-1shot-maml": (60_000, "constant", 32, 1, 0.4, 5, 3, 1, 1, 1, True),
    "omniglot-5way-5shot-maml": (60_000, "constant", 32, 1, 0.4, 5, 3, 5, 5, 5, True),
    "omniglot-20way-1shot-maml": (60_000, "constant", 16, 5, 0.1, 20, 5, 1, 1, 1, True),
    "omniglot-20way-5shot-maml": (60_000, "constant", 16, 5, 0.1, 20, 5, 5, 5, 5, True),
    "mini-imagenet-5way-1shot-maml": (60_000, "constant", 4, 5, 0.01, 5, 10, 1, 1, 15, True),
    "mini-imagenet-5way-5shot-maml": (60_000, "constant", 4, 5, 0.01, 5, 10, 5, 5, 15, True),
    "mini-imagenet-5way-1shot-fomaml": (60_000, "constant", 4, 5, 0.01, 5, 10, 1, 1, 15, True),
    "mini-imagenet-5way-5shot-fomaml": (60_000, "constant", 4, 5, 0.01, 5, 10, 5, 5, 15, True),
    "omniglot-5way-1shot-reptile": (100_000, "linear", 5, 5, 0.001, 1, 50, 1, 10, 1, False),
    "omniglot-5way-5shot-reptile": (100_000, "linear", 5, 5, 0.001, 1, 50, 1, 10, 1, False),
    "omniglot-20way-1shot-reptile": (200_000, "linear", 5, 10, 0.0005, 1, 50, 1, 10, 1, False),
    "omniglot-20way-5shot-reptile": (200_000, "linear", 5, 10, 0.0005, 1, 50, 1, 10, 1, False),
}


@pytest.mark.parametrize("name", PRINTED)
def test_published_presets_have_the_published_settings(name: str):
    c = preset(f"{name}-published")
    steps, decay, tasks, inner, rate, factor, tested, test_queries, shots, queries, turned = PRINTED[name]
    assert (c.outer.meta_steps, c.outer.decay, c.outer.meta_batch) == (steps, decay, tasks)
    assert (c.inner.steps, c.evaluation.steps) == (inner, tested)
    assert c.inner.learning_rate == pytest.approx(rate * factor)
    assert (c.evaluation.queries, c.data.train_shots or c.data.shots, c.data.queries) == (
        test_queries,
        shots,
        queries,
    )
    assert (c.data.rotations, c.evaluation.rotations) == ("omniglot" in name, turned)
    assert c.evaluation.normalization == "transductive"
    if c.algorithm == "reptile":
        _, ways, shot, _ = name.split("-")
        assert (c.outer.optimizer, c.outer.learning_rate, c.model.features) == ("sgd", 1.0, "flatten")
        assert (c.inner.minibatch, c.evaluation.minibatch) == {
            ("5way", "1shot"): (10, 5),
            ("5way", "5shot"): (10, 5),
            ("20way", "1shot"): (20, 10),
            ("20way", "5shot"): (20, 10),
        }[ways, shot]
    else:
        assert (c.outer.optimizer, c.outer.learning_rate) == ("adam", 0.001)
        assert c.outer.clip == (10.0 if "imagenet" in name else None)


def test_only_published_presets_have_published_in_name():
    assert {name for name in all_presets() if "published" in name} == {
        f"{name}-published" for name in PRINTED
    }


@pytest.mark.parametrize("name", PAPER_LENGTH)
def test_paper_length_preset_changes_only_length_and_start(name: str):
    """The preset without its recipe, trained longer; where all settings are published, those but for test queries."""
    found, short = preset(f"{name}-paper-length"), PRESETS.get(f"{name}-short", PRESETS[name])
    assert (found.outer.meta_steps, found.outer.decay, found.model.start) == (60_000, "constant", "")
    outer = replace(found.outer, meta_steps=short.outer.meta_steps, decay=short.outer.decay)
    assert replace(found, name=short.name, outer=outer) == short
    if (published := PRESETS.get(f"{name}-published")) is not None:
        evaluation = replace(found.evaluation, queries=published.evaluation.queries)
        assert replace(found, name=published.name, evaluation=evaluation) == published


def test_unknown_preset_error_suggests_similar_names():
    with pytest.raises(
        InnerloopError, match="got 'omniglot-5way-1shot-mmal'; did you mean omniglot-5way-1shot"
    ):
        preset("omniglot-5way-1shot-mmal")
    with pytest.raises(InnerloopError, match="`innerloop list` lists the presets"):
        preset("???")


def changed(**fields) -> str:
    """The default config's JSON with fields of `outer`, or whole sections, replaced."""
    values = json.loads(to_json(Config()))
    for name, value in fields.items():
        (values if name in values else values["outer"])[name] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x is not JSON|x: is not JSON"),
        ("[]", "must be an object with named fields, got list"),
        (changed(colour=1), "outer: unknown field 'colour'; choose among: meta_steps"),
        (changed(algorithm="mmal"), "algorithm: has the wrong value, got 'mmal'"),
        (changed(meta_steps="x"), "meta_steps: has the wrong value, got 'x'; give a whole number."),
        (changed(algorithm=["maml"]), "algorithm: has the wrong value"),
        (changed(data=3), "data: must be an object with named fields, got int"),
        (changed(meta_steps=1.5), "meta_steps: has the wrong value, got 1.5"),
        (changed(meta_steps=True), "meta_steps: has the wrong value, got True"),
        (changed(meta_steps=None), "meta_steps: has the wrong value, got None"),
        (changed(learning_rate="fast"), "learning_rate: has the wrong value, got 'fast'"),
        (changed(learning_rate=True), "learning_rate: has the wrong value, got True"),
        (changed(model={"hidden": [40, "x"]}), "give a list in which each item is a whole number"),
        (changed(model={"normalize": 1}), "normalize: has the wrong value, got 1"),
        (changed(meta_steps=-1), "outer.meta_steps: must be 0 or more, got -1"),
        (changed(meta_batch=0), "outer.meta_batch: must be 1 or more, got 0"),
        (changed(log_every=0), "outer.log_every: must be 1 or more, got 0"),
    ],
    ids=lambda value: value if len(value) < 100 else "config",
)
def test_invalid_json_raises(text: str, message: str):
    with pytest.raises(InnerloopError, match=message):
        from_json(text, "x")


def test_json_fills_defaults_and_converts_ints_to_floats():
    config = from_json('{"outer": {"learning_rate": 1, "clip": 10}, "model": {"hidden": [3]}}')
    assert config == Config(outer=OuterConfig(learning_rate=1.0, clip=10.0), model=ModelConfig(hidden=(3,)))
    assert isinstance(config.outer.learning_rate, float)
    assert isinstance(config.outer.clip, float)
    assert isinstance(from_json('{"model": {"scale": 1}}').model.scale, float)


def test_configs_are_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert hash(Config()) == hash(Config())
    assert Config(data=DataConfig(ways=3)) != Config()
    assert Config(inner=InnerConfig(steps=2)).inner.steps == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OuterConfig(clip=-1.0), "outer.clip: must be above 0, got -1.0"),
        (lambda: InnerConfig(steps=-1), "inner.steps: must be 0 or more, got -1"),
        (lambda: InnerConfig(minibatch=0), "inner.minibatch: must be 1 or more, got 0"),
        (lambda: ModelConfig(filters=0), "model.filters: must be 1 or more, got 0"),
        (lambda: ModelConfig(hidden=(4, 0)), r"model.hidden: each must be 1 or more, got \(4, 0\)"),
        (lambda: EvaluationConfig(tasks=1), "evaluation.tasks: must be 2 or more, got 1"),
        (lambda: EvaluationConfig(steps=-1), "evaluation.steps: must be 0 or more, got -1"),
        (
            lambda: EvaluationConfig(validation_tasks=1),
            "evaluation.validation_tasks: must be 2 or more, got 1",
        ),
        (lambda: Config(seed=2**32), "seed: must be 4 294 967 295 or less, got 4294967296"),
        (lambda: Config(seed=-1), "seed: must be 0 or more, got -1"),
    ],
)
def test_out_of_range_settings_raise(make, message: str):
    """Told when the config is made, not when a run ends."""
    with pytest.raises(InnerloopError, match=message):
        make()


def test_unknown_option_raises_without_type_checker():
    """Not by the type checker of these tests: in a process without it."""
    script = (
        "import jax\nfrom innerloop import MLP, Conv4, Sinusoid\n"
        "key, image = jax.random.key(0), (16, 16, 1)\n"
        "for make in (lambda: Sinusoid(1, 1, protocol='MAML'), lambda: MLP(1, 1, activation='gelu', key=key),\n"
        "             lambda: Conv4(5, image_shape=image, downsample='strided', key=key),\n"
        "             lambda: Conv4(5, image_shape=image, features='average', key=key)):\n"
        "    try:\n        make()\n    except ValueError as error:\n        print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "Sinusoid: `protocol` is unknown, got 'MAML'; choose among: maml, reptile.",
        "MLP: `activation` is unknown, got 'gelu'; choose among: relu, tanh.",
        "Conv4: `downsample` is unknown, got 'strided'; choose among: stride, pool.",
        "Conv4: `features` is unknown, got 'average'; choose among: mean, flatten.",
    ]


def test_offload_without_checkpoints_raises():
    with pytest.raises(InnerloopError, match=r"inner\.offload: there are no checkpoints to offload"):
        InnerConfig(steps=100, offload=True)


@pytest.mark.parametrize("section", ["inner", "evaluation"])
def test_minibatches_for_policies_raise(section: str):
    walks = preset("navigation-maml-trpo")
    check_effective(walks)
    small = replace(walks, **{section: replace(getattr(walks, section), minibatch=5)})
    with pytest.raises(InnerloopError, match=f"{section}.minibatch: .* trajectories, got 5; leave it out"):
        check_effective(small)


def test_for_dataset_sets_ways_by_kind_of_data():
    """Tasks of classes that replace tasks without have five; the other way round, the number means nothing."""
    waves, glyphs = preset("sinusoid-maml").data, preset("omniglot-20way-1shot-maml").data
    assert for_dataset(waves, "glyphs").ways == 5
    assert for_dataset(glyphs, "sinusoid").ways == 1
    assert for_dataset(glyphs, "cifar_fs").ways == 20
    assert for_dataset(waves, "navigation").ways == preset("navigation-maml-trpo").data.ways


def test_setting_without_effect_raises_unless_from_preset():
    """With another network too; a value of one's own is refused."""
    for config in PRESETS.values():
        check_effective(config)
        check_effective(replace(config, name="mine"))
        check_effective(replace(config, model=replace(config.model, kind="mlp")))
    config = preset("mini-imagenet-5way-1shot-maml")
    with pytest.raises(InnerloopError, match=r"^model\.filters: the network `mlp` does not read it, got 7"):
        check_effective(replace(config, model=replace(config.model, kind="mlp", filters=7)))
