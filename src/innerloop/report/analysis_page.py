"""The HTML page of an analysis: the question, the experiments, and the verdict for this model in words."""

from collections.abc import Sequence
from pathlib import Path

from innerloop.config.specs import ALGORITHMS
from innerloop.io.files import OutputFolder
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject
from innerloop.report import analysis_figures, analysis_tables
from innerloop.report.analysis_sections import SECTIONS
from innerloop.report.figure_files import rendered, save_figures, svg
from innerloop.report.html_blocks import document, escaped, nonbreaking

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


def write(results: JsonObject, names: Sequence[str], folder: OutputFolder) -> Path:
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
    analysis_tables.write(results, names, folder)
    drawn = analysis_figures.all_of(results)
    save_figures(folder, rendered(drawn))
    shown = {name: svg(figure, name) for name, figure in drawn.items()}
    folder.write("index.html", _page(results, [n for n in SECTIONS if n in names], shown))
    return folder.path / "index.html"


def _page(results: JsonObject, names: Sequence[str], shown: dict[str, str]) -> str:
    """The whole page."""
    title = f"Rapid learning or feature reuse? {results['source']}"
    links = "".join(f'<a href="#{name}">{SECTIONS[name].link}</a>' for name in names)
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


def subject(results: JsonObject) -> str:
    """Describe in one sentence what was analysed."""
    r = results
    spec, length = ALGORITHMS[r["algorithm"]], r["trained_meta_steps"]
    size = "of learned sizes" if spec.learns_rates else f"of size {r['inner_learning_rate']:g}"
    trained = "" if length is None else f" trained for {counted(length, 'meta-step')}"
    mode = f"; normalisation {r['normalization']}" if r["normalization"] else ""
    what = "sinusoids" if r["metric"] == "loss" else f"{r['ways']}-way"
    return (
        f"{r['source']}: {spec.title}{trained}; {what}, {counted(r['shots'], 'shot')}; "
        f"{counted(r['inner_steps'], 'inner step')} {size}; scores over "
        f"{counted(r['tasks'], 'held-out task')}, activations and weights over {r['tasks_looked_at_closely']}; mean ± "
        f"95 % interval{mode}; seed {r['seed']}."
    )


def _verdict(results: JsonObject) -> str:
    """The verdict, or which experiment it needs."""
    if "verdict" not in results:
        return '<p class="verdict">The verdict needs the experiment <code>freeze</code>.</p>'
    found = results["verdict"]
    words = " ".join(found["sentences"])
    return f'<p class="verdict"><b>{found["kind"].capitalize()}.</b> {nonbreaking(words)}</p>'


def _section(name: str, results: JsonObject, shown: dict[str, str]) -> str:
    """One experiment: what was done, its results, and the paper's."""
    pictures = [f"<figure>{image}</figure>" for key, image in shown.items() if key.split("-")[0] == name]
    narrow = ' style="max-width: 44rem"' if len(pictures) == 1 else ""
    section, summary = SECTIONS[name], _summary(name, results)
    return "\n".join(
        [
            f'<h2 id="{name}">{section.title}</h2>',
            f"<p>{escaped(section.what)}</p>",
            f'<div class="figures"{narrow}>{"".join(pictures)}</div>',
            f"<p>{nonbreaking(summary)}</p>" if summary else "",
            section.table(results) if section.table else "",
            f'<p class="soft">{nonbreaking(section.paper)}</p>' if section.paper else "",
        ]
    )


def _summary(name: str, results: JsonObject) -> str:
    """The result of an experiment in a sentence; empty if there is none."""
    if name == "against":
        return _against_summary(results["against"], results["against_source"])
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


def _against_summary(layers: Sequence[JsonObject], other: str) -> str:
    """The similarity of two models' bodies, averaged over the layers for which it is defined."""
    words = []
    for measure in ("cca", "cka"):
        known = [x[measure]["mean"] for x in layers if not x["head"] and x[measure]["mean"] is not None]
        if known:
            words.append(f"{measure.upper()} {sum(known) / len(known):.2f}")
    return f"Against {other}, mean over the body: {', '.join(words)}." if words else ""


def _weights_summary(layers: Sequence[JsonObject]) -> str:
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


def _path_summary(paths: JsonObject) -> str:
    """The true lengths of the paths, and how much of them the projection shows."""
    words = []
    for part in ("body", "head"):
        lengths, shown = paths[part]["lengths"], paths[part]["shown"]["close"]
        outer = "" if lengths["outer"] is None else f"outer loop {lengths['outer']:.2f}, "
        seen = (
            "" if shown is None else f" (the lower picture shows {100 * shown:.0f} % of their squared length)"
        )
        unit = "" if paths[part]["relative"] else " (absolute, since θ's is zero)"
        words.append(f"{part}{unit}: {outer}inner loops {lengths['inner']:.3f} on average{seen}")
    return "True path lengths in units of θ's norm: " + "; ".join(words) + "."
