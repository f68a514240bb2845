"""Results as rows of a table, in formats for papers, spreadsheets and notes."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields

from innerloop.io.text import csv_cell, with_interval
from innerloop.report.comparison import Result, compare
from innerloop.report.measurements import Group


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
        gain: how much better it is than the first run, in pairs (None: it is the first).
        gain_ci95: half-width of the 95 % interval of `gain`.
        pairs: what the pairs are.
        inner_steps: inner steps at test.
        tasks: number of held-out tasks.
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


def rows(groups: Sequence[Group]) -> list[Row]:
    """The runs of every problem, each compared with the first."""
    return [_row(group, run, group.runs[0]) for group in groups for run in group.runs]


def _row(group: Group, run: Result, first: Result) -> Row:
    found = run.measurement
    gain = None if run is first else compare(run, first)
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
    )


NOTE = (
    "After ±: the 95 % interval over tasks; for several seeds, their standard deviation. Gain: over the first run, in "
    "pairs, with its 95 % interval; positive is better."
)
"""What readers need to know about the numbers."""

HEADS = ("problem", "run", "seeds", "score", "mean ±", "gain ±", "pairs", "inner steps", "tasks")
"""The columns for readers; `as_csv` has those of `Row`."""


def cells(row: Row) -> list[str]:
    """The cells for readers: accuracies in percent, gains in percentage points."""
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows([csv_cell(value) for value in astuple(row)] for row in found)
    return text.getvalue()


def as_markdown(found: Sequence[Row]) -> str:
    """A GitHub Markdown table, and what its numbers mean."""
    line = lambda values: "| " + " | ".join(value.replace("|", r"\|") for value in values) + " |"
    rule = "|" + " --- |" * len(HEADS)
    return "\n".join([line(HEADS), rule, *(line(cells(row)) for row in found), "", NOTE]) + "\n"


LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def as_latex(found: Sequence[Row]) -> str:
    """A LaTeX table with `booktabs` rules, and a comment on what its numbers mean."""
    line = lambda values: " & ".join(value.translate(LATEX) for value in values) + r" \\"
    begin = [f"% {NOTE}", r"\begin{tabular}{llrlrrlrr}", r"\toprule", line(HEADS), r"\midrule"]
    return "\n".join([*begin, *(line(cells(row)) for row in found), r"\bottomrule", r"\end{tabular}"]) + "\n"


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
}
"""The formats by name."""
