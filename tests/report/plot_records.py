"""The record of an analysis with every experiment, made by hand."""

from typing import Any

import numpy as np

LAYERS = ["conv1", "conv2", "head"]


def _value(mean: float) -> dict[str, float]:
    return {"mean": mean, "ci95": mean / 10}


def _curve(*mean: float) -> dict[str, list[float]]:
    return {"mean": list(mean), "ci95": [x / 10 for x in mean]}


def _similar(at: float) -> list[dict[str, Any]]:
    cells = lambda i: {name: _value(at - i / 10) for name in ("cca", "svcca", "pwcca", "cka", "cka_debiased")}
    rest = {"cka_rbf": _value(0.5), "chance": {"cca": _value(0.3), "cka": _value(0.1)}, "points": 75}
    return [
        {"layer": name, "head": name == "head", "neurons": 5, **cells(i), **rest}
        for i, name in enumerate(LAYERS)
    ]


def _frozen(at: float) -> list[dict[str, Any]]:
    sets = [[], LAYERS[:1], LAYERS[:2], LAYERS]
    line = lambda i: {"accuracy": at - i / 10, "ci95": 0.02, "change": -i / 10, "change_ci95": 0.01}
    return [{"frozen": names, **line(i)} for i, names in enumerate(sets)]


def _nil(at: float) -> list[dict[str, Any]]:
    line = lambda body, loop, x: {"body": body, "inner_loop": loop, "accuracy": x, "ci95": 0.01}
    change = {"change": -0.1, "change_ci95": 0.01}
    return [
        line("trained", True, at),
        line("trained", False, at - 0.1) | change,
        line("random", False, 0.3) | change,
    ]


def record(at: float = 0.9) -> dict[str, Any]:
    """An analysis of a 5-way classification whose accuracy is `at`."""
    path = [[0.0, 0.0], [0.1, 0.2]]
    part = {"outer": [[1.0, 1.0], [0.0, 0.0]], "wide": [path, path], "close": [path, path]}
    part |= {"lengths": {"outer": 1.0, "inner": 0.2}, "shown": {"close": 0.5}, "relative": True}
    settings = {"source": "x", "algorithm": "maml", "metric": "accuracy", "layers": LAYERS, "ways": 5}
    settings |= {"shots": 1, "inner_steps": 1, "inner_learning_rate": 0.1, "normalization": "transductive"}
    settings |= {"trained_meta_steps": 10, "tasks": 20, "tasks_looked_at_closely": 20, "seed": 0}
    layer = {"gradient": _curve(1.0, 0.5), "moved": _curve(0.0, 0.1)}
    losses = {"support_loss": _curve(1.0, 0.5), "loss": _curve(1.1, 0.8)}
    steps = {"steps": [0, 1], "accuracy": _curve(0.2, at), **losses, "layers": dict.fromkeys(LAYERS, layer)}
    line = {"along": [0.0, 1.0], "support_loss": _curve(1.0, 0.5), "query_loss": _curve(1.1, 0.8)}
    plane = {"grid": [0.0, 1.0], "losses": np.ones((2, 2, 2)).tolist(), "paths": [path, path]}
    moved = {"relative": 0.1, "relative_ci95": 0.01, "angle": 5.0, "angle_ci95": 0.5}
    return settings | {
        "freeze": _frozen(at),
        "similarity": _similar(at),
        "against": _similar(at),
        "nil": _nil(at),
        "weights": [{"layer": name, "head": name == "head", **moved} for name in LAYERS],
        "steps": steps,
        "landscape": {"line": line, "plane": plane},
        "paths": {"steps": [0, 1], "body": part, "head": part},
        "early": [{"meta_step": s, "freeze": _frozen(at), "similarity": _similar(at)} for s in (0, 5)],
    }
