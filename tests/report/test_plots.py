"""Figures drawn on the caller's axes: what they show is what was measured, and nothing else is touched."""

import base64
import re
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from plot_records import LAYERS, record

from innerloop.errors import InnerloopError
from innerloop.io.folders import OutputFolder
from innerloop.report import analysis_comparison, analysis_page, analysis_text, figure_files, plots
from innerloop.report.plots.style import STYLE, Grid, draw_figure
from innerloop.training.measurement import Band, ScoreMeasurement


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def heights(ax: Any) -> list[list[float]]:
    """The values of every series with intervals."""
    series = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    return [np.asarray(c.lines[0].get_ydata(), float).tolist() for c in series]


def names(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


def test_freezing_shows_the_scores_in_percent():
    ax = plt.figure().subplots()
    assert plots.freezing(record(), ax) is ax
    np.testing.assert_allclose(heights(ax), [[90, 80, 70, 60]])
    assert names(ax) == ["none", "conv1", "body", "all"]


def test_similarity_shows_three_measures_of_every_layer():
    ax = plots.similarity(record())
    np.testing.assert_allclose(heights(ax), 3 * [[0.9, 0.8, 0.7]])
    assert names(ax) == LAYERS


def test_zero_initialised_head_has_no_relative_movement():
    """Its relative movement is undefined, and its paths are on a scale of their own."""
    found = record()
    zero = found["weights"][-1]
    zero |= dict.fromkeys(("relative", "relative_ci95", "angle", "angle_ci95"))
    found["steps"]["layers"]["head"] = {
        "gradient": {"mean": [1.0, 0.5], "ci95": [0.1, 0.1]},
        "moved": {"mean": [0.0, None], "ci95": [0.0, None]},
    }
    found["paths"]["head"] = found["paths"]["head"] | {"relative": False}
    for axes in (plots.movement(found), plots.movement_of_runs({"a": found})):
        bars = next(c for c in axes[0, 0].containers if isinstance(c, BarContainer))
        assert [np.isnan(bar.get_height()) for bar in bars] == [False, False, True]
    np.testing.assert_array_equal(plots.inner_steps(found)[1, 1].lines[-1].get_ydata(), [0, np.nan])
    assert plots.paths(found)[0, 1].get_title() == "head: outer and inner loops, absolute lengths"
    words = analysis_text.sentence("weights", found)
    assert words.endswith("of its norm and 5.0°. head starts at zero: its relative movement is undefined.")
    assert "head (absolute, since θ's is zero): outer loop 1.00" in analysis_text.sentence("paths", found)
    assert analysis_comparison.table_of_runs("weights", {"a": found}).rows[-1] == ["head", "undefined"]


def test_inner_steps_of_accuracy_alone():
    """The score of a model of one's own need not return the loss."""
    found = record()
    del found["steps"]["loss"]
    legend = plots.inner_steps(found)[0, 1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["support"]


def test_undefined_similarities_are_left_out_of_the_mean():
    """As of a dead layer in one of two models."""
    found: dict[str, Any] = record() | {"against_source": "y"}
    found["against"][0] |= {"cka": {"mean": None, "ci95": None}}
    assert analysis_text.sentence("against", found) == "Against y, mean over the body: CCA 0.85, CKA 0.80."
    for layer in found["against"]:
        layer |= dict.fromkeys(("cca", "cka"), {"mean": None, "ci95": None})
    assert analysis_text.sentence("against", found) == ""


def test_training_shows_the_return_after_the_last_update():
    lines = [{"step": step, **{f"return_after_{i}": float(i) for i in range(11)}} for step in (1, 2)]
    ax = plots.training({"a": lines})[0, 0]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), 10)
    assert ax.get_ylabel() == "training return, adapted"


ONE = ("freezing", "similarity", "similarity_of_models", "nil", "loss_along_step")
SEVERAL = {
    "movement": (1, 2),
    "inner_steps": (2, 2),
    "loss_plane": (1, 2),
    "paths": (2, 2),
    "along_training": (1, 2),
}


@pytest.mark.parametrize("name", ONE)
def test_single_panel_plots_use_given_or_new_axes(name: str):
    draw = getattr(plots, name)
    figure, (mine, other) = plt.subplots(1, 2)
    before = matplotlib.rcParams.copy()
    assert draw(record(), mine) is mine
    assert draw(record(), ax=mine) is mine
    assert plt.get_fignums() == [figure.number]
    assert draw(record()).figure is plt.gcf() is not figure  # as notebooks show it
    assert mine.has_data()
    assert not other.has_data()
    assert matplotlib.rcParams == before


@pytest.mark.parametrize(("name", "shape"), SEVERAL.items())
def test_multi_panel_plots_use_given_or_new_axes(name: str, shape: tuple[int, int]):
    draw = getattr(plots, name)
    mine = plt.subplots(*shape)[1]
    back = draw(record(), mine)
    assert back.shape == shape
    assert back.ravel().tolist() == mine.ravel().tolist()
    assert draw(record()).shape == shape
    with pytest.raises(
        InnerloopError, match=rf"axes: must be one for each panel.*plt.subplots\({shape[0]}, "
    ):
        draw(record(), mine.ravel()[:1])


NEEDS = {
    **{
        "freezing": "freeze",
        "similarity_of_models": "against",
        "movement": "weights",
        "inner_steps": "steps",
    },
    **{"loss_along_step": "landscape", "loss_plane": "landscape", "along_training": "early"},
}
OF_RUNS = ("freezing_of_runs", "similarity_of_runs", "nil_of_runs", "movement_of_runs")


@pytest.mark.parametrize("name", [*ONE, *SEVERAL, *OF_RUNS])
def test_missing_experiment_is_rejected(name: str):
    """Nor is an empty figure left behind."""
    whole, single = record(), name.removesuffix("_of_runs")
    experiment = NEEDS.get(single, single)
    lacking = {key: value for key, value in whole.items() if key != experiment}
    given = lacking if name == single else {"a": whole, "b": lacking}
    told = rf'results: must hold `{experiment}`, got .*; run `analyze\(request, \["{experiment}"\]\)`'
    with pytest.raises(InnerloopError, match=told):
        getattr(plots, name)(given)
    assert plt.get_fignums() == []


def test_invalid_plot_inputs_are_rejected():
    for name in (*OF_RUNS, "adaptation", "training"):
        with pytest.raises(InnerloopError, match="must hold .*, got none; give"):
            getattr(plots, name)({})
    regression = record() | {"metric": "loss"}
    with pytest.raises(InnerloopError, match="there is no NIL for regression"):
        plots.nil({key: value for key, value in regression.items() if key != "nil"})
    with pytest.raises(InnerloopError, match="must have the same score, got accuracy and loss"):
        plots.freezing_of_runs({"a": record(), "b": regression})
    with pytest.raises(InnerloopError, match="results: must hold `ways`, got freeze.*; add it next"):
        plots.freezing({name: record()[name] for name in ("freeze", "metric", "layers")})
    x = np.arange(3.0)
    for answers in ({}, dict.fromkeys(range(4), x)):
        with pytest.raises(InnerloopError, match="answers: must be 1 to 3, got"):
            plots.wave(x, x, (x, x), answers)
        with pytest.raises(InnerloopError, match="answers: must be 1 to 3, got"):
            plots.predictions(x, answers, "", "y")
    assert plt.get_fignums() == []


def dollars(found: Any) -> Any:
    """The record with a layer whose name would be a formula."""
    if isinstance(found, dict):
        return {dollars(name): dollars(value) for name, value in found.items()}
    if isinstance(found, list):
        return list(map(dollars, found))
    return r"$\conv_1$" if found == "conv1" else found


@pytest.mark.parametrize("name", [*ONE, *SEVERAL])
def test_layer_names_are_not_parsed_as_math(name: str):
    drawn = getattr(plots, name)(dollars(record()))
    np.ravel(drawn)[0].figure.draw_without_rendering()


@pytest.mark.parametrize("name", OF_RUNS)
def test_run_comparison_labels_are_not_parsed_as_math(name: str):
    drawn = getattr(plots, name)({"$a$": dollars(record()), "b": record()})
    np.ravel(drawn)[0].figure.draw_without_rendering()


def test_table_column_names_are_not_parsed_as_math():
    ax: Any = plots.predictions(np.arange(3.0), {0: np.ones(3)}, r"shop $\x$", r"price in $\y$")
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel() == r"price in \$\y\$, true"


def test_draw_figure_creates_no_pyplot_figures():
    for figure in analysis_page.FIGURES.values():
        draw_figure(*figure, record())
    assert plt.get_fignums() == []


def test_run_comparison_plots_keep_run_order():
    found = {"MAML": record(0.9), "ANIL": record(0.8), "BOIL": record(0.7)}
    ax = plots.freezing_of_runs(found)
    np.testing.assert_allclose([line[0] for line in heights(ax)], [90, 80, 70])
    assert names(ax) == ["none", "conv1", "body", "all"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(found)
    left, _ = plots.similarity_of_runs(found)[0]
    np.testing.assert_allclose([line[0] for line in heights(left)], [0.9, 0.8, 0.7])
    bars = [c for c in plots.nil_of_runs(found).containers if isinstance(c, BarContainer)]
    np.testing.assert_allclose([bar.patches[0].get_height() for bar in bars], [90, 80, 70])
    places = np.array([[p.get_x() + p.get_width() / 2 for p in bar.patches] for bar in bars])
    assert (np.diff(places, axis=0) > 0).all()  # no bar hides another
    assert (np.abs(places - np.arange(3)) < 0.4).all()


def measured(ways: int) -> ScoreMeasurement:
    """An accuracy that a single inner step brings."""
    made: dict[str, Any] = {
        "source": "x",
        "preset": "x",
        "algorithm": "maml",
        "trained_meta_steps": 1,
        "seconds": 0.0,
    }
    made |= {"classes": "test", "seed": 0, "tasks": 2, "diverged_tasks": 0}
    inner: dict[str, Any] = {
        "steps": [0, 1],
        "inner_steps": 1,
        "inner_learning_rate": 0.1,
        "normalization": "inductive",
    }
    curves = {"accuracy": Band([0.2, 0.9], [0.01, 0.01])}
    episode: dict[str, Any] = {"ways": ways, "shots": 1, "queries": 1}
    return ScoreMeasurement(score="accuracy", curves=curves, **made, **inner, **episode)


def chances(ax: Any) -> dict[str, float]:
    """The heights of the lines of guessing by their names."""
    return {text.get_text(): text.xy[1] for text in ax.texts if text.get_text().startswith("chance")}


def test_chance_line_is_drawn_per_number_of_ways():
    found = {"a": record(), "b": record() | {"ways": 20}, "c": record()}
    assert chances(plots.freezing_of_runs(found)) == {"chance, 5 ways": 20, "chance, 20 ways": 5}
    assert chances(plots.freezing(record())) == {"chance": 20}
    assert chances(plots.adaptation({"a": measured(5), "b": measured(20)})) == {
        "chance, 5 ways": 20,
        "chance, 20 ways": 5,
    }


def test_layers_are_merged_across_networks_with_head_last():
    renamed = [x | {"layer": x["layer"].replace("conv", "hidden")} for x in record()["similarity"]]
    other = record() | {"similarity": renamed}
    assert names(plots.similarity_of_runs({"a": record(), "b": other})[0, 0]) == [
        *LAYERS[:2],
        "hidden1",
        "hidden2",
        "head",
    ]


def test_comparison_page_shows_several_runs(tmp_path):
    found = {"MAML": record(0.9), "<b>": record(0.8)}
    analysis_comparison.write(found, OutputFolder(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>Rapid", "").replace("<b>Feature", "")
    rows = [re.sub("<[^>]*>", "|", row) for row in re.findall(r"<tr class=\"\">.*?</tr>", page)]
    assert any("none" in row and "90.00" in row and "80.00" in row for row in rows)
    assert (tmp_path / "freeze.csv").read_text().splitlines()[0].startswith("run,frozen,accuracy")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(analysis_comparison.FIGURES)


def test_svg_figures_adapt_to_dark_mode():
    """Black, and text without a colour of its own, change with the reader's pages; the ground is the page's."""
    figure = draw_figure(Grid(), lambda ax: ax.plot([0, 1], color="#000000"))
    found = re.search(r"base64,([^\"]*)", figure_files.svg(figure, "x"))
    assert found is not None
    text = base64.b64decode(found[1]).decode()
    assert "@media (prefers-color-scheme: dark) { svg { fill: #e6e6e6 }" in text
    assert '[style*="stroke: #000000"] { stroke: #e6e6e6 !important }' in text
    assert "fill: #ffffff" not in text
    dark = {colour for colour in figure_files.LIGHT_ON_DARK if colour in text.split("</style>")[1]}
    assert "#000000" in dark
    assert STYLE["grid.color"] in dark


def test_training_plots_metrics_records():
    lines = [{"step": s, "outer_loss": 1 / s, "validation_accuracy": s / 10} for s in (1, 2)]
    loss, accuracy = plots.training({"mine": lines})[:, 0]
    assert np.asarray(loss.lines[0].get_ydata()).tolist() == [1, 0.5]
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [10, 20])
    assert accuracy.get_ylabel() == "validation accuracy, %"
    ax = plt.figure().subplots()
    assert plots.training({"mine": [{"step": 1, "outer_loss": 2.0}]}, ax).tolist() == [[ax]]
