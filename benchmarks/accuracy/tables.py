"""Generate the docs' result tables from the result files."""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.accuracy.published import (
    LOCOMOTION,
    NAVIGATION,
    PUBLISHED_ITERATIONS,
    SINUSOID_5_SHOT,
    published_accuracy,
)
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.io.files import write_text
from innerloop.training.storage import shipped, weights

ROOT = Path(__file__).parents[2]
NAMES = {
    "maml": "MAML",
    "maml-short": "MAML, published network and steps, a quarter of the training",
    "fomaml": "FOMAML",
    "anil": "ANIL",
    "reptile": "Reptile",
    "boil": "BOIL",
    "joint": "pre-trained on all classes, fine-tuned",
    "untrained": "random weights, fine-tuned",
}
ORDER = list(NAMES)
LENGTHS = {
    "-paper-length": ", 60 000 meta-steps from random weights",
    "-published": ", all published settings",
}
"""Suffixes of preset names, in words."""
ITERATION = "navigation-iteration.json"
"""The result file that `benchmarks.rl.meta_iteration` writes."""
HEAD = """# Results

`make results` generates this page from the files in `benchmarks/results`. Every number is a mean over held-out tasks
with its 95 % confidence interval. The files also record the length of training, the commit of the measurement and the
machine, and the seed and commit of training where the run recorded them. Older files use 1.96 standard errors instead
of Student's t, which makes the intervals 0.1 % narrower for 1000 tasks. Training times are wall times on two cores that
also did other work, so they are upper bounds.

"""


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Every result by subject, without files that have no subject: those are not about a trained initialisation."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {result["subject"]: result for result in results if "subject" in result}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(record: dict[str, Any]) -> str:
    """An accuracy with its interval."""
    return f"{100 * record['accuracy']:.2f} ± {100 * record['ci95']:.2f}"


def label(subject: str, setting: str) -> str:
    """The display name of a subject's algorithm."""
    algorithm, length = without_length(subject.removeprefix(setting + "-"))
    return NAMES[algorithm] + LENGTHS.get(length, "") if algorithm in NAMES else subject


def without_length(name: str) -> tuple[str, str]:
    """Split a name into its stem and the suffix that states the length of training."""
    end = next((end for end in LENGTHS if name.endswith(end)), "")
    return name.removesuffix(end), end


def turned(record: dict[str, Any]) -> str:
    """Whether Omniglot's test classes were rotated or upright; empty for other data."""
    return {True: "rotated", False: "upright", None: ""}[record.get("rotations")]


def begun_with(subject: str) -> str:
    """The trained model whose body a shipped model started from; empty for random weights."""
    return weights.load(shipped.path(subject))[1].model.start if subject in shipped.names() else ""


def trained_config(subject: str) -> Config | None:
    """The config of a shipped model, or of a preset that was trained unchanged."""
    if subject in shipped.names():
        return weights.load(shipped.path(subject))[1]
    config = all_presets().get(subject)
    return config if config is not None and config.spec.adapts_in_training else None


def training(result: dict[str, Any]) -> str:
    """The number of meta-steps, the meta-batch, the inner steps and the wall time of a subject's training."""
    facts = result["training"]
    if not facts["meta_steps"]:
        return "none"
    with_what, name = "", result["subject"]
    if (config := trained_config(name)) is not None:
        with_what = f" of {config.outer.meta_batch} tasks, {config.inner.steps} inner"
        with_what += f", started from `{start}`" if (start := config.model.start) else ""
    minutes = f", {facts['seconds'] / 60:.0f} min" if "seconds" in facts else ""
    return f"{facts['meta_steps']:,}".replace(",", " ") + f" meta-steps{with_what}{minutes}"


def image_rows(results: dict[str, dict[str, Any]], setting: str) -> list[list[str]]:
    """One row per subject and normalisation mode."""
    own = [s for s in results if s.startswith(setting + "-")]
    own.sort(key=lambda s: (ORDER.index(without_length(s.removeprefix(setting + "-"))[0]), s))
    rows = []
    for subject in own:
        for record in results[subject]["measurements"]:
            mode = record["normalization"]
            paper, source = published_accuracy(subject, record)
            rows.append(
                [
                    label(subject, setting),
                    mode,
                    turned(record),
                    percent(record),
                    f"{paper} ({source})" if paper else "",
                    f"{record['inner_steps']} x {record['inner_learning_rate']:g}",
                    str(record["queries_per_class"]),
                    str(record["tasks"]),
                    training(results[subject]),
                ]
            )
    return rows


def image_tables(results: dict[str, dict[str, Any]]) -> str:
    """A table for each combination of data set, ways and shots."""
    found = {m.group(0) for s in results if (m := re.match(r".*-\d+way-\d+shot", s))}
    header = [
        "",
        "normalisation",
        "test classes",
        "accuracy, %",
        "published",
        "test steps",
        "queries per class",
        "tasks",
        "training",
    ]
    return "\n".join(
        f"## {setting}\n\n{table(header, image_rows(results, setting))}"
        for setting in sorted(found, reverse=True)
    )


def error(record: dict[str, Any], step: int) -> str:
    """The error after `step` steps with its interval; empty if it was not measured."""
    curve = record["curve"]
    if step not in curve["steps"]:
        return ""
    at = curve["steps"].index(step)
    return f"{curve['loss']['mean'][at]:.3f} ± {curve['loss']['ci95'][at]:.3f}"


def sinusoid_table(results: dict[str, dict[str, Any]]) -> str:
    """Our errors after 0, 1, 2, 5 and 10 steps beside the paper's."""
    rows = []
    for subject in [s for s in results if s.startswith("sinusoid")]:
        for record in results[subject]["measurements"]:
            paper = SINUSOID_5_SHOT.get(subject) if record["shots"] == 5 else None
            rows.append(
                [
                    subject.removeprefix("sinusoid-").upper(),
                    str(record["shots"]),
                    *(error(record, step) for step in (0, 1, 2, 5, 10)),
                    " / ".join(paper) if paper else "",
                    training(results[subject]),
                ]
            )
    header = ["", "points", "0 steps", "1", "2", "5", "10", "published, 1 / 5 / 10", "training"]
    note = "Mean squared error. The published numbers are from Finn et al. 2017, table 2 (5 points).\n\n"
    return f"## Sinusoid\n\n{note}{table(header, rows)}\n"


def navigation_table(results: dict[str, dict[str, Any]]) -> str:
    """Returns of every trained policy after 0 to 3 updates, with the paper's below."""
    rows = []
    for subject in [s for s in results if s.startswith("navigation")]:
        name = subject.removeprefix("navigation-")
        rows += policy_rows(name, results[subject])
        if subject in NAVIGATION:
            rows.append([f"{name}, published", "", "", *NAVIGATION[subject], "40", ""])
    return table(["", "seed", "step", "0 updates", "1", "2", "3", "goals", "training"], rows)


def locomotion_table(results: dict[str, dict[str, Any]]) -> str:
    """The same for locomotion; published results are listed even where we have none."""
    ours = {s for s in results if s.startswith(("half-cheetah", "ant-"))}
    rows = []
    for subject in sorted(ours | set(LOCOMOTION), reverse=True):
        rows += policy_rows(subject, results[subject]) if subject in ours else []
        if subject in LOCOMOTION:
            length = f"{PUBLISHED_ITERATIONS[subject]} iterations"
            rows.append([f"{subject}, published", "", "", *LOCOMOTION[subject], "40", length])
    return table(["", "seed", "step", "0 updates", "1", "2", "3", "tasks", "training"], rows)


def iteration_table(record: dict[str, Any]) -> str:
    """The cost of one meta-iteration of navigation, ours and the peer's."""
    rows = []
    for key, name in (("innerloop", "innerloop"), ("pytorch", "PyTorch and NumPy")):
        if key in record:
            r = record[key]
            walked = f"{r['environment_steps_per_second']:,}".replace(",", " ")
            rows.append([name, f"{r['seconds']:.2f}", f"{r['cpu_seconds']:.2f}", walked])
    machine = (
        f"{record['threads']} cores of {record['processor']}, load average {record['load_before']} before"
    )
    made = f"\n{machine}; commit {record['commit']}, {record['date']}; medians of {record['turns']} turns.\n"
    return table(["", "seconds", "CPU seconds", "environment steps/s"], rows) + made


def policy_rows(name: str, result: dict[str, Any]) -> list[list[str]]:
    """One row per run of a subject."""
    rows = []
    for record, facts in zip(result["measurements"], result["runs"], strict=True):
        points = zip(record["returns"], record["ci95"], strict=True)
        cells = [f"{mean:.1f} ± {ci95:.1f}" for mean, ci95 in points]
        length = f"{facts['meta_steps']} iterations" if facts["meta_steps"] else "none"
        step = f"{record['inner_learning_rate']:g}"
        rows.append([name, str(facts["seed"]), step, *cells, str(record["tasks"]), length])
    return rows


def between_markers(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`, if the page has them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = path.read_text()
    if begin in page:
        head, rest = page.split(begin)
        write_text(path, f"{head}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")


def summary(results: dict[str, dict[str, Any]]) -> str:
    """The README's short table: every trained subject in transductive mode."""
    rows = []
    for subject, result in results.items():
        if subject.endswith(("untrained", "joint")):
            continue
        for record in [r for r in result["measurements"] if r.get("normalization") == "transductive"]:
            if "accuracy" in record:
                rows.append(summary_row(subject, record))
    rows.sort(key=lambda row: (row[0] != "omniglot-5way-1shot", row[0]))
    return table(["tasks", "algorithm", "accuracy, %", "normalisation", "published"], rows)


def summary_row(subject: str, record: dict[str, Any]) -> list[str]:
    """One row of the README's table."""
    setting = setting_of(subject)
    name = label(subject, setting) + (f", started from `{start}`" if (start := begun_with(subject)) else "")
    name += ", upright test classes" if turned(record) == "upright" else ""
    return [setting, name, percent(record), record["normalization"], published_accuracy(subject, record)[0]]


def setting_of(subject: str) -> str:
    """Data, ways and shots."""
    setting = re.match(r".*-\d+way-\d+shot", subject)
    assert setting, subject
    return setting.group(0)


def results_page(results: dict[str, dict[str, Any]]) -> str:
    """The text of docs/reference/results.md."""
    return HEAD + sinusoid_table(results) + image_tables(results)


def marked_tables(folder: Path) -> list[tuple[Path, str, str]]:
    """The tables that go between markers on other pages, as (page, marker, text)."""
    results, policies = load(folder), ROOT / "docs" / "guides" / "rl.md"
    found = [
        (policies, "navigation", navigation_table(results)),
        (policies, "locomotion", locomotion_table(results)),
        (ROOT / "README.md", "results", summary(results)),
    ]
    if (folder / ITERATION).exists():
        iteration = json.loads((folder / ITERATION).read_text())
        found.append((policies, "iteration", iteration_table(iteration)))
    return found


def write_tables(folder: Path) -> None:
    """Write docs/reference/results.md and the tables between the markers of other pages."""
    write_text(ROOT / "docs" / "reference" / "results.md", results_page(load(folder)))
    for page, name, text in marked_tables(folder):
        between_markers(page, name, text)
