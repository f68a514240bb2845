"""Algorithms whose meta-parameters, settings or starts are more than MAML's: trained, resumed, measured, used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from callback_cases import EachBlock
from test_interruption import same_run, stop_at

from innerloop.analysis.run_all import Request, analyze
from innerloop.cli import main
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, EvaluationConfig, InnerConfig, ModelConfig, OuterConfig
from innerloop.engine.pytree import by_path
from innerloop.engine.types import Batch
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.training.experiments.build import build
from innerloop.training.experiments.models import fresh_model
from innerloop.training.experiments.supervised import supervised
from innerloop.training.interruption.signals import Stopped
from innerloop.training.measure import measure
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import load_trained

INNER = {
    "sinusoid-meta-sgd": InnerConfig(steps=2, learning_rate=0.02),
    "sinusoid-maml-plus-plus": InnerConfig(steps=3, learning_rate=0.02, multi_step_updates=6),
    "sinusoid-cavia": InnerConfig(steps=2, learning_rate=0.5),
    "glyphs-5way-1shot-protomaml": InnerConfig(steps=2, learning_rate=0.1),
    "glyphs-5way-1shot-imaml": InnerConfig(steps=4, learning_rate=0.1, proximal=2.0),
}
RATED = [name for name in INNER if preset(name).spec.learns_rates]
REGRESSIONS = [name for name in INNER if name.startswith("sinusoid")]


def tiny(name: str, **model: Any) -> Config:
    """A preset in a second: 8 updates of 2 tasks."""
    return replace(
        preset(name),
        model=ModelConfig(kind="mlp", hidden=(4, 3), context=preset(name).model.context, **model),
        inner=INNER.get(name, InnerConfig(learning_rate=0.02)),
        outer=OuterConfig(
            meta_steps=8, meta_batch=2, log_every=2, validate_every=0, checkpoint_every=4, snapshots=2
        ),
        evaluation=EvaluationConfig(steps=2, tasks=4, validation_tasks=4, queries=4),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each."""
    root = tmp_path_factory.mktemp("runs")
    for name in INNER:
        train(tiny(name), root / name)
    return {name: root / name for name in INNER}


@pytest.mark.parametrize("name", RATED)
def test_step_sizes_start_at_learning_rate_and_are_trained(name: str, runs: dict[str, Path]):
    run, rate = RunFolder(runs[name]), INNER[name].learning_rate
    first, last = (weights.load(path)[0] for path in (run.snapshot(0), run.weights))
    rates = [path for path in last if path.startswith("rates/")]
    assert len(rates) * 2 == len(last)
    for path in rates:
        np.testing.assert_array_equal(first[path], np.full_like(first[path], rate))
        assert np.any(first[path] != last[path])
    model = [path.replace("rates/", "model/") for path in rates]
    wanted = [first[path].shape for path in model] if "sgd" in name else [(3,)] * len(model)
    assert [first[path].shape for path in rates] == wanted


@pytest.mark.parametrize("name", RATED)
def test_untrained_step_sizes_adapt_like_maml(name: str):
    rated, maml = (
        supervised(build(replace(tiny(name), algorithm=algorithm, inner=inner)))
        for algorithm, inner in (
            (tiny(name).algorithm, INNER[name]),
            ("maml", replace(INNER[name], multi_step_updates=0)),
        )
    )
    task = rated.train_tasks().sample(jax.random.key(0))
    found = rated.algorithm.adapt(rated.init_params(), task.support)
    expected = maml.algorithm.adapt(maml.init_params(), task.support)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("name", RATED)
def test_stopped_run_resumes_bitwise(name: str, runs: dict[str, Path], tmp_path: Path):
    """Within the schedule of MAML++ over its first six updates."""
    with pytest.raises(Stopped):
        train(tiny(name), tmp_path / "run", callbacks=[EachBlock(stop_at(2))])
    assert train(None, tmp_path / "run", resume=True).facts["meta_steps"] == 8
    same_run(tmp_path / "run", runs[name])


def test_multi_step_schedule_changes_trained_weights(runs: dict[str, Path], tmp_path: Path):
    """Without it the same run ends elsewhere."""
    name = "sinusoid-maml-plus-plus"
    plain = replace(tiny(name), inner=replace(INNER[name], multi_step_updates=0))
    train(plain, tmp_path / "run")
    ended = [weights.load(folder / "weights.safetensors")[0] for folder in (runs[name], tmp_path / "run")]
    assert any(not np.array_equal(ended[0][path], ended[1][path]) for path in ended[0])


@pytest.fixture(scope="module")
def adapt(runs: dict[str, Path]) -> dict[str, Callable[..., Any]]:
    """The adaptation of each, compiled once for all tests."""
    experiments = {name: supervised(load_trained(folder).experiment) for name, folder in runs.items()}
    return {name: jax.jit(experiment.test_algorithm.adapt) for name, experiment in experiments.items()}


@pytest.mark.parametrize("name", INNER)
def test_evaluate_command_adapts_with_run_algorithm(
    name: str, runs: dict[str, Path], adapt: dict[str, Callable[..., Any]], capsys
):
    """The curve of the command is that of `adapt` on the same tasks."""
    assert main(["evaluate", str(runs[name]), "--tasks", "4", "--json"]) == 0
    found, trained = json.loads(capsys.readouterr().out), load_trained(runs[name])
    assert found["algorithm"] == trained.config.algorithm
    experiment = supervised(trained.experiment)
    score, tasks = jax.jit(experiment.score()), experiment.held_out_tasks()
    losses = []
    for number in range(4):
        task = tasks.sample(jax.random.fold_in(jax.random.key(0), number))
        losses.append(score(adapt[name](trained.params, task.support), task)["loss"])
    np.testing.assert_allclose(found["curve"]["loss"]["mean"][-1], np.mean(losses), rtol=1e-4)


@pytest.mark.parametrize("name", INNER)
def test_learner_adapts_with_run_algorithm(
    name: str, runs: dict[str, Path], adapt: dict[str, Callable[..., Any]], tmp_path: Path
):
    """From the run's folder, without its data; what it adapted can be kept."""
    learner, trained = Learner.from_pretrained(runs[name]), load_trained(runs[name])
    experiment = supervised(trained.experiment)
    task = experiment.held_out_tasks().sample(jax.random.key(1))
    learner.fit(task.support.inputs, task.support.targets)
    expected = adapt[name](trained.params, Batch(*task.support))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), learner.params_, expected
    )
    learner.save_adapted(tmp_path / "adapted.safetensors")
    again = Learner.from_pretrained(runs[name]).load_adapted(tmp_path / "adapted.safetensors")
    np.testing.assert_array_equal(again.predict(task.query.inputs), learner.predict(task.query.inputs))


@pytest.mark.parametrize("name", ["sinusoid-maml-plus-plus", "glyphs-5way-1shot-imaml"])
def test_freezing_all_layers_gives_unadapted_scores(
    name: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: Any
):
    """With all layers frozen the scores are those before the first step."""
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    (none, *_, every) = analyze(Request(str(runs[name]), num_tasks=4), ["freeze"])["freeze"]
    metric = "loss" if name in RATED else "accuracy"
    curve = measure(load_trained(runs[name]), num_tasks=4).curves[metric].mean
    np.testing.assert_allclose([every[metric], none[metric]], [curve[0], curve[-1]], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "only"),
    [("sinusoid-meta-sgd", ()), ("glyphs-5way-1shot-protomaml", ("landscape", "paths", "weights"))],
)
def test_analyses_start_at_inner_loop_initialisation(
    name: str,
    only: tuple[str, ...],
    runs: dict[str, Path],
    adapt: dict[str, Callable[..., Any]],
    tmp_path: Path,
    monkeypatch: Any,
):
    """A line of the landscape begins where a task's inner loop does, and so do its path and its movement."""
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    found = analyze(Request(str(runs[name]), num_tasks=4), only)
    assert only or "verdict" in found
    line = found["landscape"]["line"]
    at_start = line["query_loss"]["mean"][line["along"].index(0.0)]
    trained = load_trained(runs[name])
    experiment = supervised(trained.experiment)
    tasks = experiment.held_out_tasks()
    drawn = [tasks.sample(jax.random.fold_in(jax.random.key(0), number)) for number in range(4)]
    starts: list[Any] = [experiment.algorithm.start(trained.params, task.support) for task in drawn]
    expected = [experiment.loss_fn(start, task.query) for start, task in zip(starts, drawn, strict=True)]
    np.testing.assert_allclose(at_start, np.mean(expected), rtol=1e-4)
    assert [len(path) for path in found["paths"]["head"]["wide"]] == [3] * 4
    assert all(path[0] == [0.0, 0.0] for path in found["paths"]["head"]["wide"])
    ends: list[Any] = [adapt[name](trained.params, task.support) for task in drawn]
    moved = [
        np.linalg.norm(flat(end.head) - flat(start.head)) / np.linalg.norm(flat(start.head))
        for end, start in zip(ends, starts, strict=True)
    ]
    np.testing.assert_allclose(found["weights"][-1]["relative"], np.mean(moved), rtol=1e-3)


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_warm_start_works_across_algorithms(runs: dict[str, Path], tmp_path: Path):
    """And the other way round; step sizes go on where the other run learnt them too."""
    train(tiny("sinusoid-maml"), tmp_path / "maml")
    maml = weights.load(tmp_path / "maml" / "weights.safetensors")[0]
    meta_sgd = runs["sinusoid-meta-sgd"]
    theirs = weights.load(meta_sgd / "weights.safetensors")[0]

    def first(name: str, start: Path) -> dict[str, np.ndarray]:
        folder = tmp_path / f"{name}-{start.name}"
        config = tiny(name, start=str(start))
        train(replace(config, outer=replace(config.outer, meta_steps=0)), folder)
        return weights.load(folder / "weights.safetensors")[0]

    fresh = first("sinusoid-meta-sgd", tmp_path / "maml")
    for path, array in maml.items():
        np.testing.assert_array_equal(fresh[f"model/{path}"], array)
        np.testing.assert_array_equal(fresh[f"rates/{path}"], np.full_like(array, 0.02))
    for path, array in first("sinusoid-maml", meta_sgd).items():
        np.testing.assert_array_equal(array, theirs[f"model/{path}"])
    for path, array in first("sinusoid-meta-sgd", meta_sgd).items():
        np.testing.assert_array_equal(array, theirs[path])
    steps = first("sinusoid-maml-plus-plus", meta_sgd)
    for path in maml:
        np.testing.assert_array_equal(steps[f"model/{path}"], theirs[f"model/{path}"])
        np.testing.assert_array_equal(steps[f"rates/{path}"], np.full(3, np.float32(0.02)))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "sinusoid-maml",
            {"algorithm": "protomaml"},
            "ProtoMAML: cannot learn from such tasks, got sinusoid",
        ),
        (
            "navigation-maml-trpo",
            {"algorithm": "meta_sgd"},
            "Meta-SGD: cannot learn from such tasks, got nav",
        ),
        ("navigation-maml-trpo", {"algorithm": "imaml"}, "iMAML: cannot learn"),
        ("navigation-maml-trpo", {"algorithm": "cavia"}, "CAVIA: cannot learn"),
        ("sinusoid-maml", {"algorithm": "cavia"}, "model.context: CAVIA adapts context parameters, got 0"),
        (
            "sinusoid-maml",
            {"inner": InnerConfig(proximal=2.0)},
            r"inner.proximal: MAML does not use it, got 2.0",
        ),
        (
            "sinusoid-meta-sgd",
            {"inner": InnerConfig(multi_step_updates=5)},
            "inner.multi_step_updates: Meta-SGD",
        ),
        ("sinusoid-meta-sgd", {"inner": InnerConfig(optimizer="persistent_adam")}, "is for Reptile"),
    ],
)
def test_incompatible_settings_raise(name: str, changes: dict[str, Any], message: str):
    with pytest.raises(InnerloopError, match=message):
        build(replace(preset(name), **changes))


def test_measure_with_learning_rate_raises_for_meta_sgd(runs: dict[str, Path]):
    with pytest.raises(InnerloopError, match="the step sizes of Meta-SGD are learned, got 0.1"):
        measure(load_trained(runs["sinusoid-meta-sgd"]), num_tasks=4, learning_rate=0.1)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_adapt_command_accepts_points_file(name: str, runs: dict[str, Path], tmp_path: Path):
    points = tmp_path / "points.csv"
    points.write_text("x,y\n" + "".join(f"{x},{np.sin(x):.4f}\n" for x in range(-4, 5)) + "0.5,\n")
    assert main(["adapt", str(runs[name]), str(points)]) == 0


def test_divergence_error_names_inner_step_and_task(tmp_path: Path):
    """The weighted losses of MAML++ are those of the update that went wrong."""
    name = "sinusoid-maml-plus-plus"
    wild = replace(tiny(name), inner=replace(INNER[name], learning_rate=1e9))
    with pytest.raises(InnerloopError, match=r"meta-step 1, in inner step \d of task 0"):
        train(wild, tmp_path / "run")


def test_cavia_trains_all_parameters_except_context(runs: dict[str, Path]):
    """Which is zero before and after training; at test it alone moves."""
    run = RunFolder(runs["sinusoid-cavia"])
    first, last = (weights.load(path)[0] for path in (run.snapshot(0), run.weights))
    assert not last["context"].any()
    assert all(np.any(first[path] != last[path]) for path in last if path != "context")
    learner = Learner.from_pretrained(run.path).fit(np.arange(6.0)[:, None], np.sin(np.arange(6.0)))
    found = by_path(learner.params_)
    for path, array in found.items():
        assert np.array_equal(array, last[path]) == (path != "context")


def test_analyze_rejects_cavia(runs: dict[str, Path]):
    with pytest.raises(InnerloopError, match="CAVIA adapts neither body nor head"):
        analyze(Request(str(runs["sinusoid-cavia"]), num_tasks=4))


def test_conv4_rejects_context_parameters():
    cavia, glyphs = tiny("sinusoid-cavia"), preset("glyphs-5way-1shot-maml")
    conv = replace(cavia, data=glyphs.data, model=replace(cavia.model, kind="conv4"))
    with pytest.raises(InnerloopError, match="`conv4` has no context parameters, got 4"):
        build(conv).init_params()


@pytest.mark.parametrize(("size", "expected"), [(4, (4, 4, 1)), (0, None)])
def test_pretrained_input_shape_excludes_context(size: int, expected: tuple[int, ...] | None, tmp_path: Path):
    """Pictures of one's own, of which the weights alone tell the number of channels or of inputs."""
    data = replace(preset("glyphs-5way-1shot-maml").data, dataset="folder", folder="gone", size=size)
    config = replace(tiny("sinusoid-cavia"), data=data)
    model = fresh_model(config, (4, 4, 1), jax.random.key(0))
    weights.save(tmp_path / "own.safetensors", model, config, {})
    learner = Learner.from_pretrained(tmp_path / "own.safetensors")
    assert learner.shape == expected
    learner.fit(np.random.default_rng(0).random((5, 4, 4, 1)), list("abcde"))
