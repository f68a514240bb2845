"""Generate the tables of docs/guides/analysis.md from the result files."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.tables import ROOT, table
from innerloop.analysis.verdict import judge
from innerloop.io.files import write_text
from innerloop.report.analysis_page import FIGURES
from innerloop.report.plots.style import draw_figure

PAGE = ROOT / "docs" / "guides" / "analysis.md"
FREEZING = {
    "none": ("46.9 ± 0.2", "63.1 ± 0.4"),
    "1": ("46.5 ± 0.3", "63.0 ± 0.6"),
    "1, 2": ("46.4 ± 0.4", "62.6 ± 0.6"),
    "1, 2, 3": ("46.3 ± 0.4", "61.2 ± 0.5"),
    "1, 2, 3, 4": ("46.3 ± 0.4", "61.0 ± 0.6"),
}
"""Raghu et al. 2020, table 1: mini-ImageNet 5-way, 1 and 5 shots, mean and standard deviation over three seeds."""
ACROSS = {"MAML-MAML": ("0.51", "0.83"), "ANIL-ANIL": ("0.51", "0.86"), "ANIL-MAML": ("0.50", "0.83")}
"""Raghu et al. 2020, table 3: CCA and CKA, mean over the body."""
SPEEDS = ("1.7", "4.1")
"""Raghu et al. 2020: speed-up of ANIL over MAML in training and inference, mean over their settings."""


def percent(line: dict[str, Any], value: str = "accuracy", half: str = "ci95") -> str:
    """An accuracy with its interval."""
    return f"{100 * line[value]:.1f} ± {100 * line[half]:.1f}"


def plain(value: dict[str, Any]) -> str:
    """A similarity with its interval."""
    return "" if value["mean"] is None else f"{value['mean']:.3f} ± {value['ci95']:.3f}"


def numbers(names: list[str]) -> str:
    """Frozen layers by number, as in the paper; `all` if the head is among them."""
    if not names:
        return "none"
    return "all" if names[-1] == "head" else ", ".join(str(i + 1) for i in range(len(names)))


def ratio(times: dict[str, list[float]], of: str = "anil") -> tuple[float, float, float]:
    """MAML's median time over that of another algorithm, and the range of the ratio over paired repeats."""
    pairs = np.array(times["maml"]) / np.array(times[of])
    middle = statistics.median(times["maml"]) / statistics.median(times[of])
    return middle, float(pairs.min()), float(pairs.max())


def seeds(found: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups of two or more runs that differ only in their training seed."""
    groups: dict[Any, dict[int, dict[str, Any]]] = {}
    for r in found:
        x = r["results"]
        same = (x["preset"], x["trained_meta_steps"], x["inner_steps"], x["inner_learning_rate"], x["shots"])
        groups.setdefault(same, {})[x["training_seed"]] = r
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def over_seeds(group: list[dict[str, Any]], frozen: str) -> str:
    """Mean and standard deviation over runs, as in the paper."""
    lines = [x for r in group for x in r["results"]["freeze"] if numbers(x["frozen"]) == frozen]
    values = [100 * x["accuracy"] for x in lines]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""


def freezing(found: list[dict[str, Any]]) -> str:
    """Accuracy by frozen layers, one row per model, below the paper's."""
    sets = list(dict.fromkeys(numbers(x["frozen"]) for r in found for x in r["results"]["freeze"]))
    rows = [
        [f"paper, mini-ImageNet {shots}", *(FREEZING[s][i] if s in FREEZING else "" for s in sets)]
        for i, shots in enumerate(("1-shot", "5-shot"))
    ]
    for r in found:
        ours = {numbers(x["frozen"]): percent(x) for x in r["results"]["freeze"]}
        rows.append([r["subject"], *(ours.get(s, "") for s in sets)])
    for group in seeds(found):
        name = f"{group[0]['results']['preset']}, {len(group)} seeds, deviation over them"
        rows.append([name, *(over_seeds(group, s) for s in sets)])
    return table(["frozen layers", *sets], rows)


def drops(found: list[dict[str, Any]]) -> str:
    """The accuracy lost by freezing the body and by NIL, and the verdict."""
    rows = []
    for r in found:
        results = r["results"]
        body = next(x for x in results["freeze"] if x["frozen"] == results["layers"][:-1])
        nil = {(x["body"], x["inner_loop"]): x for x in results["nil"]}
        trained, random = nil["trained", False], nil["random", False]
        change = "change", "change_ci95"
        cells = [percent(body, *change), percent(trained), percent(trained, *change), percent(random)]
        verdict = judge(results).kind  # pyright: ignore[reportOptionalMemberAccess]
        length = f"{results['trained_meta_steps']:,}".replace(",", " ")
        steps = f"{results['inner_steps']} x {results['inner_learning_rate']:g}"
        rows.append([r["subject"], length, steps, *cells, verdict])
    head = [
        "",
        "meta-steps",
        "test steps",
        "body frozen, change",
        "NIL",
        "NIL, change",
        "NIL, untrained body",
    ]
    return table([*head, "verdict"], rows)


def similarity(found: list[dict[str, Any]]) -> str:
    """Mean CCA and linear CKA by layer."""
    rows = []
    for r in found:
        for what, name in (("cca", "CCA"), ("cka", "CKA")):
            rows.append([r["subject"], name, *(plain(x[what]) for x in r["results"]["similarity"])])
    layers = found[0]["results"]["layers"]
    paper = [["paper, mini-ImageNet", "CCA", *["above 0.9"] * (len(layers) - 1), "below 0.5"]]
    return table(["", "", *layers], paper + rows)


def across(found: list[dict[str, Any]]) -> str:
    """Mean similarity over the body for each pair of models."""
    rows = [[f"paper, {pair}", *values] for pair, values in ACROSS.items()]
    for r in found:
        body = [x for x in r["results"] if not x["head"]]
        mean = lambda what, body=body: f"{sum(x[what]['mean'] for x in body) / len(body):.2f}"
        rows.append([" and ".join(r["models"]), mean("cca"), mean("cka")])
    return table(["", "CCA", "CKA"], rows)


def speeds(found: list[dict[str, Any]]) -> str:
    """Speed-up of ANIL and FOMAML over MAML."""
    rows = [["paper, mean over settings", "", *SPEEDS, "1.7"]]
    told = lambda x: f"{x[0]:.2f} ({x[1]:.2f}–{x[2]:.2f})"
    for r in found:
        training, inference = r["training_seconds_per_meta_step"], r["inference_seconds_per_task"]
        steps = f"{r['settings']['inner_steps']}, {r['settings']['test_steps']}"
        row = [told(ratio(training)), told(ratio(inference)), told(ratio(training, "fomaml"))]
        rows.append([r["setting"], steps, *row])
    heads = ["", "inner steps, training and test", "ANIL, training", "ANIL, inference", "FOMAML, training"]
    return table(heads, rows)


def snapshots(found: list[dict[str, Any]]) -> str:
    """Freezing and body similarity over the course of training."""
    rows = []
    for r in found:
        for x in r["results"].get("early", []):
            body = [s["cka"]["mean"] for s in x["similarity"] if not s["head"]]
            none, frozen = x["freeze"]
            lowest = f"{min(body):.3f}" if None not in body else ""
            rows.append([r["subject"], str(x["meta_step"]), percent(none), percent(frozen), lowest])
    return table(["", "meta-steps", "nothing frozen", "body frozen", "lowest CKA of the body"], rows)


def tables(folder: Path) -> dict[str, str]:
    """Every table by its marker; a table without results says so."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    of = lambda kind: [r for r in results if r["kind"] == kind]
    models, pairs, times = of("model"), of("across"), of("speed")
    along = [r for r in models if "early" in r["results"]]
    none = "Not measured yet.\n"
    return {
        "freezing": freezing(models) if models else none,
        "drops": drops(models) if models else none,
        "similarity": similarity(models) if models else none,
        "across": across(pairs) if pairs else none,
        "speed": speeds(times) if times else none,
        "snapshots": snapshots(along) if along else none,
    }


def write_page(folder: Path) -> None:
    """Write the tables and figures of docs/guides/analysis.md."""
    text = PAGE.read_text()
    for name, content in tables(folder).items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n\n{content}\n{end}{rest.split(end)[1]}"
    write_text(PAGE, text)
    draw_snapshots(folder)


def draw_snapshots(folder: Path) -> None:
    """Draw a figure for every run whose snapshots were analysed, as `docs/figures/early-SUBJECT.png`."""
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        if "early" in result.get("results", {}):
            place = PAGE.parents[1] / "figures" / f"early-{result['subject']}.png"
            place.parent.mkdir(exist_ok=True)
            figure = draw_figure(*FIGURES["early"], result["results"])
            figure.savefig(place, dpi=110, metadata={"Software": None})
