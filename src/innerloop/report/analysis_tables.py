"""The tables of an analysis: one CSV file per experiment, and everything as JSON."""

from collections.abc import Callable, Mapping
from typing import Any

from innerloop.config.serialization import flattened
from innerloop.io.folders import OutputFolder
from innerloop.io.text import as_json, csv_text
from innerloop.io.untrusted import JsonObject

Rows = list[JsonObject]


def _flat(record: JsonObject) -> JsonObject:
    """A nested record flattened to dotted names; lists are joined by plus signs."""
    return {
        name: "+".join(map(str, value)) if isinstance(value, list) else value
        for name, value in flattened(record).items()
    }


def _step_rows(result: JsonObject) -> Rows:
    """One row per inner step."""
    curves = {name: value for name, value in result.items() if name not in ("steps", "layers")}
    curves |= {f"{layer}.{what}": v for layer, found in result["layers"].items() for what, v in found.items()}
    value = lambda i: {f"{n}.{k}": v[k][i] for n, v in curves.items() for k in ("mean", "ci95")}
    return [{"step": step, **value(i)} for i, step in enumerate(result["steps"])]


def _line_rows(result: JsonObject) -> Rows:
    """One row per position along the first step; the plane is in the JSON file only."""
    line = result["line"]
    losses = ("support_loss", "query_loss")
    value = lambda i: {f"{n}.{k}": line[n][k][i] for n in losses for k in ("mean", "ci95")}
    return [{"along": a, **value(i)} for i, a in enumerate(line["along"])]


def _path_rows(result: JsonObject) -> Rows:
    """One row per point of a path."""
    return [
        {"part": part, "view": view, "task": task, "step": result["steps"][i], "x": x, "y": y}
        for part in ("body", "head")
        for view in ("wide", "close")
        for task, path in enumerate(result[part][view])
        for i, (x, y) in enumerate(path)
    ]


def _early_rows(result: Rows) -> Rows:
    """One row per snapshot and layer, with the scores of the snapshot."""
    rows = []
    for snapshot in result:
        none, body = (_flat(x) for x in snapshot["freeze"])
        scores = {f"none.{k}": v for k, v in none.items()} | {f"body.{k}": v for k, v in body.items()}
        rows += [{"meta_step": snapshot["meta_step"], **scores, **_flat(x)} for x in snapshot["similarity"]]
    return rows


ROWS: dict[str, Callable[[Any], Rows]] = {
    "steps": _step_rows,
    "landscape": _line_rows,
    "paths": _path_rows,
    "early": _early_rows,
}
"""The rows of experiments whose results are not simply lists of records."""


def rows_of(name: str, result: Any) -> Rows:
    """The rows of the table of an experiment."""
    return ROWS[name](result) if name in ROWS else [_flat(record) for record in result]


def _as_csv(rows: Rows) -> str:
    return csv_text(list(dict.fromkeys(name for row in rows for name in row)), rows)


def write(record: JsonObject, tables: Mapping[str, Rows], folder: OutputFolder) -> None:
    """Write `results.json` with the whole record, and each table as `NAME.csv`.

    Raises InnerloopError if a file cannot be written.
    """
    folder.write("results.json", as_json(record, indent=1) + "\n")
    for name, rows in tables.items():
        folder.write(f"{name}.csv", _as_csv(rows))
