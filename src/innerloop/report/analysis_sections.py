"""The frame of an analysis page: the question, what each experiment did, what the paper found, and the rule."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from innerloop.analysis.experiments import MOST_COMPARED
from innerloop.report.html_blocks import document, escaped, nonbreaking

TITLE = "Rapid learning or feature reuse?"

QUESTION = """
<p>This network was <em>meta-trained</em>: an outer loop over many tasks looked for starting weights, θ, from which a
few gradient steps on a handful of examples, the inner loop, solve a new task. That works. But why? There are two
explanations:</p>
<ul><li><b>Rapid learning.</b> From θ, a few steps can change the whole network: on each new task its layers learn new
features for that task.</li>
<li><b>Feature reuse.</b> θ's layers already compute features that are good for all tasks. The inner loop hardly
changes them; only the last layer, the <em>head</em>, has to learn which features indicate which class of this
task.</li></ul>
<p>The experiments below tell the two apart for this model. All layers but the head are called the <em>body</em>. Every
task is made of classes that training never saw.</p>
"""

RULE = """
<p class="soft">Two numbers decide whether the body <em>must</em> change: the share of adaptation's gain that remains
with the body frozen, and the share that NIL reaches. If either is at least 90 %, it need not; otherwise, if at most
50 % remains with the body frozen, it must (as it must if an algorithm adapts nothing else). One number decides whether
it <em>does</em>: linear CKA of the body layer that changes most; at least 0.8 means that it does not.
If it does not and need not: feature reuse. If it does and must: rapid learning. Everything else is in between.
The thresholds are innerloop's conventions. The definitions and the paper's results are from Raghu, Raghu, Bengio
and Vinyals,
<a href="https://arxiv.org/abs/1909.09157">Rapid Learning or Feature Reuse?</a> (2020).</p>
"""

BEFORE_AND_AFTER = (
    "The queries of a task pass through the network before and after its inner loop, and both sets of activations are "
    "compared, layer by layer. 1 means the same up to a change of basis: CCA is invariant to any invertible linear "
    "map, CKA to rotations and scaling only."
)


class Section(NamedTuple):
    """An experiment on the page.

    Attributes:
        title: its heading.
        link: its name in the page's navigation.
        what: what was done.
        paper: what the paper found.
    """

    title: str
    link: str
    what: str
    paper: str = ""


SECTIONS = {
    "freeze": Section(
        "Freezing: what if layers cannot adapt?",
        "Freezing",
        "The inner loop is switched off for the first layers, one more at a time; the others adapt as usual. If "
        "the score holds until the head is frozen too, the body need not adapt. All rows are measured on the same "
        "tasks, so the changes have their own, smaller intervals.",
        "In the paper (mini-ImageNet, 5-way): 1-shot 46.9 % with nothing frozen, 46.3 % with the body frozen; "
        "5-shot 63.1 % and 61.0 %.",
    ),
    "similarity": Section(
        "Similarity: does adaptation change what layers compute?",
        "Similarity",
        f"{BEFORE_AND_AFTER} PWCCA is CCA with directions weighted by their share of the layer. Hollow marks "
        "show chance: the same with shuffled points, which is high for CCA with few points.",
        "In the paper (mini-ImageNet): CCA above 0.9 for the body, below 0.5 for the head.",
    ),
    "nil": Section(
        "No inner loop at all",
        "NIL",
        "NIL (no inner loop) drops the head and adapts nothing: a query gets the class of the support examples with "
        "the most similar features (cosine similarity). Its accuracy comes from the features of the body alone. The "
        "untrained body is the same network before training.",
        "In the paper (mini-ImageNet, 5-way 1-shot): MAML 46.9 %, NIL on its body 48.4 %, on random features "
        "32.9 %.",
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
        "Freezing and similarity at snapshots along the run. Activations are compared on at most "
        f"{MOST_COMPARED} tasks.",
        "In the paper this holds from early on (10 000 of 30 000 meta-steps).",
    ),
    "against": Section(
        "Do two runs learn the same features?",
        "Two runs",
        "The same inputs pass through two trained models, and their layers are compared. Models from different "
        "random initialisations do not agree neuron by neuron, but their layers can span the same space.",
        "In the paper, mean over the body: MAML-MAML CCA 0.51 and CKA 0.83, ANIL-MAML 0.50 and 0.83.",
    ),
}
"""The sections of the page by experiment, in their order."""


def navigation(links: Mapping[str, str]) -> str:
    """Links to the sections, by the experiment's name."""
    items = "".join(f'<a href="#{name}">{escaped(link)}</a>' for name, link in links.items())
    return f"<nav>{items}</nav>"


def page(runs: str, head: Iterable[str], sections: Iterable[str]) -> str:
    """A whole page on the question, with what was found at its head; `runs` names them in the title."""
    return document(
        f"{TITLE} {runs}",
        [
            f"<h1>{TITLE}</h1>",
            *head,
            "<h2>The question</h2>",
            QUESTION,
            *sections,
            "<h2>How the verdict is made</h2>",
            RULE,
        ],
    )


def section(name: str, what: str, *results: str) -> str:
    """The section of an experiment: what was done, its results as HTML, and the paper's."""
    title, paper = SECTIONS[name].title, SECTIONS[name].paper
    below = f'<p class="soft">{nonbreaking(paper)}</p>' if paper else ""
    return "\n".join([f'<h2 id="{name}">{title}</h2>', f"<p>{escaped(what)}</p>", *results, below])
