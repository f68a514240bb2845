"""What the documentation says of results: tables are those of the files, published rows are there, prose is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.accuracy import analysis_page, measure, tables
from benchmarks.accuracy.published import ACCURACY, published_accuracy

from innerloop.training.storage import shipped

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ANALYSIS = [json.loads(p.read_text()) for p in sorted((RESULTS / "analysis").glob("*.json"))]
MODELS = {r["subject"]: r["results"] for r in ANALYSIS if r["kind"] == "model"}
NOTHING_PUBLISHED = {"omniglot-5way-1shot-anil", "omniglot-5way-1shot-boil", "cifar-fs-5way-1shot-anil"}
"""Shipped image models whose algorithm nobody published on these tasks."""


def between(page: Path, name: str) -> str:
    return page.read_text().split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0].strip()


def test_results_page_matches_result_files():
    page = (ROOT / "docs" / "reference" / "results.md").read_text()
    assert page == tables.results_page(tables.load(RESULTS))


@pytest.mark.parametrize(("page", "name", "text"), tables.marked_tables(RESULTS), ids=lambda x: str(x)[:12])
def test_tables_of_other_pages_match_result_files(page: Path, name: str, text: str):
    assert between(page, name) == text.strip()


@pytest.mark.parametrize(("name", "text"), analysis_page.tables(RESULTS / "analysis").items(), ids=str)
def test_analysis_tables_match_result_files(name: str, text: str):
    assert between(analysis_page.PAGE, name) == text.strip()


def test_shipped_classifiers_have_published_accuracy():
    models = {name for name in shipped.names() if "way" in name and not name.endswith("joint")}
    results = tables.load(RESULTS)
    assert models <= set(results)
    beside = {name for name, _ in ACCURACY}
    assert models - beside == NOTHING_PUBLISHED
    for name in models & beside:
        assert any(published_accuracy(name, record)[0] for record in results[name]["measurements"]), name


def test_reptile_published_accuracy_is_without_rotations():
    """As its code tests; MAML's is of rotated ones, as its own does."""
    record = {"normalization": "transductive", "rotations": True}
    assert published_accuracy("omniglot-5way-1shot-maml", record)[0] == "98.7 ± 0.4"
    assert published_accuracy("omniglot-5way-1shot-reptile", record) == ("", "")
    assert (
        published_accuracy("omniglot-5way-1shot-reptile", record | {"rotations": False})[0] == "97.68 ± 0.04"
    )
    assert published_accuracy("omniglot-5way-1shot-reptile", record | {"normalization": "support"}) == (
        "",
        "",
    )


def test_result_files_record_provenance():
    """Length of training, commit of the measurement, machine; the seed for every shipped model."""
    for name, result in tables.load(RESULTS).items():
        assert result["training"]["meta_steps"] >= 0, name
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", result["commit"]), name
        assert result["environment"]["machine"], name
        seeds = [run["seed"] for run in result.get("runs", [])] or [result["training"].get("seed")]
        assert None not in seeds or name not in shipped.names(), name


def test_added_measurements_keep_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "FOLDER", tmp_path)
    record = lambda **fields: {"normalization": "transductive", "rotations": True, "tasks": 10_000, **fields}
    kept = lambda: json.loads((tmp_path / "x.json").read_text())["measurements"]
    measure.take("x", lambda count: [record(), record(normalization="support")], 5)
    measure.take("x", lambda count: [record(rotations=False, tasks=count)], 7, add=True)
    assert [(r["normalization"], r["rotations"], r["tasks"]) for r in kept()] == [
        ("transductive", True, 10_000),
        ("support", True, 10_000),
        ("transductive", False, 7),
    ]
    measure.take("x", lambda count: [record(tasks=count)], 9, add=True)
    assert [r["tasks"] for r in kept()] == [10_000, 7, 9]
    measure.take("x", lambda count: [record(tasks=count)], 3)
    assert [r["tasks"] for r in kept()] == [3]


def test_training_of_returns_name_and_facts():
    name, facts = measure.training_of("sinusoid-maml")
    assert (name, facts["meta_steps"], facts["seed"]) == ("sinusoid-maml", 70_000, 0)
    assert measure.training_of("untrained thing") == ("untrained thing", {"meta_steps": 0, "seed": 0})


# --- prose ----------------------------------------------------------------------------------------------------


def body(results: dict[str, Any], what: str) -> list[float]:
    """A similarity of each body layer."""
    return [x[what]["mean"] for x in results["similarity"] if not x["head"]]


def change(results: dict[str, Any], layers: int) -> tuple[float, float]:
    """Points lost by freezing the first layers, and the interval."""
    line = next(x for x in results["freeze"] if len(x["frozen"]) == layers)
    return 100 * line["change"], 100 * line["change_ci95"]


def nil(results: dict[str, Any]) -> dict[str, Any]:
    return next(x for x in results["nil"] if x["body"] == "trained" and not x["inner_loop"])


def says(page: str, words: str) -> bool:
    return words in " ".join((ROOT / page).read_text().split())


def test_readme_on_feature_reuse_matches_results():
    found = MODELS["omniglot-5way-1shot-maml"]
    points, half = change(found, 4)
    assert says("README.md", f"changes the accuracy by {points:.1f} ± {half:.1f} points".replace("-", "−"))
    assert min(body(found, "cka")) >= 0.96 - 0.0005
    assert found["similarity"][-1]["cka"]["mean"] == pytest.approx(0.35, abs=0.005)
    assert says("README.md", "is 0.96 or more in every body layer and 0.35 in the head")
    *early, fourth = body(found, "cca")
    assert min(early) >= 0.98
    assert fourth == pytest.approx(0.82, abs=0.005)
    assert says("README.md", "CCA is 0.98 or more in layers 1 to 3 and 0.82 in layer 4")


def test_guide_on_layers_1_to_3_matches_results():
    page = "docs/guides/analysis.md"
    assert min(change(found, k)[0] for found in MODELS.values() for k in (1, 2, 3)) > -0.3
    assert says(page, "Freezing them costs less than 0.3 points in every model")
    alike = {name: (body(found, "cca")[:3], body(found, "cka")[:3]) for name, found in MODELS.items()}
    cca, cka = alike.pop("cifar-fs-5way-1shot-joint")
    assert (min(cca), min(cka)) == pytest.approx((0.92, 0.87), abs=0.005)
    boil = alike.pop("omniglot-5way-1shot-boil")[0]
    assert (min(boil), max(boil)) == pytest.approx((0.89, 0.97), abs=0.005)
    assert min(value for pair in alike.values() for values in pair for value in values) >= 0.95
    assert says(page, "in every meta-trained model except BOIL, where CCA is 0.89 to 0.97")


def test_guide_on_layer_4_and_nil_matches_results():
    page = "docs/guides/analysis.md"
    lost = [-change(MODELS[f"omniglot-5way-1shot-{name}"], 4)[0] for name in ("maml-short", "fomaml")]
    assert says(page, f"they lose {lost[0]:.0f} and {lost[1]:.0f} points")
    below = [-100 * nil(MODELS[f"omniglot-5way-1shot-{name}"])["change"] for name in ("maml-short", "fomaml")]
    assert says(page, f"is {below[0]:.1f} points below MAML and {below[1]:.1f} below FOMAML")
    colour = MODELS["cifar-fs-5way-1shot-maml"]
    assert says(page, "changes the accuracy by {:.1f} ± {:.1f} points".format(*change(colour, 4)))
    assert min(body(colour, "cca") + body(colour, "cka")) > 0.98
    assert all(nil(MODELS[f"omniglot-20way-1shot-{name}"])["change"] > 0 for name in ("maml", "anil"))
    boil = MODELS["omniglot-5way-1shot-boil"]
    assert min(nil(found)["change"] for found in MODELS.values()) == nil(boil)["change"]
    assert min(body(boil, "cka")) == body(boil, "cka")[3]
    gap = nil(colour)["accuracy"] - nil(MODELS["cifar-fs-5way-1shot-joint"])["accuracy"]
    assert 100 * gap == pytest.approx(5, abs=0.5)
