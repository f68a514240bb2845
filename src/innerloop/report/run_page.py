"""The report page on runs: one self-contained HTML file."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from matplotlib.figure import Figure

from innerloop.errors import InnerloopError
from innerloop.io.folders import OutputFolder
from innerloop.report import examples, film_strip, settings_table
from innerloop.report.comparison import Result
from innerloop.report.figure_files import framed, rendered, save_figures
from innerloop.report.html_blocks import document, episode_block, escaped, folded, nonbreaking, results_table
from innerloop.report.measurements import Group
from innerloop.report.plots import runs as curves
from innerloop.report.plots.runs import Curve, Training
from innerloop.report.plots.style import draw_figure
from innerloop.report.sentences import adaptation_caption, conditions, training_caption, verdict
from innerloop.training.storage.run_directory import RunFile

EPISODES = (
    '<p class="soft">Support: the labelled examples to adapt to. Each query with its true label, then the answer '
    'after each number of inner steps: <span class="mark right">B ✓</span> right, '
    '<span class="mark wrong">C ✗</span> wrong.</p>'
)
FILM = (
    '<p class="soft">One trajectory of a body before and after the updates, a picture every second or so, drawn '
    "from its model; the ground is marked every half metre, and the view follows the body.</p>"
)
WALKS = (
    '<p class="soft">Ten trajectories towards each goal (star) from the origin (black), before and after each '
    "update; a dot marks where a trajectory ended.</p>"
)


def write(
    groups: Sequence[Group],
    draft: AbstractContextManager[Path],
    done: Callable[[str], None] = lambda what: None,
) -> None:
    """Write the page to the path that `draft` gives, and the figures of every run into the run's folder.

    `done` is called with the title of each finished group. Raises InnerloopError if the page cannot be written.
    """
    sections = []
    for number, group in enumerate(groups):
        _warn_of_missing_records(group)
        sections.append(_section(group, number))
        done(group.title)
    with draft as path:
        path.write_text(_page(groups, sections), encoding="utf-8")


def _warn_of_missing_records(group: Group) -> None:
    """Warn of runs in whose folder a record is missing or empty, so that the page lacks what it holds."""
    for run in group.members:
        records = {RunFile.METRICS: run.metrics, RunFile.ENVIRONMENT: run.environment}
        for name, found in records.items():
            if run.trained.folder is not None and not found:
                what = "training curves" if name is RunFile.METRICS else "environment"
                why = f"{run.trained.folder / name} is missing or empty"
                warnings.warn(f"innerloop: the report omits the {what} of {run.label} ({why})", stacklevel=2)


def _page(groups: Sequence[Group], sections: Sequence[str]) -> str:
    """The whole page."""
    runs = [run for group in groups for run in group.members]
    title = f"{groups[0].title}: {runs[0].label}" if len(runs) == 1 else f"Report on {len(runs)} runs"
    links = "".join(f'<a href="#g{i}">{escaped(g.title)}</a>' for i, g in enumerate(groups))
    return document(
        title,
        [
            f"<h1>{escaped(title)}</h1>",
            f"<nav>{links}</nav>" if len(groups) > 1 else "",
            *sections,
            "<h2>Settings and environment</h2>",
            *map(settings_table.config_table, groups),
            settings_table.environment_table(runs),
        ],
    )


def _section(group: Group, number: int) -> str:
    """The section on one problem."""
    figures = {"adaptation": adaptation_figure(group)}
    if (trained := training_figure(group)) is not None:
        figures["training"] = trained
    _keep(group.members, figures)
    captions = {"adaptation": adaptation_caption(group), "training": training_caption(group)}
    shown = "".join(framed(figure, name, captions[name]) for name, figure in figures.items())
    return "\n".join(
        [
            f'<h2 id="g{number}">{escaped(group.title)}</h2>',
            f'<p class="verdict">{nonbreaking(verdict(group))}</p>',
            results_table(group),
            f'<p class="soft">{nonbreaking(conditions(group))}</p>',
            f'<div class="figures">{shown}</div>',
            "<h3>Examples: held-out tasks</h3>",
            EXAMPLES[group.runs[0].score](group),
        ]
    )


def adaptation_figure(group: Group) -> Figure:
    """The score after each inner step, with its 95 % interval or its standard deviation over seeds."""
    shown = [Curve(r.label, r.measurement, r.baseline) for r in group.runs + group.baselines]
    return draw_figure(curves.ADAPTATION, curves.adaptation_curves, shown)


def training_figure(group: Group) -> Figure | None:
    """Outer loss and validation score during training; None if no run has metrics."""
    kept = [Training(run.label, [member.metrics for member in run.members]) for run in group.runs]
    if not any(lines for one in kept for lines in one.metrics):
        return None
    return curves.training_figure(kept, group.runs[0].score)


def _keep(runs: Sequence[Result], figures: dict[str, Figure]) -> None:
    """Save figures by file name in `figures/` of each run's folder; if that fails, warn."""
    folders = [run.trained.folder for run in runs if run.trained.folder is not None]
    files = rendered(figures) if folders else {}
    for folder in folders:
        try:
            save_figures(OutputFolder(folder), files)
        except InnerloopError as error:
            warnings.warn(f"innerloop: the figures are in the page, but {error}", stacklevel=2)


def _wave_blocks(group: Group) -> str:
    """The fitted waves, or groups of a table, of every run."""

    def waves(run: Result) -> str:
        table = run.trained.config.data.spec.needs_file
        drawn, what = (examples.fits(run), "group") if table else (examples.waves(run), "wave")
        _keep([run], {f"{what}-{i}": figure for i, figure in enumerate(drawn, 1)})
        shown = "".join(framed(figure, f"a {what}") for figure in drawn)
        return f'<div class="waves">{shown}</div>'

    return _example_blocks(group, waves)


def _episode_blocks(group: Group) -> str:
    """The episodes of every run with its predictions."""
    episodes = lambda run: (
        f'<div class="episodes">{"".join(map(episode_block, examples.episodes(run)))}</div>'
    )
    return EPISODES + _example_blocks(group, episodes)


def _policy_blocks(group: Group) -> str:
    """Films of bodies; for navigation, paths in the plane."""
    if group.runs[0].trained.config.data.spec.body:
        hint, name, alt, draw = FILM, "film", "film strip", film_strip.strip
    else:
        hint, name, alt, draw = WALKS, "paths", "paths", examples.walks

    def shown(run: Result) -> str:
        figure = draw(run)
        _keep([run], {name: figure})
        return framed(figure, alt)

    return hint + _example_blocks(group, shown)


def _example_blocks(group: Group, draw: Callable[[Result], str]) -> str:
    """The examples of every run, from the first seed if there are several; those of the first run are unfolded."""
    shown = [run.members[0] for run in group.runs]
    return "".join(folded(_name(run), draw(run), shown=run is shown[0]) for run in shown)


EXAMPLES = {"accuracy": _episode_blocks, "loss": _wave_blocks, "return": _policy_blocks}


def _name(run: Result) -> str:
    """The name of a run over its examples."""
    return f"{run.label}: {run.trained.source}" if run.trained.folder else run.label
