"""Rapid learning or feature reuse: the verdict on one model, by a fixed rule.

Let s(F) be the score with the layers F frozen, and s(none) - s(all) the gain of adaptation. Two questions:

*Does the body change?*  `alike` = linear CKA before and after adaptation, averaged over tasks, of the body layer that
    changes most. If it is at least 0.8, the body does not change.
*Must it change?*  `kept` = (s(body) - s(all)) / gain, the share of the gain that remains when the head alone adapts,
    and `nil` = (s(NIL) - s(all)) / gain, the share reached by cosine similarity to the support set without adaptation.
    If either is at least 0.9, the body need not change. Otherwise, if `kept` is at most 0.5, it must. If the inner loop
    adapts the body alone (BOIL), the second rule applies whatever NIL says.

Feature reuse: the body does not and need not change. Rapid learning: it does and must. Anything else is in between. NIL
counts because freezing tests the features *and* whether the inner steps suit a head that learns alone; if the two
differ, the features were already there. Regression has no NIL. If the inner loop adapts the head alone, the body does
not change, by construction. Without a gain (its interval includes 0) there is nothing to explain. If the outcome
depends on an experiment that was not made, the verdict is undecided. Raghu et al. 2020, arXiv 1909.09157, give no
thresholds; these are conventions of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from innerloop.io.text import with_interval
from innerloop.io.untrusted import JsonObject

Kind = Literal["feature reuse", "rapid learning", "between", "no gain", "undecided"]

ENOUGH, LITTLE = 0.9, 0.5
"""Shares of the gain: at least the first counts as keeping it, at most the second as losing it."""
SAME = 0.8
"""Linear CKA from which a layer counts as unchanged."""


PARTLY = "part of the learning is in the body"

EXPERIMENT = {"alike": "similarity", "nil": "nil"}
"""The experiments other than freezing, by the measure that the rule takes from them."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one model.

    Attributes:
        kind: the outcome.
        measures: the numbers that decided it.
        sentences: the outcome in words.
    """

    kind: Kind
    measures: JsonObject
    sentences: list[str]


def judge(results: JsonObject) -> Verdict | None:
    """The verdict on the results of `analyze` or `AnalyzedModel.results`; None if freezing was not measured."""
    if not {"none", "body", "all"} <= set(frozen_lines(results)):
        return None
    found = _measures(results)
    missing = _missing(found, results["metric"])
    kind = "undecided" if missing else _decide(found)
    return Verdict(kind, found, _sentences(kind, found, results, missing))


def frozen_lines(results: JsonObject) -> dict[str, JsonObject]:
    """The freezing records that the rule uses."""
    layers = results.get("layers", [])
    wanted = {"none": [], "body": layers[:-1], "all": layers}
    lines = results.get("freeze") or []
    found = {name: next((x for x in lines if x["frozen"] == w), None) for name, w in wanted.items()}
    return {name: x for name, x in found.items() if x is not None}


def nil_line(results: JsonObject) -> JsonObject | None:
    """The NIL record of the trained body; None if NIL was not measured."""
    lines = results.get("nil") or []
    return next((x for x in lines if x["body"] == "trained" and not x["inner_loop"]), None)


def least_similar_layer(results: JsonObject) -> JsonObject | None:
    """The similarity record of the body layer that changes most; None if there is none."""
    layers = results.get("similarity") or []
    body = [x for x in layers if not x["head"] and x["cka"]["mean"] is not None]
    return min(body, key=lambda x: x["cka"]["mean"], default=None)


def _measures(results: JsonObject) -> JsonObject:
    """The numbers that the rule uses: gain, kept, nil, alike and its layer."""
    lines, metric = frozen_lines(results), results["metric"]
    gain = abs(lines["all"]["change"]) if _better(lines["all"]["change"], metric) < 0 else 0.0
    floor = lines["all"][metric]
    sure = gain > lines["all"]["change_ci95"]
    nil, lowest = nil_line(results), least_similar_layer(results)
    return {
        "gain": gain if sure else 0.0,
        "moves": results["moves"],
        "kept": _share_of(lines["body"][metric], floor, gain, metric),
        "nil": None if nil is None else _share_of(nil[metric], floor, gain, metric),
        "alike": None if lowest is None else lowest["cka"]["mean"],
        "changed_most": None if lowest is None else lowest["layer"],
    }


def _better(change: float, metric: str) -> float:
    """The change, with its sign flipped if needed so that an improvement is positive."""
    return change if metric == "accuracy" else -change


def _share_of(value: float, floor: float, gain: float, metric: str) -> float | None:
    """Share of the gain above the floor; negative if worse than no adaptation."""
    return _better(value - floor, metric) / gain if gain else None


def _missing(m: JsonObject, metric: str) -> list[str]:
    """The measures that are unknown and on which the outcome depends, whatever the other unknown ones are."""
    settled = {"alike": m["moves"] == "head", "nil": metric == "loss"}
    unknown = [name for name in EXPERIMENT if m[name] is None and not settled[name]]
    decide = lambda values: _decide(m | dict(zip(unknown, values, strict=True)))
    other = lambda values, i: (*values[:i], 1 - values[i], *values[i + 1 :])
    extremes = list(product((0, 1), repeat=len(unknown)))
    matters = lambda i: any(decide(values) != decide(other(values, i)) for values in extremes)
    return [name for i, name in enumerate(unknown) if matters(i)]


def _decide(m: JsonObject) -> Kind:
    """The outcome; a measure that is None does not matter."""
    if not m["gain"]:
        return "no gain"
    enough = _suffices(m)
    must = m["kept"] <= LITTLE and not enough
    changes = m["alike"] is not None and m["alike"] < SAME
    if enough and not changes:
        return "feature reuse"
    return "rapid learning" if must and changes else "between"


def _suffices(m: JsonObject) -> bool:
    """Whether the body need not change; an inner loop that adapts the body alone has nothing but the body to change."""
    return max(m["kept"], m["nil"] or 0.0) >= ENOUGH and m["moves"] != "body"


def _sentences(kind: Kind, m: JsonObject, results: JsonObject, missing: Sequence[str]) -> list[str]:
    lines, metric = frozen_lines(results), results["metric"]
    scores = {name: with_interval(x[metric], x["ci95"], metric) for name, x in lines.items()}
    opening = f"With the whole inner loop this model reaches {scores['none']}; without it, {scores['all']}."
    if kind == "no gain":
        return [
            opening,
            "Adaptation brings no gain that this measurement can show, so there is nothing to explain.",
            "With more tasks, it could show a smaller gain.",
        ]
    last = _what_is_missing(missing, results) if missing else _conclusion(kind, m)
    return [opening, *_must_change(m, scores, results), *_does_change(m), last]


def _must_change(m: JsonObject, scores: dict[str, str], results: JsonObject) -> list[str]:
    """Whether the body must change."""
    moves = results["moves"]
    if moves == "body":
        found = [
            f"This algorithm adapts the body alone, so nothing learns with the body frozen: {scores['body']}."
        ]
    elif moves == "head":
        found = [
            "This algorithm adapts the head alone: the body does not change, and freezing it changes nothing, by "
            "construction."
        ]
    else:
        found = [
            f"With the body frozen and only the head adapting, it reaches {scores['body']}: {_in_words(m['kept'])}."
        ]
    line = nil_line(results)
    if line is None or moves == "head":
        return found
    value = with_interval(line["accuracy"], line["ci95"], "accuracy")
    found.append(
        f"With the head dropped and nothing adapted, the cosine similarity of features reaches {value}."
    )
    if m["nil"] >= ENOUGH > m["kept"] and moves == "all":
        found.append(
            "So the features are there before any adaptation; with the body frozen, it is the head that cannot learn "
            "to use them in these few steps of this size."
        )
    return found


def _in_words(kept: float) -> str:
    """What remains of the gain, in words."""
    if kept >= 1:
        return "none of the gain is lost"
    if kept <= 0:
        return "the whole gain is lost"
    return f"{100 * kept:.0f} % of the gain is left"


def _does_change(m: JsonObject) -> list[str]:
    """Whether the body changes."""
    if m["alike"] is None:
        return []
    how = "stays nearly the same" if m["alike"] >= SAME else "changes"
    layer = m["changed_most"]
    return [
        f"What the body computes {how}: the layer that changes most, {layer}, has a similarity (linear CKA) of "
        f"{m['alike']:.2f} before and after adaptation, where 1 is unchanged."
    ]


def _what_is_missing(missing: Sequence[str], results: JsonObject) -> str:
    """Why there is no verdict."""
    experiments = [EXPERIMENT[name] for name in missing]
    if lacking := [name for name in experiments if name not in results]:
        what = "experiment " if len(lacking) == 1 else "experiments "
        return f"This does not decide it: the verdict also needs the {what}{' and '.join(lacking)}."
    return "The similarity (linear CKA) of the body is undefined, so whether it changes is unknown."


def _conclusion(kind: Kind, m: JsonObject) -> str:
    if kind == "rapid learning":
        return "This is rapid learning: on every task the body learns features that it did not have before."
    if kind == "between":
        how = (
            "its features would suffice as they are, yet the inner loop changes them" if _suffices(m) else ""
        )
        return f"This is neither pure feature reuse nor pure rapid learning: {how or PARTLY}."
    if m["kept"] < ENOUGH:
        return "This is feature reuse, although this inner loop also relies on what it changes in the body."
    return "This is feature reuse: the body's features were good before adaptation, and the head learns."
