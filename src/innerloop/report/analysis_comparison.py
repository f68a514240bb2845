"""Analyses of several runs side by side: one page, its figures, and tables with a column `run`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from innerloop.analysis.verdict import frozen_lines, least_similar_layer, nil_line
from innerloop.io.folders import OutputFolder
from innerloop.io.text import with_interval
from innerloop.io.untrusted import JsonObject
from innerloop.report import analysis_tables
from innerloop.report.analysis_page import QUESTION, RULE, subject, verdict_in_words
from innerloop.report.analysis_sections import BEFORE_AND_AFTER, SECTIONS
from innerloop.report.analysis_text import TextTable, moves_most
from innerloop.report.figure_files import rendered, save_figures, svg
from innerloop.report.html_blocks import document, escaped, nonbreaking, table
from innerloop.report.plots import side_by_side
from innerloop.report.plots.analysis import frozen_name, nil_name
from innerloop.report.plots.side_by_side import Analyses, distinct, in_order, in_order_of_layers
from innerloop.report.plots.style import Grid, draw_figure

FIGURES: dict[str, tuple[Grid, Callable[..., object]]] = {
    "freeze": (side_by_side.FREEZING, side_by_side.freezing_of_runs),
    "similarity": (side_by_side.SIMILARITY, side_by_side.similarity_of_runs),
    "nil": (side_by_side.NIL, side_by_side.nil_of_runs),
    "weights": (side_by_side.MOVEMENT, side_by_side.movement_of_runs),
}

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


def write(analyses: Analyses, folder: OutputFolder) -> Path:
    """Write the page, tables and figures.

    Args:
        analyses: the record of `innerloop.analysis.run_all.analyze` of each run, by its label.
        folder: where to write.

    Returns:
        The path of the page.

    Raises:
        InnerloopError: if a file cannot be written.
    """
    folder.make()
    names = [name for name in FIGURES if all(name in results for results in analyses.values())]
    analysis_tables.write_several(analyses, names, folder)
    figures = {name: draw_figure(*FIGURES[name], analyses) for name in names}
    save_figures(folder, rendered(figures))
    folder.write("index.html", _page(analyses, names, figures))
    return folder.path / "index.html"


def summary(analyses: Analyses) -> TextTable:
    """One row per run with the columns of `SUMMARY` of which something was measured."""
    rows = [_summary_row(run, results) for run, results in analyses.items()]
    known = [i for i in range(len(SUMMARY)) if any(row[i] for row in rows)]
    return TextTable([SUMMARY[i] for i in known], [[row[i] for i in known] for row in rows])


def _summary_row(run: str, results: JsonObject) -> list[str]:
    """Scores with parts of the inner loop switched off, similarity, movement, and the verdict."""
    frozen, layer = frozen_lines(results), least_similar_layer(results)
    most = moves_most(results.get("weights", []))
    scores = [*(frozen.get(name) for name in ("none", "body", "all")), nil_line(results)]
    return [
        run,
        *("" if x is None else _score(x, results["metric"]) for x in scores),
        "" if layer is None else f"{layer['cka']['mean']:.2f} ({layer['layer']})",
        "" if most is None else f"{most['layer']} ({100 * most['relative']:.1f} %)",
        results.get("verdict", {}).get("kind", ""),
    ]


def _page(analyses: Analyses, names: Sequence[str], figures: Mapping[str, Figure]) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{name}">{escaped(SECTIONS[name].title.split(":")[0])}</a>' for name in names)
    return document(
        f"Rapid learning or feature reuse? {', '.join(analyses)}",
        [
            "<h1>Rapid learning or feature reuse?</h1>",
            summary(analyses).as_html(),
            '<p class="soft">Head alone: the body is frozen, as in ANIL. CKA of the body: for the layer that changes '
            "most in adaptation; 1 means no change. Moves most: the layer whose weights change most, relative to their "
            "norm. Mean ± 95 % interval over tasks.</p>",
            f"<nav>{links}</nav>",
            *(_verdict(run, results) for run, results in analyses.items()),
            "<h2>The question</h2>",
            QUESTION,
            *(_section(name, analyses, figures[name]) for name in names),
            "<h2>How the verdict is made</h2>",
            RULE,
        ],
    )


def _verdict(run: str, results: JsonObject) -> str:
    """What was analysed, and the verdict in words."""
    words = " ".join(verdict_in_words(results))
    return (
        f'<h3>{escaped(run)}</h3><p class="verdict">{nonbreaking(words)}</p>'
        f'<p class="soft">{nonbreaking(subject(results))}</p>'
    )


def _section(name: str, analyses: Analyses, figure: Figure) -> str:
    """One experiment on all runs."""
    section = SECTIONS[name]
    what = BEFORE_AND_AFTER if name == "similarity" else section.what
    return "\n".join(
        [
            f'<h2 id="{name}">{section.title}</h2>',
            f"<p>{escaped(what)}</p>",
            f'<div class="figures" style="max-width: 54rem"><figure>{svg(figure, name)}</figure></div>',
            TABLES[name](analyses),
            f'<p class="soft">{nonbreaking(section.paper)}</p>' if section.paper else "",
        ]
    )


def _side_by_side(
    head: str, columns: Mapping[str, Mapping[str, str]], order: Callable[[list[list[str]]], list[str]]
) -> str:
    """A table with a row for each name, in this order, and a column for each run."""
    names = order([list(cells) for cells in columns.values()])
    rows = [
        ("", [escaped(name), *(nonbreaking(cells.get(name, "")) for cells in columns.values())])
        for name in names
    ]
    return table([head, *map(escaped, columns)], rows)


def _freeze_table(analyses: Analyses) -> str:
    """Scores by what is frozen."""
    columns = {
        run: {frozen_name(x["frozen"], r["layers"]): _score(x, r["metric"]) for x in r["freeze"]}
        for run, r in analyses.items()
    }
    return _side_by_side("frozen", columns, in_order)


def _score(line: JsonObject, metric: str) -> str:
    return with_interval(line[metric], line["ci95"], metric)


def _similarity_table(analyses: Analyses) -> str:
    """Linear CKA and mean CCA by layer."""
    columns = {
        f"{run}, {what.upper()}": {x["layer"]: _plain(x[what]) for x in r["similarity"]}
        for run, r in analyses.items()
        for what in ("cka", "cca")
    }
    return _side_by_side("layer", columns, in_order_of_layers)


def _plain(value: JsonObject) -> str:
    return "" if value["mean"] is None else f"{value['mean']:.3f} ± {value['ci95']:.3f}"


def _nil_table(analyses: Analyses) -> str:
    """Accuracies with and without the inner loop."""
    columns = {run: {nil_name(x): _score(x, "accuracy") for x in r["nil"]} for run, r in analyses.items()}
    return _side_by_side("", columns, distinct)


def _weights_table(analyses: Analyses) -> str:
    """Relative norms of the changes by layer; undefined for a layer that starts at zero."""
    known = lambda x: f"{100 * x['relative']:.1f} ± {100 * x['relative_ci95']:.1f} %"
    value = lambda x: "undefined" if x["relative"] is None else known(x)
    columns = {run: {x["layer"]: value(x) for x in r["weights"]} for run, r in analyses.items()}
    return _side_by_side("layer", columns, in_order_of_layers)


TABLES: dict[str, Callable[[Analyses], str]] = {
    "freeze": _freeze_table,
    "similarity": _similarity_table,
    "nil": _nil_table,
    "weights": _weights_table,
}
