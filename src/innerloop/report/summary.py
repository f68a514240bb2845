"""Results as rows of a table, in formats for papers, spreadsheets and notes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

from innerloop.io.text import csv_text, with_interval
from innerloop.report.comparison import Result, compare
from innerloop.report.measurements import Group
from innerloop.training.measurement import ScoreMeasurement


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        problem: what was learned.
        run: the label of the run.
        seeds: the number of trainings it averages.
        score: the name of the score.
        mean: the score after the last inner step.
        spread: half-width of its 95 % interval over tasks; for several seeds, their standard deviation.
        spread_is: which of the two.
        gain: how much better it is than the first run (None: it is the first).
        gain_ci95: half-width of the 95 % interval of `gain`.
        pairs: what the pairs are.
        inner_steps: inner steps at test.
        tasks: number of held-out tasks.
        groups: number of groups in the measured set of a table, each of which is one task; None for other data.
        queries: query examples per class (of a regression: per task; of a table: at most); None for policies.
        normalization: the batch that gives a query's normalisation statistics; empty without normalisation.
        diverged: number of tasks on which adaptation diverged, over all seeds.
    """

    problem: str
    run: str
    seeds: int
    score: str
    mean: float
    spread: float
    spread_is: str
    gain: float | None
    gain_ci95: float | None
    pairs: str
    inner_steps: int
    tasks: int
    groups: int | None
    queries: int | None
    normalization: str
    diverged: int


def rows(groups: Sequence[Group]) -> list[Row]:
    """The runs of every problem, each compared with the first."""
    return [_row(group, run, group.runs[0]) for group in groups for run in group.runs]


def _row(group: Group, run: Result, first: Result) -> Row:
    found = run.measurement
    gain = None if run is first else compare(run, first)
    scored = found if isinstance(found, ScoreMeasurement) else None
    return Row(
        group.title,
        run.label,
        len(run.members),
        run.score,
        run.value,
        run.ci95,
        "standard deviation over seeds" if run.seeds else "95 % interval over tasks",
        gain and gain.mean,
        gain and gain.ci95,
        gain.pairs if gain else "",
        found.inner_steps,
        found.tasks,
        scored and scored.groups,
        scored and scored.queries,
        (scored and scored.normalization) or "",
        found.diverged_tasks,
    )


NOTE = (
    "After ±: the 95 % interval over tasks; for several seeds, their standard deviation. Gain: improvement over the "
    "first run, from paired differences, with its 95 % interval; positive is better."
)
"""What readers need to know about the numbers."""

HEADS = ("problem", "run", "seeds", "score", "mean ±", "gain ±", "pairs", "inner steps", "tasks")
"""The columns for readers that every table has; `as_csv` has those of `Row`."""

CONDITIONS = {
    "groups": "groups of the table",
    "queries": "queries",
    "normalization": "normalisation",
    "diverged": "diverged tasks",
}
"""Further columns by the fields of `Row`, for tables whose rows differ in them."""


def _columns(found: Sequence[Row]) -> list[str]:
    """The conditions in which rows differ."""
    return [name for name in CONDITIONS if len({getattr(row, name) for row in found}) > 1]


def heads(found: Sequence[Row]) -> list[str]:
    """The headings for readers."""
    return [*HEADS, *(CONDITIONS[name] for name in _columns(found))]


def note(found: Sequence[Row]) -> str:
    """What readers need to know about the numbers, with the conditions that all rows share."""
    shared = [
        name for name in CONDITIONS if found and getattr(found[0], name) and name not in _columns(found)
    ]
    told = "; ".join(f"{CONDITIONS[name]}: {getattr(found[0], name)}" for name in shared)
    return f"{NOTE} All rows: {told}." if told else NOTE


def table_of(found: Sequence[Row]) -> list[list[str]]:
    """The cells for readers, row by row, under `heads`."""
    more = _columns(found)
    last = lambda row: ["" if (value := getattr(row, name)) is None else str(value) for name in more]
    return [[*_cells(row), *last(row)] for row in found]


def _cells(row: Row) -> list[str]:
    """The cells under `HEADS`: accuracies in percent, gains in percentage points."""
    gain = ""
    if row.gain is not None and row.gain_ci95 is not None:
        gain = with_interval(row.gain, row.gain_ci95, row.score).removesuffix(" %")
    mean = with_interval(row.mean, row.spread, row.score)
    return [
        *(row.problem, row.run, str(row.seeds), row.score, mean, gain, row.pairs),
        *(str(row.inner_steps), str(row.tasks)),
    ]


def as_csv(found: Sequence[Row]) -> str:
    """Comma-separated values, with numbers in full precision."""
    return csv_text([field.name for field in fields(Row)], map(asdict, found))


def as_markdown(found: Sequence[Row]) -> str:
    """A GitHub Markdown table, and what its numbers mean."""
    line = lambda values: "| " + " | ".join(value.replace("|", r"\|") for value in values) + " |"
    head = heads(found)
    rule = "|" + " --- |" * len(head)
    return "\n".join([line(head), rule, *map(line, table_of(found)), "", note(found)]) + "\n"


LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def as_latex(found: Sequence[Row]) -> str:
    """A LaTeX table with `booktabs` rules, and a comment on what its numbers mean."""
    line = lambda values: " & ".join(value.translate(LATEX) for value in values) + r" \\"
    head = heads(found)
    kinds = "llrlrrlrr" + "r" * (len(head) - len(HEADS))
    begin = [f"% {note(found)}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", line(head), r"\midrule"]
    return "\n".join([*begin, *map(line, table_of(found)), r"\bottomrule", r"\end{tabular}"]) + "\n"


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
}
"""The formats by name."""
