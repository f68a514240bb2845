"""Every number of a config and of an option has both bounds, and what is beyond them is one sentence."""

import dataclasses
import json
import math
from typing import Any, get_args, get_type_hints

import pytest

from innerloop import cli
from innerloop.analysis.run_all import Request
from innerloop.cli import (
    adapt,
    analyze,
    compare,
    completion,
    demo,
    evaluate,
    export,
    presets,
    quickstart,
    report,
    reproduce,
    train_arguments,
)
from innerloop.cli.common import _option
from innerloop.config.bounds import Bounds, Field, bounds_of
from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
    RLConfig,
    Section,
)
from innerloop.config.serialization import from_json
from innerloop.errors import InnerloopError
from innerloop.training import measure
from innerloop.training import trained as training_trained
from innerloop.training.experiments.supervised import SupervisedExperiment

SECTIONS = (Config, DataConfig, EvaluationConfig, InnerConfig, ModelConfig, OuterConfig, RLConfig)
COMMANDS = {
    "list": presets.List,
    "train": train_arguments.TrainRL,
    "evaluate": evaluate.Evaluate,
    "adapt": adapt.Adapt,
    "export": export.Export,
    "analyze": analyze.Analyze,
    "report": report.Report,
    "compare": compare.Compare,
    "reproduce": reproduce.Reproduce,
    "quickstart": quickstart.Quickstart,
    "demo": demo.Demo,
    "completion": completion.Completion,
}
NEEDED = {
    "train": ("navigation-random",),
    "adapt": ("x", "y"),
    "export": ("x", "--support", "y", "--out", "z"),
} | dict.fromkeys(("list", "quickstart"), ())
"""Words before the options; the others need one."""


def numeric(cls: type) -> list[str]:
    """The fields of a dataclass that hold numbers."""
    hints = get_type_hints(cls)
    kinds = {f.name: {hints[f.name], *get_args(hints[f.name])} for f in dataclasses.fields(cls)}
    return [name for name, kind in kinds.items() if {int, float} & kind]


def beyond(field: Field) -> list[Any]:
    """Values outside, a little and far; floats also without value."""
    low, high = field.bounds.low, field.bounds.high
    outside = [low - 1, high + 1, -(10**30), 10**30] if field.integer else [-1.0, 2.0 * high, 1e300]
    outside += [] if field.integer else [math.nan, math.inf, -math.inf]
    outside += [] if field.integer or low == 0 else [0.0]
    return [(value,) for value in outside] if field.bounds.length else outside


SETTINGS = [(cls, name) for cls in SECTIONS for name in numeric(cls)]
OPTIONS = [(word, name) for word, cls in COMMANDS.items() for name in numeric(cls)]


def test_all_sections_and_commands_are_covered():
    """All sections of a config, all commands; and the walk finds their numbers."""
    hints = get_type_hints(Config).values()
    assert {Config, *(h for h in hints if dataclasses.is_dataclass(h))} == set(SECTIONS)
    assert all(issubclass(cls, Section) for cls in SECTIONS)
    assert set(COMMANDS) == set(cli.COMMANDS)
    assert len(SETTINGS) >= 38
    assert {name for word, name in OPTIONS if word == "evaluate"} == {
        *("tasks", "steps", "shots", "queries", "seed", "devices")
    }


@pytest.mark.parametrize(("cls", "name"), SETTINGS, ids=lambda x: getattr(x, "__name__", x))
def test_settings_are_bounded_in_python_and_json(cls: type[Section], name: str):
    """Refused from Python and from JSON, by its own name; its bounds themselves are fine."""
    field = bounds_of(cls)[name]
    make = lambda value: cls(**{name: value})
    for value in beyond(field):
        with pytest.raises(InnerloopError, match=f"^{cls.SECTION}{name}: "):
            make(value)
        values: Any = {name: value}
        values = {cls.SECTION[:-1]: values} if cls.SECTION else values
        with pytest.raises(InnerloopError, match=f"^x.json: .*({name}|not finite)"):
            from_json(json.dumps(values), "x.json")
    for bound in (field.bounds.low, field.bounds.high):
        value = int(bound) if field.integer else float(bound)
        assert make((value,) if field.bounds.length else value)


@pytest.mark.parametrize(("cls", "name"), SETTINGS, ids=lambda x: getattr(x, "__name__", x))
def test_settings_are_bounded_on_command_line(cls: type[Section], name: str, complaint):
    """Named as the option that it is."""
    field = bounds_of(cls)[name]
    value = beyond(field)[1]
    words = [f"{value[0] if field.bounds.length else value}"]
    named = f"--{cls.SECTION}{name}".replace("_", "-")
    assert f"innerloop: {named}: " in complaint("train", "navigation-random", named, *words)


@pytest.mark.parametrize(("word", "name"), OPTIONS)
def test_command_options_are_bounded(word: str, name: str, complaint):
    cls = COMMANDS[word]
    field, named = bounds_of(cls)[name], _option(cls, name)
    for value in beyond(field)[:2]:
        told = complaint(word, *NEEDED.get(word, ("x",)), f"{named}={value}")
        assert told.startswith(f"innerloop: {named}: must be ")


def test_analyze_request_is_bounded():
    assert set(bounds_of(Request)) == set(numeric(Request))
    for name, field in bounds_of(Request).items():
        for value in beyond(field):
            with pytest.raises(InnerloopError, match=rf"^analyze\.{name}: must be"):
                Request("x", **{name: value})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": DataConfig(ways=10_000, shots=10_000)}, "outer.meta_batch x data.ways x data.shots"),
        ({"model": ModelConfig(hidden=(4, 10**6, 10**6))}, "a layer of model.hidden x the next"),
        (
            {"data": DataConfig(dataset="navigation"), "rl": RLConfig(horizon=10**6, trajectories=99)},
            "rl.horizon",
        ),
        (
            {"outer": OuterConfig(log_every=10**6, meta_steps=10**6), "inner": InnerConfig(steps=10**4)},
            "outer",
        ),
        (
            {"data": DataConfig(ways=10**4), "evaluation": EvaluationConfig(queries=10**6)},
            "evaluation.queries",
        ),
    ],
)
def test_products_of_settings_are_bounded(changes: dict, named: str):
    with pytest.raises(InnerloopError, match=f"{named}.*must be 2 147 483 647 or less, got .* x "):
        dataclasses.replace(Config(), **changes)


def test_number_of_hidden_layers_is_bounded():
    with pytest.raises(
        InnerloopError, match=r"model.hidden: must be 256 numbers or fewer, got \(1, 1, .{,90}$"
    ):
        ModelConfig(hidden=(1,) * 100_000)


def test_integers_with_too_many_digits_are_rejected(complaint):
    with pytest.raises(InnerloopError, match="got a number of thousands of digits"):
        Config(seed=10**5000)
    code = cli.main(["train", "sinusoid-maml", "--seed", "9" * 5000])
    assert code == 2


def test_measure_arguments_are_bounded():
    """What `measure` is asked for becomes settings; nothing is computed before."""
    run = training_trained.Trained({}, SupervisedExperiment(Config()), "x", {})
    for name, value in {"num_tasks": 10**18, "steps": 10**18, "queries": 0, "learning_rate": -1.0}.items():
        with pytest.raises(InnerloopError, match=f"^(evaluation|inner).{name.removeprefix('num_')}: must be"):
            measure.measure(run, **{name: value})
    with pytest.raises(InnerloopError, match=r"^data\.shots: must be"):
        measure.measure(run, shots=10**10)


def test_bounds_leave_room_above_presets():
    """Far from every preset: an honest number is never refused."""
    from innerloop.config.presets.registry import all_presets

    for config in all_presets().values():
        for part in (
            config,
            *(getattr(config, name) for name in ("data", "inner", "outer", "evaluation", "rl")),
        ):
            for name, field in bounds_of(type(part)).items():
                value = getattr(part, name)
                if field.integer and isinstance(value, int):
                    assert 10 * value <= field.bounds.high, name


def test_bounds_require_low_and_high():
    with pytest.raises(TypeError):
        Bounds(1)  # pyright: ignore[reportCallIssue]
