"""`innerloop list`: the presets."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Annotated

import tyro
from tyro.conf import arg

from innerloop.cli.common import console, parse, print_json
from innerloop.cli.tables import new_table
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.text import counted, grouped
from innerloop.io.untrusted import JsonObject
from innerloop.training.storage import shipped


@dataclasses.dataclass(frozen=True)
class List:
    """List the presets: every paper protocol, with its data, algorithm and inner loop.

    Example: innerloop list omniglot
    """

    words: Annotated[
        tuple[str, ...], tyro.conf.Positional, arg(metavar="[WORD ...]", help_behavior_hint="")
    ] = ()
    """Only presets whose names contain all these words."""
    json: bool = False
    """Print JSON."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop list` and return the exit code."""
    arguments = parse(List, argv)
    with_weights = shipped.names()
    rows = [_row(config, config.name in with_weights) for config in _chosen(arguments.words)]
    if arguments.json:
        print_json(rows, indent=2)
    else:
        _show(rows)
    return 0


def _chosen(words: Sequence[str]) -> list[Config]:
    """The presets whose names contain all words. Raises InnerloopError if there are none, with the nearest words."""
    if found := _with_all(words):
        return found
    parts = sorted({part for name in all_presets() for part in (name, *name.split("-"))})
    nearest = lambda word: next(iter(difflib.get_close_matches(word.lower(), parts, n=1)), word)
    near = [word if _with_all([word]) else nearest(word) for word in words]
    hint = f"did you mean {' '.join(near)}?" if _with_all(near) else "`innerloop list` lists them all"
    raise InnerloopError("list", "no preset's name contains these words", got=" ".join(words), hint=hint)


def _with_all(words: Sequence[str]) -> list[Config]:
    """The presets whose names contain all words."""
    return [c for name, c in all_presets().items() if all(word.lower() in name for word in words)]


def _row(config: Config, has_weights: bool) -> JsonObject:
    """One preset as a plain record; `has_weights`: whether trained weights ship with the package."""
    data, inner = config.data, config.inner
    size = f"{'learned from ' if config.spec.learns_rates else ''}{inner.learning_rate:g}"
    rule = f"{config.evaluation.steps} x {inner.optimizer} {size}"
    return {
        "name": config.name,
        "data": data.dataset,
        "algorithm": config.algorithm,
        "ways": data.ways if data.spec.kind == "images" else None,
        "shots": config.rl.trajectories if config.reinforcement else data.shots,
        "inner_steps_training": inner.steps,
        "inner_steps_test": config.evaluation.steps,
        "inner": f"{counted(inner.steps, 'step')}, test {rule}",
        "meta_steps": config.outer.meta_steps,
        "weights": has_weights,
    }


def _show(rows: list[JsonObject]) -> None:
    """Print the presets as a table."""
    columns = {
        "preset": [r["name"] for r in rows],
        "data": [r["data"] for r in rows],
        "algorithm": [r["algorithm"] for r in rows],
        "inner loop": [r["inner"] for r in rows],
        "weights": ["yes" if r["weights"] else "" for r in rows],
        "ways": [str(r["ways"] or "") for r in rows],
        "shots": [str(r["shots"]) for r in rows],
        "meta-steps": [grouped(r["meta_steps"]) for r in rows],
    }
    optional = ("data", "algorithm", "ways", "shots", "meta-steps")  # mostly part of the name
    out = console()
    out.print(new_table(*columns, left=5, rows=zip(*columns.values(), strict=True), optional=optional))
    out.print(f"{counted(len(rows), 'preset')}. Train one: innerloop train {rows[0]['name']}")
