"""The report itself: one HTML file that needs nothing beside it."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from matplotlib.figure import Figure

from innerloop.errors import InnerloopError
from innerloop.io.files import OutputFolder
from innerloop.report import examples, film_strip, run_figures, settings_table
from innerloop.report.html_blocks import (
    CSS,
    episode_block,
    escaped,
    results_table,
    save_figures,
    svg,
    together,
)
from innerloop.report.measurements import Group, Result
from innerloop.report.sentences import conditions, verdict

Kept = dict[str, Figure]
"""Figures by file name."""


def write(
    groups: Sequence[Group],
    draft: AbstractContextManager[Path],
    done: Callable[[str], None] = lambda what: None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the page into a draft of it, and every run's figures into its own folder.

    `done(what)` is told each finished part. Raises InnerloopError where a file cannot be written.
    """
    sections = []
    for number, group in enumerate(groups):
        sections.append(_section(group, number))
        done(group.title)
    with draft as path:
        path.write_text(_page(groups, sections), encoding="utf-8")


def _page(groups: Sequence[Group], sections: Sequence[str]) -> str:
    """The whole page."""
    runs = [run for group in groups for run in group.runs]
    title = f"Report on {runs[0].trained.config.name}" if len(runs) == 1 else f"Report on {len(runs)} runs"
    links = "".join(f'<a href="#g{i}">{escaped(g.title)}</a>' for i, g in enumerate(groups))
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title><style>{CSS}</style></head><body>",
            f"<h1>{escaped(title)}</h1>",
            f"<nav>{links}</nav>" if len(groups) > 1 else "",
            *sections,
            "<h2>Settings and environment</h2>",
            settings_table.config_tables(groups),
            settings_table.environment_table(runs),
            "</body></html>\n",
        ]
    )


def _section(group: Group, number: int) -> str:
    """Everything about one problem."""
    curves = {"adaptation": run_figures.adaptation(group)}
    if (trained := run_figures.training(group)) is not None:
        curves["training"] = trained
    _keep(group.runs, curves)
    captions = {
        "adaptation": f"{SCORED[group.runs[0].score]} after each inner step; bands are 95 % intervals of the mean over "
        "tasks.",
        "training": "Means over each block of meta-steps. Algorithms differ in what their outer loss is (Reptile's "
        "is that of its last inner step): compare them by validation.",
    }
    shown = "".join(
        f"<figure>{svg(figure, name)}<figcaption>{captions[name]}</figcaption></figure>"
        for name, figure in curves.items()
    )
    return "\n".join(
        [
            f'<h2 id="g{number}">{escaped(group.title)}</h2>',
            f'<p class="verdict">{together(verdict(group))}</p>',
            results_table(group),
            f'<p class="soft">{together(conditions(group))}</p>',
            f'<div class="figures">{shown}</div>',
            "<h3>Examples: held-out tasks</h3>",
            EXAMPLES[group.runs[0].score](group),
        ]
    )


def _keep(runs: Sequence[Result], curves: Kept) -> None:
    """Save figures as PNG and SVG in `figures/` of each run's folder, too: where that is not possible, warn."""
    for run in runs:
        if run.folder is None:
            continue
        try:
            save_figures(OutputFolder(run.folder), curves)
        except InnerloopError as error:
            warnings.warn(f"innerloop: the page holds the figures, but {error}", stacklevel=2)


def _wave_blocks(group: Group) -> str:
    """The fitted waves of every run, the first run's in view."""
    blocks = []
    for run in group.runs:
        drawn = examples.waves(run)
        _keep([run], {f"wave-{i}": figure for i, figure in enumerate(drawn, 1)})
        shown = "".join(f"<figure>{svg(figure, 'a wave')}</figure>" for figure in drawn)
        blocks.append(_folded(run, f'<div class="waves">{shown}</div>', run is group.runs[0]))
    return "".join(blocks)


def _episode_blocks(group: Group) -> str:
    """The answered episodes of every run, the first run's in view."""
    drawn = [
        f'<div class="episodes">{"".join(map(episode_block, examples.episodes(run)))}</div>'
        for run in group.runs
    ]
    hint = (
        '<p class="soft">Support: the labelled examples adapted on. Each query with its true label, then the answer '
        'after that many inner steps: <span class="mark right">B ✓</span> right, '
        '<span class="mark wrong">C ✗</span> wrong.</p>'
    )
    return hint + "".join(
        _folded(run, d, run is group.runs[0]) for run, d in zip(group.runs, drawn, strict=True)
    )


def _film_blocks(group: Group) -> str:
    """The film strips of every run, the first run's in view."""
    hint = (
        '<p class="soft">One trajectory of a body before and after the updates, a picture every second or so, drawn '
        "from its model; the ground is marked every half metre, and the view goes along.</p>"
    )
    blocks = []
    for run in group.runs:
        figure = film_strip.strip(run)
        _keep([run], {"film": figure})
        blocks.append(_folded(run, f"<figure>{svg(figure, 'film strip')}</figure>", run is group.runs[0]))
    return hint + "".join(blocks)


def _policy_blocks(group: Group) -> str:
    """Paths in the plane for navigation, films for bodies."""
    walks = not group.runs[0].trained.config.data.spec.body
    return _walk_blocks(group) if walks else _film_blocks(group)


def _walk_blocks(group: Group) -> str:
    """The paths of every run, the first run's in view."""
    hint = (
        '<p class="soft">Ten trajectories towards each goal (star) from the origin (black), before and after each '
        "update; a dot is where a trajectory ended.</p>"
    )
    blocks = []
    for run in group.runs:
        figure = examples.walks(run)
        _keep([run], {"paths": figure})
        blocks.append(_folded(run, f"<figure>{svg(figure, 'paths')}</figure>", run is group.runs[0]))
    return hint + "".join(blocks)


EXAMPLES = {"accuracy": _episode_blocks, "loss": _wave_blocks, "return": _policy_blocks}
SCORED = {"accuracy": "Score on queries", "loss": "Score on queries", "return": "Undiscounted return"}


def _folded(run: Result, body: str, shown: bool) -> str:
    """One run's examples behind its name."""
    name = escaped(f"{run.label}: {run.trained.source}" if run.folder else run.label)
    return f"<details{' open' if shown else ''}><summary>{name}</summary>{body}</details>"
