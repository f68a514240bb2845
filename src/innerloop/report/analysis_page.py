"""The HTML page of an analysis: what the experiments found, and the verdict for this model in words."""

from collections.abc import Callable, Mapping, Sequence

from innerloop.analysis.experiments import EXPERIMENTS
from innerloop.config.specs import ALGORITHMS
from innerloop.io.folders import OutputFolder
from innerloop.io.text import counted, grouped
from innerloop.io.untrusted import JsonObject
from innerloop.report import analysis_tables
from innerloop.report.analysis_sections import SECTIONS, navigation, page, section
from innerloop.report.analysis_text import TABLES, sentence
from innerloop.report.figure_files import rendered, save_figures, svg
from innerloop.report.html_blocks import nonbreaking
from innerloop.report.plots import analysis as layers
from innerloop.report.plots import analysis_paths as along
from innerloop.report.plots.style import Grid, draw_figure

FIGURES: dict[str, tuple[Grid, Callable[..., object]]] = {
    "freeze": (layers.FREEZING, layers.freezing),
    "similarity": (layers.SIMILARITY, layers.similarity),
    "nil": (layers.NIL, layers.nil),
    "weights": (layers.MOVEMENT, layers.movement),
    "steps": (along.STEPS, along.inner_steps),
    "paths": (along.PATHS, along.paths),
    "early": (along.ALONG, along.along_training),
    "landscape-line": (along.LINE, along.loss_along_step),
    "landscape-plane": (along.PLANE, along.loss_plane),
    "against": (layers.SIMILARITY, layers.similarity_of_models),
}
"""The figures by file name, which begins with the experiment."""


def write(results: JsonObject, folder: OutputFolder) -> None:
    """Write the page, tables and figures of a record of `innerloop.analysis.run_all.analyze`.

    Raises InnerloopError if a file cannot be written.
    """
    folder.make()
    names = [name for name in SECTIONS if name in results]
    rows = {name: analysis_tables.rows_of(name, results[name]) for name in names}
    analysis_tables.write(results, rows, folder)
    wanted = [name for name in FIGURES if name.split("-")[0] in results]
    drawn = {name: draw_figure(*FIGURES[name], results) for name in wanted}
    save_figures(folder, rendered(drawn))
    shown = {name: svg(figure, name) for name, figure in drawn.items()}
    folder.write("index.html", _page(results, names, shown))


def _page(results: JsonObject, names: Sequence[str], shown: Mapping[str, str]) -> str:
    """The whole page."""
    head = [
        f'<p class="soft">{nonbreaking(subject(results))}</p>',
        _verdict(results),
        navigation({name: SECTIONS[name].link for name in names}),
    ]
    return page(results["source"], head, (_section(name, results, shown) for name in names))


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
    for name, about in SECTIONS.items():
        if name in results:
            links.setdefault(EXPERIMENTS[name].tasks_of(results["tasks"]), []).append(about.link)
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


def _section(name: str, results: JsonObject, shown: Mapping[str, str]) -> str:
    """One experiment, with its figures, its result in a sentence, and its table."""
    pictures = [f"<figure>{image}</figure>" for key, image in shown.items() if key.split("-")[0] == name]
    narrow = ' style="max-width: 44rem"' if len(pictures) == 1 else ""
    found = sentence(name, results)
    return section(
        name,
        SECTIONS[name].what,
        f'<div class="figures"{narrow}>{"".join(pictures)}</div>',
        f"<p>{nonbreaking(found)}</p>" if found else "",
        TABLES[name](results).as_html() if name in TABLES else "",
    )
