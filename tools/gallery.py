"""Draw the figures of docs/gallery.md: `python -m tools.gallery`, a few minutes on a CPU, no downloads.

The functions of `innerloop.report.plots` draw them, as in reports. Small networks are trained on glyphs; waves and
navigation use shipped weights.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import innerloop as il
from innerloop.analysis import Request, analyze
from innerloop.cli import main as main_of_the_command
from innerloop.io.files import write_text
from innerloop.io.untrusted import JsonObject
from innerloop.report import examples, film_strip, plots
from innerloop.report.comparison import Result
from innerloop.report.figure_files import svg_text
from innerloop.report.plots import analysis, analysis_paths, runs, side_by_side, tasks
from innerloop.report.plots.style import Grid, draw_figure
from innerloop.training.measurement import Measurement

PLACE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "gallery"
COMPARED = ("freeze", "similarity", "nil")
EXPERIMENTS = (*COMPARED, "weights", "steps", "landscape", "paths", "early")
TASKS = 100
GLYPHS = {"MAML": "glyphs-5way-1shot-maml", "ANIL": "glyphs-5way-1shot-anil"}
NETWORK = (
    "--model.kind",
    "mlp",
    "--model.hidden",
    "64",
    "64",
    "--model.normalize",
    "--evaluation.steps",
    "5",
)
LENGTH = ("--outer.meta-steps", "1500", "--outer.meta-batch", "8", "--outer.snapshots", "6")

Made = tuple[str, Figure]


def of_analyses(maml: JsonObject, anil: JsonObject) -> Iterator[Made]:
    """Figures of the experiments on MAML, and of MAML beside ANIL."""
    one: Sequence[tuple[str, Grid, Callable[..., object]]] = (
        ("freezing", analysis.FREEZING, plots.freezing),
        ("similarity", analysis.SIMILARITY, plots.similarity),
        ("movement", analysis.MOVEMENT, plots.movement),
        ("inner-steps", analysis_paths.STEPS, plots.inner_steps),
        ("loss-plane", analysis_paths.PLANE, plots.loss_plane),
        ("paths", analysis_paths.PATHS, plots.paths),
        ("along-training", analysis_paths.ALONG, plots.along_training),
    )
    several: Sequence[tuple[str, Grid, Callable[..., object]]] = (
        ("freezing-of-runs", side_by_side.FREEZING, plots.freezing_of_runs),
        ("similarity-of-runs", side_by_side.SIMILARITY, plots.similarity_of_runs),
        ("nil-of-runs", side_by_side.NIL, plots.nil_of_runs),
    )
    for name, grid, draw in one:
        yield name, draw_figure(grid, draw, maml)
    for name, grid, draw in several:
        yield name, draw_figure(grid, draw, {"MAML": maml, "ANIL": anil})


def of_glyphs() -> Iterator[Made]:
    """Train small networks on glyphs; draw their adaptation and the experiments."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: f"{folder}/{preset}" for name, preset in GLYPHS.items()}
        for name, preset in GLYPHS.items():
            if main_of_the_command(["train", preset, *NETWORK, *LENGTH, "--folder", sources[name]]) != 0:
                raise SystemExit(1)
        yield "adaptation", adaptation(sources)
        yield from of_analyses(
            analyze(Request(sources["MAML"], num_tasks=TASKS), EXPERIMENTS),
            analyze(Request(sources["ANIL"], num_tasks=TASKS), COMPARED),
        )


def adaptation(sources: dict[str, str]) -> Figure:
    """Accuracy over inner steps."""
    measured: dict[str, Measurement] = {
        name: il.measure(il.load_trained(source), num_tasks=TASKS) for name, source in sources.items()
    }
    return draw_figure(runs.ADAPTATION, lambda ax: plots.adaptation(measured, ax))


def training() -> Figure:
    """Training curves of a short run on waves."""
    algorithm = il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.01), steps=1))
    model = il.MLP(1, 1, hidden=(40, 40), key=jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        result = il.fit(
            algorithm,
            model,
            il.Sinusoid(10, 10),
            optimizer=optax.adam(1e-3),
            meta_batch=25,
            meta_steps=3000,
            folder=folder,
            validation=il.Sinusoid(10, 100),
            progress=False,
        )
    kept = [runs.Training("MAML", [result.metrics])]
    return draw_figure(runs.training_grid(kept, "loss"), runs.training_curves, kept, "loss")


def walks() -> Figure:
    """Navigation towards one goal, before and after the updates."""
    trained = il.load_trained("navigation-maml-trpo")
    return examples.walks(Result("MAML", trained, il.measure(trained, num_tasks=4), [], {}), count=1)


def film() -> Figure:
    """A half-cheetah that runs forwards or backwards, before and after the updates."""
    trained = il.load_trained("half-cheetah-direction-maml-trpo")
    return film_strip.strip(Result("MAML", trained, il.measure(trained, num_tasks=4), [], {}))


def predictions() -> Figure:
    """One group of a synthetic table."""
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 20, 40)
    answers = {0: 100 + 0.2 * (truth - 100), 5: truth + rng.normal(0, 4, 40)}
    return draw_figure(tasks.TASK, tasks.predictions, truth, answers, "shop 7", "sales")


def wave() -> Figure:
    """One wave, with shipped weights."""
    trained = il.load_trained("sinusoid-maml")
    return examples.waves(Result("MAML", trained, il.measure(trained, num_tasks=4), [], {}), count=1)[0]


def made() -> Iterator[Made]:
    """Every figure of the page with its file name."""
    yield "training", training()
    yield "wave", wave()
    yield "predictions", predictions()
    yield "walks", walks()
    yield "film", film()
    yield from of_glyphs()


def main() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    for name, figure in made():
        write_text(PLACE / f"{name}.svg", svg_text(figure))


if __name__ == "__main__":
    main()
