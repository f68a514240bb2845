"""The figures of an analysis, in the report's style and colours."""

from collections.abc import Callable

from matplotlib.figure import Figure

from innerloop.io.untrusted import JsonObject
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


def of_name(name: str, results: JsonObject) -> Figure:
    """One figure of `FIGURES`."""
    return draw_figure(*FIGURES[name], results)


def all_of(results: JsonObject) -> dict[str, Figure]:
    """All figures that the results allow, by file name."""
    return {name: of_name(name, results) for name in FIGURES if name.split("-")[0] in results}
