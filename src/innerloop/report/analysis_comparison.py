"""Analyses of several runs side by side: one page, its figures, and tables with a column `run`."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from innerloop.analysis.verdict import frozen_lines, nil_line
from innerloop.io.folders import OutputFolder
from innerloop.io.text import with_interval
from innerloop.io.untrusted import JsonObject
from innerloop.report import analysis_tables
from innerloop.report.analysis_page import subject, verdict_in_words
from innerloop.report.analysis_sections import BEFORE_AND_AFTER, SECTIONS, navigation, page, section
from innerloop.report.analysis_text import TABLES, TextTable, lowest_cka, moves_most
from innerloop.report.figure_files import framed, rendered, save_figures
from innerloop.report.html_blocks import escaped, nonbreaking
from innerloop.report.plots import side_by_side
from innerloop.report.plots.side_by_side import Analyses, distinct, in_order, in_order_of_layers
from innerloop.report.plots.style import Grid, draw_figure

FIGURES: dict[str, tuple[Grid, Callable[..., object]]] = {
    "freeze": (side_by_side.FREEZING, side_by_side.freezing_of_runs),
    "similarity": (side_by_side.SIMILARITY, side_by_side.similarity_of_runs),
    "nil": (side_by_side.NIL, side_by_side.nil_of_runs),
    "weights": (side_by_side.MOVEMENT, side_by_side.movement_of_runs),
}

COLUMNS: dict[str, tuple[Callable[[Sequence[Sequence[str]]], list[str]], dict[str, int]]] = {
    "freeze": (in_order, {"": 1}),
    "similarity": (in_order_of_layers, {", CKA": 4, ", CCA": 1}),
    "nil": (distinct, {"": 1}),
    "weights": (in_order_of_layers, {"": 1}),
}
"""The order of the rows, and the columns of a run's table that are shown, by what their headings add to its label."""

SUMMARY = (
    "run",
    "all layers adapt",
    "head alone",
    "nothing adapts",
    "NIL",
    "CKA of the body",
    "moves most",
    "verdict",
)
"""The headings of `summary`; `head alone` means the body is frozen, which is how ANIL adapts."""


def write(analyses: Analyses, folder: OutputFolder) -> None:
    """Write the page, tables and figures. Raises InnerloopError if a file cannot be written."""
    folder.make()
    names = [name for name in FIGURES if all(name in results for results in analyses.values())]
    record = {"runs": [{"label": run, **results} for run, results in analyses.items()]}
    analysis_tables.write(record, {name: _rows(name, analyses) for name in names}, folder)
    figures = {name: draw_figure(*FIGURES[name], analyses) for name in names}
    save_figures(folder, rendered(figures))
    folder.write("index.html", _page(analyses, names, figures))


def _rows(name: str, analyses: Analyses) -> analysis_tables.Rows:
    """The rows of an experiment's table of every run, with its label."""
    rows = {run: analysis_tables.rows_of(name, results[name]) for run, results in analyses.items()}
    return [{"run": run, **row} for run, found in rows.items() for row in found]


def summary(analyses: Analyses) -> TextTable:
    """One row per run with the columns of `SUMMARY` of which something was measured."""
    rows = [_summary_row(run, results) for run, results in analyses.items()]
    known = [i for i in range(len(SUMMARY)) if any(row[i] for row in rows)]
    return TextTable([SUMMARY[i] for i in known], [[row[i] for i in known] for row in rows])


def _summary_row(run: str, results: JsonObject) -> list[str]:
    """Scores with parts of the inner loop switched off, similarity, movement, and the verdict."""
    frozen = frozen_lines(results)
    most, metric = moves_most(results.get("weights", [])), results["metric"]
    scores = [*(frozen.get(name) for name in ("none", "body", "all")), nil_line(results)]
    return [
        run,
        *("" if x is None else with_interval(x[metric], x["ci95"], metric) for x in scores),
        lowest_cka(results),
        "" if most is None else f"{most['layer']} ({100 * most['relative']:.1f} %)",
        results.get("verdict", {}).get("kind", ""),
    ]


def _verdict(run: str, results: JsonObject) -> str:
    """What was analysed, and the verdict in words."""
    words = " ".join(verdict_in_words(results))
    return (
        f'<h3>{escaped(run)}</h3><p class="verdict">{nonbreaking(words)}</p>'
        f'<p class="soft">{nonbreaking(subject(results))}</p>'
    )


def _page(analyses: Analyses, names: Sequence[str], figures: Mapping[str, Figure]) -> str:
    """The whole page."""
    head = [
        summary(analyses).as_html(),
        '<p class="soft">Head alone: the body is frozen, as in ANIL. CKA of the body: for the layer that changes '
        "most in adaptation; 1 means no change. Moves most: the layer whose weights change most, relative to their "
        "norm. Mean ± 95 % interval over tasks.</p>",
        navigation({name: SECTIONS[name].title.split(":")[0] for name in names}),
        *(_verdict(run, results) for run, results in analyses.items()),
    ]
    return page(", ".join(analyses), head, (_section(name, analyses, figures[name]) for name in names))


def _section(name: str, analyses: Analyses, figure: Figure) -> str:
    """One experiment on all runs."""
    drawn = f'<div class="figures" style="max-width: 54rem">{framed(figure, name)}</div>'
    what = BEFORE_AND_AFTER if name == "similarity" else SECTIONS[name].what
    return section(name, what, drawn, table_of_runs(name, analyses).as_html())


def table_of_runs(name: str, analyses: Analyses) -> TextTable:
    """An experiment's tables of all runs as one: a row for each name in any of them, a column or two for each run."""
    order, cells = COLUMNS[name]
    tables = {run: TABLES[name](results) for run, results in analyses.items()}
    columns = {
        run + more: {row[0]: row[i] for row in table.rows}
        for run, table in tables.items()
        for more, i in cells.items()
    }
    names = order([list(column) for column in columns.values()])
    rows = [[row, *(column.get(row, "") for column in columns.values())] for row in names]
    return TextTable([next(iter(tables.values())).heads[0], *columns], rows)
