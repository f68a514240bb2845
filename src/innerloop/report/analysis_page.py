"""The HTML page of an analysis: the question, the experiments, and the verdict for this model in words."""

from collections.abc import Sequence
from pathlib import Path

from innerloop.analysis.run_all import EXPERIMENTS
from innerloop.config.specs import ALGORITHMS
from innerloop.io.folders import OutputFolder
from innerloop.io.text import counted, grouped
from innerloop.io.untrusted import JsonObject
from innerloop.report import analysis_figures, analysis_tables
from innerloop.report.analysis_sections import SECTIONS
from innerloop.report.analysis_text import TABLES, sentence
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


def write(results: JsonObject, folder: OutputFolder) -> Path:
    """Write the page, tables and figures.

    Args:
        results: the record of `innerloop.analysis.run_all.analyze`.
        folder: where to write.

    Returns:
        The path of the page.

    Raises:
        InnerloopError: if a file cannot be written.
    """
    folder.make()
    names = [name for name in SECTIONS if name in results]
    analysis_tables.write(results, names, folder)
    drawn = analysis_figures.all_of(results)
    save_figures(folder, rendered(drawn))
    shown = {name: svg(figure, name) for name, figure in drawn.items()}
    folder.write("index.html", _page(results, names, shown))
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
        f"{counted(r['inner_steps'], 'inner step')} {size}; {tasks_in_words(results)}; mean ± 95 % interval{mode}; "
        f"seed {r['seed']}."
    )


def tasks_in_words(results: JsonObject) -> str:
    """The number of held-out tasks of each experiment that was made."""
    links: dict[int, list[str]] = {}
    for name, section in SECTIONS.items():
        if name in results:
            links.setdefault(EXPERIMENTS[name].tasks_of(results["tasks"]), []).append(section.link)
    words = [f"{grouped(count)} for {', '.join(names)}" for count, names in links.items()]
    return "held-out tasks: " + ("; ".join(words) or "none")


def _verdict(results: JsonObject) -> str:
    """The verdict, or which experiment it needs."""
    kind, *sentences = verdict_in_words(results)
    return f'<p class="verdict"><b>{kind}</b> {nonbreaking(" ".join(sentences))}</p>'


def verdict_in_words(results: JsonObject) -> list[str]:
    """The verdict and its sentences, or which experiment it needs."""
    if "verdict" not in results:
        return ["No verdict.", "It needs the experiment freeze."]
    found = results["verdict"]
    return [f"{found['kind'].capitalize()}.", *found["sentences"]]


def _section(name: str, results: JsonObject, shown: dict[str, str]) -> str:
    """One experiment: what was done, its results, and the paper's."""
    pictures = [f"<figure>{image}</figure>" for key, image in shown.items() if key.split("-")[0] == name]
    narrow = ' style="max-width: 44rem"' if len(pictures) == 1 else ""
    section, found = SECTIONS[name], sentence(name, results)
    return "\n".join(
        [
            f'<h2 id="{name}">{section.title}</h2>',
            f"<p>{escaped(section.what)}</p>",
            f'<div class="figures"{narrow}>{"".join(pictures)}</div>',
            f"<p>{nonbreaking(found)}</p>" if found else "",
            TABLES[name](results).as_html() if name in TABLES else "",
            f'<p class="soft">{nonbreaking(section.paper)}</p>' if section.paper else "",
        ]
    )
