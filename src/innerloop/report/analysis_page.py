"""The HTML page of an analysis: the question, the experiments, and the verdict for this model in words."""

from collections.abc import Callable, Sequence
from pathlib import Path

from innerloop.analysis.records import Record
from innerloop.config.specs import ALGORITHMS
from innerloop.io.files import OutputFolder
from innerloop.io.text import counted, grouped, with_interval
from innerloop.report import analysis_figures, analysis_tables
from innerloop.report.figure_files import save_figures, svg
from innerloop.report.html_blocks import document, escaped, nonbreaking, table
from innerloop.report.plots.analysis import frozen_name, nil_name

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

TITLES = {
    "freeze": "Freezing: what if layers cannot adapt?",
    "similarity": "Similarity: does adaptation change what layers compute?",
    "nil": "No inner loop at all",
    "weights": "How far do the weights move?",
    "steps": "Where in the inner loop does learning happen?",
    "paths": "The two hypotheses in pictures",
    "landscape": "The loss around θ",
    "early": "When in training does this emerge?",
    "against": "Do two runs learn the same features?",
}

BEFORE_AND_AFTER = (
    "The queries of a task pass through the network before and after its inner loop, and both sets of activations are "
    "compared, layer by layer. 1 means the same up to a change of basis: CCA is invariant to any invertible linear "
    "map, CKA to rotations and scaling only."
)

WHAT = {
    "freeze": "The inner loop is switched off for the first layers, one more at a time; the others adapt as usual. If "
    "the score holds until the head is frozen too, the body need not adapt. All rows are measured on the same tasks, "
    "so the changes have their own, smaller intervals.",
    "similarity": f"{BEFORE_AND_AFTER} PWCCA is CCA with directions weighted by their share of the layer. Hollow marks "
    "show chance: the same with shuffled points, which is high for CCA with few points.",
    "nil": "NIL (no inner loop) drops the head and adapts nothing: a query gets the class of the support examples with "
    "the most similar features (cosine similarity). Its accuracy comes from the features of the body alone. The "
    "untrained body is the same network before training.",
    "weights": "For each layer, the norm of the change that the inner loop makes, relative to the layer's norm, and "
    "the angle by which its weights turn.",
    "steps": "Scores on the queries, losses, the norm of each layer's gradient on the support set, and how far each "
    "layer has moved from θ, after every inner step.",
    "paths": "The upper pictures show the path of the outer loop from the initial weights to θ and, from there, the "
    "inner loops of several tasks, in one projection; the lower ones show only the inner loops. Body and head have the "
    "same scale in each row. Rapid learning would send the body's paths far apart; under feature reuse they stay at θ "
    "while those of the head spread.",
    "landscape": "Left: the loss of each task along its own first inner step, averaged over tasks. Others: the losses "
    "of two tasks on the plane spanned by their first steps, with the paths of both inner loops.",
    "early": "Freezing and similarity at snapshots along the run.",
    "against": "The same inputs pass through two trained models, and their layers are compared. Models from different "
    "random initialisations do not agree neuron by neuron, but their layers can span the same space.",
}

PAPER = {
    "freeze": "In the paper (mini-ImageNet, 5-way): 1-shot 46.9 % with nothing frozen, 46.3 % with the body frozen; "
    "5-shot 63.1 % and 61.0 %.",
    "similarity": "In the paper (mini-ImageNet): CCA above 0.9 for the body, below 0.5 for the head.",
    "nil": "In the paper (mini-ImageNet, 5-way 1-shot): MAML 46.9 %, NIL on its body 48.4 %, on random features "
    "32.9 %.",
    "early": "In the paper this holds from early on (10 000 of 30 000 meta-steps).",
    "against": "In the paper, mean over the body: MAML-MAML CCA 0.51 and CKA 0.83, ANIL-MAML 0.50 and 0.83.",
}


def write(results: Record, names: Sequence[str], folder: OutputFolder) -> Path:
    """Write the page, tables and figures.

    Args:
        results: the record of `innerloop.analysis.run_all.analyze`.
        names: the experiments in it.
        folder: where to write.

    Returns:
        The path of the page.

    Raises:
        InnerloopError: if a file cannot be written.
    """
    folder.make()
    analysis_tables.write(results, list(names), folder)
    drawn = analysis_figures.all_of(results)
    save_figures(folder, drawn)
    shown = {name: svg(figure, name) for name, figure in drawn.items()}
    folder.write("index.html", _page(results, [n for n in TITLES if n in names], shown))
    return folder.path / "index.html"


def _page(results: Record, names: Sequence[str], shown: dict[str, str]) -> str:
    """The whole page."""
    title = f"Rapid learning or feature reuse? {results['source']}"
    links = "".join(f'<a href="#{name}">{LINKS[name]}</a>' for name in names)
    return document(
        title,
        [
            "<h1>Rapid learning or feature reuse?</h1>",
            f'<p class="soft">{nonbreaking(subject(results))}</p>',
            _verdict(results),
            f"<nav>{links}</nav>",
            "<h2>The question</h2>",
            QUESTION,
            *(_section(name, results, shown) for name in names),
            "<h2>How the verdict is made</h2>",
            RULE,
        ],
    )


LINKS = {
    "freeze": "Freezing",
    "similarity": "Similarity",
    "nil": "NIL",
    "weights": "Weights",
    "steps": "Inner steps",
    "paths": "Paths",
    "landscape": "Landscape",
    "early": "Early",
    "against": "Two runs",
}

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


def subject(results: Record) -> str:
    """Describe in one sentence what was analysed."""
    r = results
    spec, length = ALGORITHMS[r["algorithm"]], r["trained_meta_steps"]
    size = "of learned sizes" if spec.learns_rates else f"of size {r['inner_learning_rate']:g}"
    trained = "" if length is None else f" trained for {counted(length, 'meta-step')}"
    what = "sinusoids" if r["metric"] == "loss" else f"{r['ways']}-way"
    return (
        f"{r['source']}: {spec.title}{trained}; {what}, {counted(r['shots'], 'shot')}; "
        f"{counted(r['inner_steps'], 'inner step')} {size}; scores over "
        f"{counted(r['tasks'], 'held-out task')}, activations and weights over {r['tasks_looked_at_closely']}; mean ± "
        f"95 % interval; normalisation {r['normalization']}; seed {r['seed']}."
    )


def _verdict(results: Record) -> str:
    """The verdict, or which experiment it needs."""
    if "verdict" not in results:
        return '<p class="verdict">The verdict needs the experiment <code>freeze</code>.</p>'
    found = results["verdict"]
    words = " ".join(found["sentences"])
    return f'<p class="verdict"><b>{found["kind"].capitalize()}.</b> {nonbreaking(words)}</p>'


def _section(name: str, results: Record, shown: dict[str, str]) -> str:
    """One experiment: what was done, its results, and the paper's."""
    pictures = [f"<figure>{image}</figure>" for key, image in shown.items() if key.split("-")[0] == name]
    narrow = ' style="max-width: 44rem"' if len(pictures) == 1 else ""
    rows = TABLES[name](results) if name in TABLES else ""
    paper = f'<p class="soft">{nonbreaking(PAPER[name])}</p>' if name in PAPER else ""
    return "\n".join(
        [
            f'<h2 id="{name}">{TITLES[name]}</h2>',
            f"<p>{escaped(WHAT[name])}</p>",
            f'<div class="figures"{narrow}>{"".join(pictures)}</div>',
            f"<p>{nonbreaking(_summary(name, results))}</p>" if _summary(name, results) else "",
            rows,
            paper,
        ]
    )


def _summary(name: str, results: Record) -> str:
    """The result of an experiment in a sentence; empty if there is none."""
    if name == "against":
        body = [x for x in results["against"] if not x["head"]]
        mean = lambda what: sum(x[what]["mean"] for x in body) / len(body)
        other = results["against_source"]
        return f"Against {other}, mean over the body: CCA {mean('cca'):.2f}, CKA {mean('cka'):.2f}."
    if name == "weights":
        return _weights_summary(results["weights"])
    if name == "paths":
        return _path_summary(results["paths"])
    if name == "steps" and results["metric"] == "accuracy":
        curve = results["steps"]["accuracy"]["mean"]
        if len(curve) > 2 and curve[-1] > curve[0]:
            share = (curve[1] - curve[0]) / (curve[-1] - curve[0])
            return f"The first step brings {100 * share:.0f} % of the accuracy gained in all steps."
    return ""


def _weights_summary(layers: Sequence[Record]) -> str:
    """Which layer moves most, and for which this is undefined."""
    known = [x for x in layers if x["relative"] is not None]
    words = [
        f"{x['layer']} starts at zero: its relative movement is undefined." for x in layers if x not in known
    ]
    if known:
        maximum = max(known, key=lambda x: x["relative"])
        far, turn = 100 * maximum["relative"], maximum["angle"]
        among = " of the others" if words else ""
        words.insert(0, f"{maximum['layer']} moves most{among}: by {far:.1f} % of its norm and {turn:.1f}°.")
    return " ".join(words)


def _path_summary(paths: Record) -> str:
    """The true lengths of the paths, and how much of them the projection shows."""
    words = []
    for part in ("body", "head"):
        lengths, shown = paths[part]["lengths"], paths[part]["shown"]["close"]
        outer = "" if lengths["outer"] is None else f"outer loop {lengths['outer']:.2f}, "
        seen = (
            "" if shown is None else f" (the lower picture shows {100 * shown:.0f} % of their squared length)"
        )
        unit = "" if paths[part].get("relative", True) else " (absolute, since θ's is zero)"
        words.append(f"{part}{unit}: {outer}inner loops {lengths['inner']:.3f} on average{seen}")
    return "True path lengths in units of θ's norm: " + "; ".join(words) + "."


def _freeze_table(results: Record) -> str:
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


def _similarity_table(name: str) -> Callable[[Record], str]:
    """A function that makes the similarity table of one experiment."""
    heads = ["layer", "mean CCA", "SVCCA", "PWCCA", "CKA", "CKA, debiased", "CKA, RBF", "points", "neurons"]

    def made(results: Record) -> str:
        rows = []
        for x in results[name]:
            values = [x[m] for m in ("cca", "svcca", "pwcca", "cka", "cka_debiased", "cka_rbf")]
            cells = [
                "" if v["mean"] is None else f"{v['mean']:.3f}&nbsp;±&nbsp;{v['ci95']:.3f}" for v in values
            ]
            rows.append(("", [x["layer"], *cells, grouped(x["points"]), str(x["neurons"])]))
        return table(heads, rows)

    return made


def _nil_table(results: Record) -> str:
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


TABLES: dict[str, Callable[[Record], str]] = {
    "freeze": _freeze_table,
    "similarity": _similarity_table("similarity"),
    "against": _similarity_table("against"),
    "nil": _nil_table,
}
