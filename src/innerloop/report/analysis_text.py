"""What an experiment found, as a table of plain text and in a sentence: the page and the terminal show the same."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from innerloop.analysis.verdict import least_similar_layer
from innerloop.io.text import grouped, with_interval
from innerloop.io.untrusted import JsonObject
from innerloop.report.html_blocks import escaped, nonbreaking, table
from innerloop.report.plots.analysis import frozen_name, nil_name

MEASURES = {
    "cca": "mean CCA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "cka": "CKA",
    "cka_debiased": "CKA, debiased",
    "cka_rbf": "CKA, RBF",
}
"""The headings of the similarity measures."""


class TextTable(NamedTuple):
    """A table whose first column names the rows.

    Attributes:
        heads: the headings.
        rows: the cells.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_html(self) -> str:
        """The table for a page."""
        return table(
            [escaped(head) for head in self.heads], [("", list(map(nonbreaking, row))) for row in self.rows]
        )


def _freezing(results: JsonObject) -> TextTable:
    metric = results["metric"]
    rows = [
        [
            frozen_name(line["frozen"], results["layers"]),
            with_interval(line[metric], line["ci95"], metric),
            with_interval(line["change"], line["change_ci95"], metric) if line["frozen"] else "",
        ]
        for line in results["freeze"]
    ]
    return TextTable(["frozen", metric, "change"], rows)


def _similarity(layers: Sequence[JsonObject]) -> TextTable:
    value = lambda v: "" if v["mean"] is None else f"{v['mean']:.3f} ± {v['ci95']:.3f}"
    rows = [
        [x["layer"], *(value(x[m]) for m in MEASURES), grouped(x["points"]), str(x["neurons"])]
        for x in layers
    ]
    return TextTable(["layer", *MEASURES.values(), "points", "neurons"], rows)


def _nil(results: JsonObject) -> TextTable:
    value = lambda x, a, b: with_interval(x[a], x[b], "accuracy")
    change = lambda x: "" if x["inner_loop"] else value(x, "change", "change_ci95")
    rows = [[nil_name(x), value(x, "accuracy", "ci95"), change(x)] for x in results["nil"]]
    return TextTable(["", "accuracy", "change"], rows)


def _weights(results: JsonObject) -> TextTable:
    percent = lambda x: with_interval(100 * x["relative"], 100 * x["relative_ci95"], "") + " %"
    angle = lambda x: with_interval(x["angle"], x["angle_ci95"], "") + "°"
    rows = [
        [x["layer"], *("undefined" if x["relative"] is None else cell(x) for cell in (percent, angle))]
        for x in results["weights"]
    ]
    return TextTable(["layer", "change / norm", "angle"], rows)


def _steps(results: JsonObject) -> TextTable:
    curves: JsonObject = {name: x for name, x in results["steps"].items() if name not in ("steps", "layers")}
    rows = [
        [str(step), *(with_interval(x["mean"][i], x["ci95"][i], name) for name, x in curves.items())]
        for i, step in enumerate(results["steps"]["steps"])
    ]
    heads = {"loss": "query loss", "support_loss": "support loss"}
    return TextTable(["inner step", *(heads.get(name, name) for name in curves)], rows)


def _early(results: JsonObject) -> TextTable:
    metric, rows = results["metric"], []
    for snapshot in results["early"]:
        scores = [with_interval(x[metric], x["ci95"], metric) for x in snapshot["freeze"][:2]]
        rows.append([grouped(snapshot["meta_step"]), *scores, lowest_cka(snapshot)])
    return TextTable(["meta-step", metric, "body frozen", "lowest CKA of the body"], rows)


def lowest_cka(results: JsonObject) -> str:
    """The similarity of the body layer that changes most, and its name; empty if there is none."""
    layer = least_similar_layer(results)
    return "" if layer is None else f"{layer['cka']['mean']:.2f} ({layer['layer']})"


TABLES: dict[str, Callable[[JsonObject], TextTable]] = {
    "freeze": _freezing,
    "similarity": lambda results: _similarity(results["similarity"]),
    "nil": _nil,
    "weights": _weights,
    "steps": _steps,
    "early": _early,
    "against": lambda results: _similarity(results["against"]),
}
"""The table of each experiment that has one."""


def sentence(name: str, results: JsonObject) -> str:
    """The result of an experiment in a sentence; empty if there is none."""
    return SENTENCES[name](results) if name in SENTENCES else ""


def _against_sentence(results: JsonObject) -> str:
    """The similarity of two models' bodies, averaged over the layers for which it is defined."""
    words = []
    for measure in ("cca", "cka"):
        layers = [x for x in results["against"] if not x["head"]]
        known = [x[measure]["mean"] for x in layers if x[measure]["mean"] is not None]
        if known:
            words.append(f"{measure.upper()} {sum(known) / len(known):.2f}")
    return f"Against {results['against_source']}, mean over the body: {', '.join(words)}." if words else ""


def _steps_sentence(results: JsonObject) -> str:
    """How much of the gain the first step brings."""
    if results["metric"] != "accuracy":
        return ""
    curve = results["steps"]["accuracy"]["mean"]
    if len(curve) < 3 or curve[-1] <= curve[0]:
        return ""
    share = (curve[1] - curve[0]) / (curve[-1] - curve[0])
    return f"The first step brings {100 * share:.0f} % of the accuracy gained in all steps."


def moves_most(layers: Sequence[JsonObject]) -> JsonObject | None:
    """The record of the layer that moves most relative to its norm; None if that is undefined for all."""
    known = [x for x in layers if x["relative"] is not None]
    return max(known, key=lambda x: x["relative"], default=None)


def _weights_sentence(results: JsonObject) -> str:
    """Which layer moves most, and for which this is undefined."""
    words = [
        f"{x['layer']} starts at zero: its relative movement is undefined."
        for x in results["weights"]
        if x["relative"] is None
    ]
    if (most := moves_most(results["weights"])) is not None:
        far, turn, among = 100 * most["relative"], most["angle"], " of the others" if words else ""
        words.insert(0, f"{most['layer']} moves most{among}: by {far:.1f} % of its norm and {turn:.1f}°.")
    return " ".join(words)


def _landscape_sentence(results: JsonObject) -> str:
    """The query loss before a task's first step, after it, and where it is lowest along it."""
    line = results["landscape"]["line"]
    losses, along = line["query_loss"]["mean"], line["along"]
    at = dict(zip(along, losses, strict=True))
    lowest = min(along, key=at.__getitem__)
    return (
        f"Along a task's first inner step the mean query loss is {at[0.0]:.4g} at θ and {at[1.0]:.4g} after the step; "
        f"it is lowest, {at[lowest]:.4g}, at {lowest:g} times the step."
    )


def _paths_sentence(results: JsonObject) -> str:
    """The true lengths of the paths, and how much of them the projection shows."""
    words, paths = [], results["paths"]
    for part in ("body", "head"):
        lengths, shown = paths[part]["lengths"], paths[part]["shown"]["close"]
        outer = "" if lengths["outer"] is None else f"outer loop {lengths['outer']:.2f}, "
        seen = (
            "" if shown is None else f" (the lower picture shows {100 * shown:.0f} % of their squared length)"
        )
        unit = "" if paths[part]["relative"] else " (absolute, since θ's is zero)"
        words.append(f"{part}{unit}: {outer}inner loops {lengths['inner']:.2g} on average{seen}")
    return "True path lengths in units of θ's norm: " + "; ".join(words) + "."


SENTENCES: dict[str, Callable[[JsonObject], str]] = {
    "weights": _weights_sentence,
    "steps": _steps_sentence,
    "landscape": _landscape_sentence,
    "paths": _paths_sentence,
    "against": _against_sentence,
}
"""The sentence of each experiment that has one."""
