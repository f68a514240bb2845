"""The sections of an analysis page: what each experiment did, what the paper found, and its table."""

from collections.abc import Callable
from typing import NamedTuple

from innerloop.io.text import grouped, with_interval
from innerloop.io.untrusted import JsonObject
from innerloop.report.html_blocks import nonbreaking, table
from innerloop.report.plots.analysis import frozen_name, nil_name

BEFORE_AND_AFTER = (
    "The queries of a task pass through the network before and after its inner loop, and both sets of activations are "
    "compared, layer by layer. 1 means the same up to a change of basis: CCA is invariant to any invertible linear "
    "map, CKA to rotations and scaling only."
)


def _freeze_table(results: JsonObject) -> str:
    """The freezing table."""
    metric = results["metric"]
    rows = []
    for line in results["freeze"]:
        change = with_interval(line["change"], line["change_ci95"], metric) if line["frozen"] else ""
        name = frozen_name(line["frozen"], results["layers"])
        rows.append(
            ("", [name, nonbreaking(with_interval(line[metric], line["ci95"], metric)), nonbreaking(change)])
        )
    return table(["frozen", metric, "change"], rows)


def _similarity_table(name: str) -> Callable[[JsonObject], str]:
    """A function that makes the similarity table of one experiment."""
    heads = ["layer", "mean CCA", "SVCCA", "PWCCA", "CKA", "CKA, debiased", "CKA, RBF", "points", "neurons"]

    def made(results: JsonObject) -> str:
        rows = []
        for x in results[name]:
            values = [x[m] for m in ("cca", "svcca", "pwcca", "cka", "cka_debiased", "cka_rbf")]
            cells = [
                "" if v["mean"] is None else f"{v['mean']:.3f}&nbsp;±&nbsp;{v['ci95']:.3f}" for v in values
            ]
            rows.append(("", [x["layer"], *cells, grouped(x["points"]), str(x["neurons"])]))
        return table(heads, rows)

    return made


def _nil_table(results: JsonObject) -> str:
    """The NIL table."""
    value = lambda x, a, b: nonbreaking(with_interval(x[a], x[b], "accuracy"))
    rows = [
        (
            "",
            [
                nil_name(x),
                value(x, "accuracy", "ci95"),
                "" if x["inner_loop"] else value(x, "change", "change_ci95"),
            ],
        )
        for x in results["nil"]
    ]
    return table(["", "accuracy", "change"], rows)


class Section(NamedTuple):
    """An experiment on the page.

    Attributes:
        title: its heading.
        link: its name in the page's navigation.
        what: what was done.
        paper: what the paper found.
        table: makes its table.
    """

    title: str
    link: str
    what: str
    paper: str = ""
    table: Callable[[JsonObject], str] | None = None


SECTIONS = {
    "freeze": Section(
        "Freezing: what if layers cannot adapt?",
        "Freezing",
        "The inner loop is switched off for the first layers, one more at a time; the others adapt as usual. If "
        "the score holds until the head is frozen too, the body need not adapt. All rows are measured on the same "
        "tasks, so the changes have their own, smaller intervals.",
        "In the paper (mini-ImageNet, 5-way): 1-shot 46.9 % with nothing frozen, 46.3 % with the body frozen; "
        "5-shot 63.1 % and 61.0 %.",
        _freeze_table,
    ),
    "similarity": Section(
        "Similarity: does adaptation change what layers compute?",
        "Similarity",
        f"{BEFORE_AND_AFTER} PWCCA is CCA with directions weighted by their share of the layer. Hollow marks "
        "show chance: the same with shuffled points, which is high for CCA with few points.",
        "In the paper (mini-ImageNet): CCA above 0.9 for the body, below 0.5 for the head.",
        _similarity_table("similarity"),
    ),
    "nil": Section(
        "No inner loop at all",
        "NIL",
        "NIL (no inner loop) drops the head and adapts nothing: a query gets the class of the support examples with "
        "the most similar features (cosine similarity). Its accuracy comes from the features of the body alone. The "
        "untrained body is the same network before training.",
        "In the paper (mini-ImageNet, 5-way 1-shot): MAML 46.9 %, NIL on its body 48.4 %, on random features "
        "32.9 %.",
        _nil_table,
    ),
    "weights": Section(
        "How far do the weights move?",
        "Weights",
        "For each layer, the norm of the change that the inner loop makes, relative to the layer's norm, and "
        "the angle by which its weights turn.",
    ),
    "steps": Section(
        "Where in the inner loop does learning happen?",
        "Inner steps",
        "Scores on the queries, losses, the norm of each layer's gradient on the support set, and how far each "
        "layer has moved from θ, after every inner step.",
    ),
    "paths": Section(
        "The two hypotheses in pictures",
        "Paths",
        "The upper pictures show the path of the outer loop from the initial weights to θ and, from there, the "
        "inner loops of several tasks, in one projection; the lower ones show only the inner loops. Body and head "
        "have the same scale in each row. Rapid learning would send the body's paths far apart; under feature reuse "
        "they stay at θ while those of the head spread.",
    ),
    "landscape": Section(
        "The loss around θ",
        "Landscape",
        "Left: the loss of each task along its own first inner step, averaged over tasks. Others: the losses "
        "of two tasks on the plane spanned by their first steps, with the paths of both inner loops.",
    ),
    "early": Section(
        "When in training does this emerge?",
        "Early",
        "Freezing and similarity at snapshots along the run.",
        "In the paper this holds from early on (10 000 of 30 000 meta-steps).",
    ),
    "against": Section(
        "Do two runs learn the same features?",
        "Two runs",
        "The same inputs pass through two trained models, and their layers are compared. Models from different "
        "random initialisations do not agree neuron by neuron, but their layers can span the same space.",
        "In the paper, mean over the body: MAML-MAML CCA 0.51 and CKA 0.83, ANIL-MAML 0.50 and 0.83.",
        _similarity_table("against"),
    ),
}
"""The sections of the page by experiment, in their order."""
