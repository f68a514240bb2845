"""The rule on numbers as MAML, ANIL and BOIL give them, and its words."""

from typing import Any

import pytest

from innerloop.analysis.verdict import judge

LAYERS = ["conv1", "conv2", "head"]


def results(
    none: float, body: float, floor: float, nil: float | None, alike: list[float] | None, **more: Any
) -> dict[str, Any]:
    line = lambda frozen, value: {
        "frozen": frozen,
        "accuracy": value,
        "ci95": 0.01,
        "change": value - none,
        "change_ci95": 0.012,
    }
    found: dict[str, Any] = {"metric": "accuracy", "layers": LAYERS, "algorithm": "maml", "moves": "all"}
    found["freeze"] = [line([], none), line(LAYERS[:-1], body), line(LAYERS, floor)]
    if nil is not None:
        nils = [("trained", True, none), ("trained", False, nil), ("random", False, 0.3)]
        found["nil"] = [{"body": b, "inner_loop": i, "accuracy": a, "ci95": 0.01} for b, i, a in nils]
    if alike is not None:
        heads = [False, False, True]
        found["similarity"] = [
            {"layer": n, "head": h, "cka": {"mean": v, "ci95": 0.01}}
            for n, h, v in zip(LAYERS, heads, [*alike, 0.2], strict=True)
        ]
    return found | more


def kind(*values: Any, **more: Any) -> str:
    found = judge(results(*values, **more))
    assert found is not None
    return found.kind


def test_verdict_distinguishes_maml_from_boil():
    """The paper's MAML (46.9, 46.3; CKA near 1) and a BOIL model, whose body alone learns and changes."""
    assert kind(0.469, 0.463, 0.2, 0.484, [0.99, 0.97]) == "feature reuse"
    assert kind(0.757, 0.191, 0.191, 0.470, [0.93, 0.70], algorithm="boil", moves="body") == "rapid learning"
    # even where NIL does well: what moves nothing but the body learns by the body
    assert kind(0.957, 0.2, 0.2, 0.94, [0.97, 0.69], algorithm="boil", moves="body") == "rapid learning"
    # and then its body must change, however well NIL does, so that one that hardly changes is in between
    assert kind(0.957, 0.2, 0.2, 0.94, [0.97, 0.85], algorithm="boil", moves="body") == "between"
    # unless it was not looked at
    assert kind(0.957, 0.2, 0.2, 0.94, None, algorithm="boil", moves="body") == "undecided"


@pytest.mark.parametrize(
    ("body", "nil", "alike", "expected"),
    [
        (0.92, None, None, "undecided"),
        (0.92, None, [0.99, 0.81], "feature reuse"),
        (0.92, None, [0.99, 0.79], "between"),  # it need not change, but does
        (
            0.60,
            0.95,
            [0.99, 0.90],
            "feature reuse",
        ),  # the features are there; the head alone learns too slowly
        (0.60, 0.70, [0.99, 0.90], "between"),
        (0.60, None, None, "undecided"),
        (0.60, 0.70, None, "between"),  # whatever similarity would be
        (0.40, None, None, "undecided"),
        (0.40, None, [0.90, 0.60], "undecided"),  # NIL might say that it need not change
        (0.40, 0.50, [0.90, 0.60], "rapid learning"),
        (0.40, 0.50, [0.99, 0.90], "between"),  # it must change, but hardly does
        (0.70, 0.70, [0.90, 0.60], "between"),
        (0.40, 0.94, [0.90, 0.60], "between"),  # NIL says that it need not, and yet it does
        (0.40, 0.94, None, "undecided"),
    ],
)
def test_verdict_follows_thresholds(body: float, nil: float | None, alike: list[float] | None, expected: str):
    """Scores from 0.2 (all frozen) to 0.95 (none): 0.9 of the gain is 0.875, half of it 0.575."""
    assert kind(0.95, body, 0.2, nil, alike) == expected


def test_no_gain_gives_no_gain_verdict():
    assert kind(0.205, 0.2, 0.2, 0.9, [0.9, 0.9]) == "no gain"
    assert kind(0.1, 0.2, 0.2, 0.9, [0.9, 0.9]) == "no gain"


def test_verdict_treats_lower_loss_as_better():
    """For regression less is better; a body-frozen loss above that of no adaptation keeps nothing."""
    found = results(0.3, 0.5, 3.0, None, [0.99, 0.97], metric="loss")
    for line in found["freeze"]:
        line["loss"] = line["accuracy"]
    verdict = judge(found)
    assert verdict is not None
    assert verdict.kind == "feature reuse"
    assert verdict.measures["kept"] == pytest.approx(2.5 / 2.7)


def test_no_verdict_without_freezing():
    assert judge({"metric": "accuracy", "layers": LAYERS}) is None


def told(*values: Any, **more: Any) -> str:
    found = judge(results(*values, **more))
    assert found is not None
    return " ".join(found.sentences)


def test_sentences_follow_from_results():
    maml = told(0.95, 0.90, 0.2, 0.93, [0.99, 0.9])
    assert "reaches 95.00 ± 1.00 %; without it, 20.00 ± 1.00 %" in maml
    assert "93 % of the gain is left" in maml
    assert "conv2, has a similarity (linear CKA) of 0.90" in maml
    assert "stays nearly the same" in maml
    assert maml.endswith("and the head learns.")
    slow = told(0.95, 0.60, 0.2, 0.95, [0.99, 0.9])
    assert "it is the head that cannot learn to use them" in slow
    assert slow.endswith("although this inner loop also relies on what it changes in the body.")
    boil = told(0.9, 0.2, 0.2, 0.5, [0.9, 0.4], algorithm="boil", moves="body")
    assert "adapts the body alone" in boil
    assert "What the body computes changes" in boil
    assert "its features would suffice as they are" in told(0.95, 0.4, 0.2, 0.94, [0.9, 0.6])
    assert "part of the learning is in the body" in told(0.95, 0.7, 0.2, 0.7, [0.9, 0.6])
    anil = told(0.95, 0.95, 0.2, None, None, algorithm="anil", moves="head")
    assert (
        "the body does not change, and freezing it changes nothing, by construction. This is feature" in anil
    )
    assert "nothing to explain. With more tasks, it could" in told(0.2, 0.2, 0.2, None, None)


def test_undecided_verdict_names_missing_experiments():
    """Only experiments that could change it; of regression, no NIL."""
    needs = "This does not decide it: the verdict also needs the experiment"
    assert told(0.95, 0.92, 0.2, None, None).endswith(f"is left. {needs} similarity.")
    assert told(0.95, 0.6, 0.2, None, None).endswith(f"{needs}s similarity and nil.")
    assert told(0.95, 0.4, 0.2, None, [0.9, 0.6]).endswith(f"{needs} nil.")
    found = results(0.3, 2.8, 3.0, None, None, metric="loss")
    for line in found["freeze"]:
        line["loss"] = line["accuracy"]
    verdict = judge(found)
    assert verdict is not None
    assert verdict.sentences[-1] == f"{needs} similarity."
    undefined = results(0.95, 0.92, 0.2, None, [0.9, 0.9])
    for line in undefined["similarity"]:
        line["cka"]["mean"] = None
    verdict = judge(undefined)
    assert verdict is not None
    assert "(linear CKA) of the body is undefined" in verdict.sentences[-1]
