"""HTML building blocks: pages, tables, embedded figures and pictures, episodes."""

import base64
import html
import io
import string
from collections.abc import Sequence
from importlib import resources

import numpy as np

from innerloop.io.text import LIMIT, grouped, printable
from innerloop.report.comparison import Result
from innerloop.report.examples import Episode
from innerloop.report.measurements import Group
from innerloop.training.measurement import ReturnMeasurement, ScoreMeasurement

CSS = (resources.files("innerloop.report") / "style.css").read_text("utf-8")

LETTERS = string.ascii_uppercase


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page; `title` is plain text, the `parts` of the body are HTML."""
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title><style>{CSS}</style></head><body>",
            *parts,
            "</body></html>\n",
        ]
    )


def _img(picture: np.ndarray, what: str) -> str:
    """A `[height, width, channels]` picture of 0..1 as a PNG inside the page; drawings become dark on white."""
    import PIL.Image

    values = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    if values.shape[-1] == 1:
        values = values[..., 0]
        values = 255 - values if values.mean() < 127.5 else values
    buffer = io.BytesIO()
    PIL.Image.fromarray(values).save(buffer, "PNG", optimize=True)
    return embedded(buffer.getvalue(), "image/png", what, ' class="px"')


def embedded(content: bytes, mime: str, what: str, attributes: str = "") -> str:
    """An image inside the page, with a description for readers who do not see it."""
    data = base64.b64encode(content).decode()
    return f'<img{attributes} alt="{escaped(what)}" src="data:{mime};base64,{data}">'


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], left: int = 1) -> str:
    """A table of `(CSS class, cells)`; headings and cells are HTML. `left` columns hold text, the others numbers."""
    kind = lambda i: "" if i < left else ' class="n"'
    head = "".join(f"<th{kind(i)}>{h}</th>" for i, h in enumerate(heads))
    body = "".join(
        f'<tr class="{name}">{"".join(f"<td{kind(i)}>{c}</td>" for i, c in enumerate(cells))}</tr>'
        for name, cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, body: str, *, shown: bool = False) -> str:
    """A block of HTML that the reader folds and unfolds by its title, which is plain text."""
    return f"<details{' open' if shown else ''}><summary>{escaped(title)}</summary>{body}</details>"


def escaped(text: str) -> str:
    """Untrusted text, escaped so that HTML shows it literally."""
    return html.escape(printable(text, LIMIT))


def nonbreaking(text: str) -> str:
    """Escaped text without line breaks between numbers and their units and intervals."""
    return escaped(text).replace(" ± ", "&nbsp;±&nbsp;").replace(" %", "&nbsp;%")


def results_table(group: Group) -> str:
    """All results on one problem, the best first."""
    if group.runs[0].score == "return":
        return _returns_table(group)
    score = "accuracy" if group.runs[0].score == "accuracy" else "squared error"
    heads = [
        "run",
        f"{score} before adapting",
        "after 1 step",
        "after all steps",
        "inner steps",
        "meta-steps",
    ]
    heads += [*(["normalisation"] if group.normalizes else []), "queries", "tasks"]
    return table(heads, [(_row_class(group, r), _result_row(r, group.normalizes)) for r in group.rows])


def _name(result: Result) -> str:
    """The label of a row."""
    return escaped(result.label) + (f", {len(result.seeds)} seeds" if result.seeds else "")


def _returns_table(group: Group) -> str:
    """Returns after every update, the best run first."""
    steps = group.runs[0].measurement.steps
    heads = ["run", *("before adapting" if i == 0 else f"after {i}" for i in steps)]
    heads += ["meta-iterations", "trajectories", "tasks"]
    rows = []
    for result in group.rows:
        points = [nonbreaking(result.shown_at(step)) for step in steps]
        found, length = result.measurement, result.measurement.trained_meta_steps
        assert isinstance(found, ReturnMeasurement)
        cells = [_name(result), *points, "" if length is None else grouped(length)]
        cells += [str(found.trajectories), grouped(found.tasks)]
        rows.append((_row_class(group, result), cells))
    return table(heads, rows)


def _row_class(group: Group, result: Result) -> str:
    if result is group.results[0]:
        return "best"
    single = any(result is seed for run in group.runs for seed in run.seeds)
    return "base" if result.baseline else "seed" if single else ""


def _result_row(result: Result, normalizes: bool) -> list[str]:
    found = result.measurement
    assert isinstance(found, ScoreMeasurement)
    length = found.trained_meta_steps
    most, per = "at most " if found.groups else "", " per class" if found.ways else ""
    return [
        _name(result),
        *(nonbreaking(result.shown_at(step)) for step in (0, 1, found.inner_steps)),
        str(found.inner_steps),
        "" if length is None else grouped(length),
        *([found.normalization or ""] if normalizes else []),
        f"{most}{found.queries}{per}",
        grouped(found.tasks),
    ]


def episode_block(episode: Episode) -> str:
    """One episode: the support strip, then every query with the answer after each inner step."""
    support = zip(episode.support, episode.support_labels.tolist(), strict=True)
    strip = "".join(
        f"<figure>{_img(x, f'support of class {_letter(y)}')}<figcaption>{_letter(y)}</figcaption></figure>"
        for x, y in support
    )
    heads = ["query", "true", *(f"{step}" for step in episode.answers)]
    rows = [("", _query_row(episode, i)) for i in range(len(episode.labels))]
    named = " &nbsp; ".join(f"{_letter(i)}: {escaped(name)}" for i, name in enumerate(episode.names))
    return (
        f'<div><p class="soft">Support of {named}</p><div class="strip">{strip}</div>'
        f'<p class="soft">Queries, and answers after 0, 1, ... inner steps</p>{table(heads, rows, len(heads))}</div>'
    )


def _query_row(episode: Episode, i: int) -> list[str]:
    true = int(episode.labels[i])
    cells = [_img(episode.query[i], f"query of class {_letter(true)}"), f"<b>{_letter(true)}</b>"]
    for answers in episode.answers.values():
        right = int(answers[i]) == true
        kind, sign = ("right", "✓") if right else ("wrong", "✗")
        cells.append(f'<span class="mark {kind}">{_letter(int(answers[i]))} {sign}</span>')
    return cells


def _letter(label: int) -> str:
    """The letter of a class in an episode."""
    return LETTERS[label] if label < len(LETTERS) else str(label + 1)
