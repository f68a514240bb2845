"""`innerloop quickstart`: train, measure and compare the four algorithms on two small problems, in minutes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from innerloop.cli.common import console, parse, start_jax
from innerloop.cli.seeds import remaining
from innerloop.cli.tables import new_table
from innerloop.config.bounds import POSITIVE, TASKS, Bounds
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.io.files import check_output_folder
from innerloop.io.folders import OutputFolder
from innerloop.io.text import diverged, shell_command
from innerloop.training.interruption.signals import Stopped

if TYPE_CHECKING:
    import innerloop.report.measurements


@dataclass(frozen=True)
class Quickstart:
    """Meta-train MAML, FOMAML, ANIL and Reptile on sinusoids and on glyphs, measure them on held-out tasks, print a
    table and write a report. Takes about two minutes on two idle cores; finished runs are reused.
    """

    folder: Annotated[Path, arg(metavar="DIR")] = Path("runs/quickstart")
    """Where to keep the runs and the report."""
    tasks: Annotated[int, TASKS, arg(metavar="N")] = 400
    """Held-out tasks per measurement."""
    effort: Annotated[float, Bounds(POSITIVE.low, 1000), arg(metavar="X")] = 1.0
    """Length of training, as a multiple of the default."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop quickstart` and return the exit code."""
    arguments = parse(Quickstart, argv)
    start_jax()
    begun, plan = time.monotonic(), _configs(arguments.effort)
    check_output_folder(arguments.folder)
    for config in plan:  # before anything is trained
        remaining(arguments.folder / config.name, config)
    OutputFolder(arguments.folder).check("report.html")
    console().print(
        f"Trains {len(plan)} initialisations on sinusoids and glyphs into {arguments.folder}, then measures them. "
        "Ctrl-C saves and stops; the same command continues."
    )
    for number, config in enumerate(plan, 1):
        code = _trained(arguments.folder / config.name, config, f"{number}/{len(plan)} {config.name}")
        if code:
            return code
    _measure_and_report([str(arguments.folder / config.name) for config in plan], arguments)
    from innerloop.training.progress.progress_words import duration

    console().print(f"Took {duration(time.monotonic() - begun)}.")
    return 0


def _configs(effort: float) -> list[Config]:
    """Short runs: fewer meta-steps and filters than in the papers, the same tasks for all algorithms on a problem."""
    sinusoids = [_sinusoid(name) for name in ("maml", "fomaml", "anil", "reptile", "joint")]
    glyphs = [_glyph(name) for name in ("maml", "fomaml", "anil", "reptile")]
    return [_shortened(config, effort) for config in sinusoids + glyphs]


def _sinusoid(algorithm: str) -> Config:
    """MAML's sinusoids; Reptile learns the same waves from 50 points each."""
    config = preset(f"sinusoid-{algorithm}")
    data = replace(config.data, protocol="maml", queries=10)
    evaluation = replace(config.evaluation, queries=100, validation_tasks=200, steps=10)
    if config.spec.reads_query:
        # Ten times the step size of the preset: short training needs it, and ten steps on ten points stay stable.
        inner, meta_steps = replace(config.inner, learning_rate=0.01), 5000
    else:
        inner, meta_steps = config.inner, 20_000
    outer = replace(config.outer, meta_steps=meta_steps)
    return replace(config, data=data, evaluation=evaluation, inner=inner, outer=outer)


def _glyph(algorithm: str) -> Config:
    """5-way 1-shot glyphs with half the papers' filters and small meta-batches."""
    config = preset(f"glyphs-5way-1shot-{algorithm}")
    meta_batch, meta_steps = (8, 500) if config.spec.reads_query else (4, 600)
    return replace(
        config,
        model=replace(config.model, filters=32),
        outer=replace(config.outer, meta_batch=meta_batch, meta_steps=meta_steps),
        evaluation=replace(config.evaluation, validation_tasks=100),
    )


def _shortened(config: Config, effort: float) -> Config:
    """The config with its training length scaled, and ten log lines, two of them with a validation."""
    steps = max(10, round(config.outer.meta_steps * effort))
    block = -(-steps // 10)
    outer = replace(
        config.outer,
        meta_steps=10 * block,
        log_every=block,
        validate_every=5 * block,
        checkpoint_every=5 * block,
    )
    return replace(config, outer=outer)


def _trained(folder: Path, config: Config, title: str) -> int:
    """Train one run unless it is finished; return 0, or the exit code after a signal."""
    from innerloop.cli.progress import train_until_stopped
    from innerloop.training.storage import weights
    from innerloop.training.storage.run_directory import RunFolder
    from innerloop.training.train import train

    out, job = console(), remaining(folder, config)
    if job is None:
        path = RunFolder(folder).weights
        weights.check_config(path, config, weights.load(path)[1])
        out.print(f"{title}: already trained, reused")
        return 0

    def tell(_: Stopped) -> None:
        out.print(f"Stopped in {config.name}; everything is saved. Run the same command to continue.")

    work = lambda display: train(job.config, folder, callbacks=[display], progress=False, resume=job.resume)
    return train_until_stopped(out, title, tell, work)


def _measure_and_report(sources: Sequence[str], arguments: Quickstart) -> None:
    """Measure all runs, print the table, write the report."""
    from innerloop.cli.progress import counting
    from innerloop.report import measurements, run_page
    from innerloop.training.trained import load_trained

    loaded = [load_trained(source) for source in sources]
    groups = measurements.gather(loaded, arguments.tasks, partial(counting, console()))
    _show(groups)
    console().print("Drawing the figures of the report.")
    run_page.write(groups, OutputFolder(arguments.folder).replacing("report.html"))
    console().print(f"Report: {arguments.folder / 'report.html'}", style="bold")
    console().print(f"Next:   {shell_command('evaluate', sources[0])}")


def _show(groups: "Sequence[innerloop.report.measurements.Group]") -> None:
    """Print all results in one table."""
    scores = ("before adapting", "after 1 step", "after all steps")
    rows: list[Sequence[str]] = []
    for group in groups:
        for i, result in enumerate(group.results):
            found = result.measurement
            at = (result.shown_at(step) for step in (0, 1, found.inner_steps))
            title = "" if i else group.title
            rows.append((title, result.label, *at, str(found.inner_steps), str(found.tasks)))
        rows.append(())
    headings = ("problem", "initialisation", *scores, "inner steps", "tasks")
    out = console()
    out.print(new_table(*headings, left=2, rows=rows, optional=("tasks", "inner steps", "before adapting")))
    for result in (result for group in groups for result in group.results):
        if words := diverged(result.measurement.diverged_tasks, result.measurement.tasks):
            out.print(f"{result.label}: {words}.", style="bold")
    images = [group for group in groups if group.runs[0].score == "accuracy"]
    modes = {group.runs[0].trained.config.evaluation.normalization for group in images}
    out.print(
        "Accuracy (glyphs) or squared error (sinusoids) on queries of new tasks, mean ± 95 % interval, seed 0; "
        f"normalisation of glyphs: {', '.join(sorted(modes))}."
    )
