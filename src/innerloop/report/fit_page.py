"""The report page on runs of `innerloop.fit` and `fit_policy`: what training logged.

Models and tasks, or policies and environments, are the caller's, so nothing is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from innerloop.config.serialization import flattened
from innerloop.errors import InnerloopError
from innerloop.io.text import grouped
from innerloop.io.untrusted import JsonObject, read_object
from innerloop.report.figure_files import framed
from innerloop.report.html_blocks import document, escaped, table
from innerloop.report.measurements import first_distinct
from innerloop.report.plots.runs import Training, training_figure, training_metric
from innerloop.report.settings_table import folded_table
from innerloop.training.custom.best_validation import MODES, Best, BestRule
from innerloop.training.storage.run_directory import RunFile, RunFolder
from innerloop.training.storage.sources import weights_path

BULKY = ("parameters", "optimizer", "programs")
"""Settings that are needed to resume a run but mean nothing to a reader."""


@dataclass(frozen=True)
class FitRun:
    """What the folder of a run holds: its label, its settings and the lines of its metrics."""

    label: str
    settings: JsonObject
    metrics: list[JsonObject]

    @property
    def monitor(self) -> str:
        """The score by which validations were compared; empty if there were none."""
        return str(self.settings.get("monitor", ""))

    @property
    def best(self) -> Best:
        """The best validation."""
        mode = "max" if self.settings.get("mode", MODES.get(self.monitor)) == "max" else "min"
        return BestRule(self.monitor, mode).best_of(self.metrics)


def load(folders: Sequence[str | Path]) -> list[FitRun]:
    """Read runs without a config; their labels are the folders' names, or whole paths if these are not distinct.

    Raises InnerloopError for a folder that holds no such run, or files that a run would not write.
    """
    found, names = [], [Path(folder).resolve().name for folder in folders]
    for label, source in zip(first_distinct(list(map(str, folders)), names), folders, strict=True):
        folder = RunFolder(source)
        if not folder.is_fit:
            if not folder.path.exists():
                weights_path(source)  # raises, unless it is the name of a preset
            hint = "report on them separately"
            raise InnerloopError(
                str(folder.path), "is not a run of `innerloop.fit` or `fit_policy`, unlike others", hint=hint
            )
        metrics = folder.metrics()
        if not metrics:
            hint = "resume it with `resume=True`"
            raise InnerloopError(str(folder.path), "has logged no metrics yet", hint=hint)
        found.append(FitRun(label, read_object(folder.path / RunFile.FIT, follow=False), metrics))
    return found


def page(runs: Sequence[FitRun]) -> str:
    """The page, with one section for each score by which validations were compared."""
    title = f"Training of {runs[0].label}" if len(runs) == 1 else f"Training of {len(runs)} runs"
    scores = list(dict.fromkeys(run.monitor for run in runs))
    sections = [_section(score, [run for run in runs if run.monitor == score]) for score in scores]
    note = (
        "These runs of <code>innerloop.fit</code> or <code>fit_policy</code> use models and tasks of your own, so "
        "this page shows what training logged. To measure them on held-out tasks, give "
        "<code>innerloop.evaluate</code>, or for policies <code>innerloop.rl.evaluate_policy</code>, the weights "
        "that <code>innerloop.load_params</code> reads."
    )
    parts = [f"<h1>{escaped(title)}</h1>", *sections, f'<p class="soft">{note}</p>', _settings(runs)]
    return document(title, parts)


def figure(runs: Sequence[FitRun]) -> Figure:
    """Outer loss and validation score of runs with the same score."""
    return training_figure([Training(run.label, [run.metrics]) for run in runs], runs[0].monitor)


def _section(score: str, runs: Sequence[FitRun]) -> str:
    """Runs with the same score: their curves and where they ended."""
    name = f"Validation by {score.replace('_', ' ')}" if score else "Without validation"
    outcomes = {"outer loss" if training_metric(run.metrics) == "outer_loss" else "return" for run in runs}
    heads = [
        "run",
        "algorithm",
        "inner steps",
        "meta-steps",
        f"last {' or '.join(sorted(outcomes))}",
        "best validation",
        "at meta-step",
    ]
    return "\n".join(
        [
            f"<h2>{escaped(name)}</h2>",
            table(heads, [("", _row(run)) for run in runs], 2),
            f'<div class="figures">{framed(figure(runs), "training")}</div>',
        ]
    )


def _row(run: FitRun) -> list[str]:
    """One run in numbers."""
    last, best = run.metrics[-1], run.best
    name = training_metric(run.metrics)
    outcome = next((line[name] for line in reversed(run.metrics) if name in line), None)
    number = lambda value: "" if value is None else f"{value:.4g}"
    cells = [
        escaped(run.label),
        *(escaped(str(run.settings.get(k, ""))) for k in ("algorithm", "inner_steps")),
    ]
    cells += [grouped(int(last["step"])), number(outcome)]
    return cells + ([number(best.value), grouped(best.step)] if best.step is not None else ["", ""])


def _settings(runs: Sequence[FitRun]) -> str:
    """The settings of all runs."""
    flat = [flattened({k: v for k, v in run.settings.items() if k not in BULKY}) for run in runs]
    return folded_table("Settings", ["setting", *(run.label for run in runs)], flat)
