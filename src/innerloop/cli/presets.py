"""`innerloop list`: the presets."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from innerloop.cli.common import console, new_table, parse, print_json
from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.text import counted, grouped
from innerloop.io.untrusted import JsonObject


@dataclasses.dataclass(frozen=True)
class List:
    """List the presets: every paper protocol, with its data, algorithm and inner loop.

    Example: innerloop list omniglot
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Only presets whose names contain all these words."""
    json: bool = False
    """Print JSON."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop list` and return the exit code."""
    arguments = parse(List, argv)
    rows = [_row(config) for config in _chosen(arguments.words)]
    if arguments.json:
        print_json(rows, indent=2)
    else:
        _show(rows)
    return 0


def _chosen(words: Sequence[str]) -> list[Config]:
    """The presets whose names contain all words. Raises InnerloopError if there are none."""
    found = [c for name, c in all_presets().items() if all(word.lower() in name for word in words)]
    if not found:
        hint = "`innerloop list` lists them all"
        raise InnerloopError("list", "no preset's name contains these words", got=" ".join(words), hint=hint)
    return found


def _row(config: Config) -> JsonObject:
    """One preset as a plain record."""
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
        "inner": f"{inner.steps} steps, test {rule}" if inner.steps != 1 else f"1 step, test {rule}",
        "meta_steps": config.outer.meta_steps,
        "weights": config.name in shipped(),
    }


def shipped() -> list[str]:
    """Presets with bundled weights, listed from the folder, since `innerloop.training.storage.weights` loads JAX."""
    from importlib import resources

    folder = resources.files("innerloop.training.storage") / "bundled"
    if not folder.is_dir():
        return []
    return [f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors")]


def _show(rows: list[JsonObject]) -> None:
    """Print the presets as a table."""
    table = new_table()
    for heading in ("preset", "data", "algorithm"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ways", "shots"):
        table.add_column(heading, justify="right")
    table.add_column("inner loop")
    table.add_column("meta-steps", justify="right")
    table.add_column("weights")
    for r in rows:
        cells = (r["name"], r["data"], r["algorithm"], r["ways"] or "", r["shots"], r["inner"])
        cells = (*cells, grouped(r["meta_steps"]), "yes" if r["weights"] else "")
        table.add_row(*map(str, cells))
    out = console()
    out.print(table)
    out.print(f"{counted(len(rows), 'preset')}. Train one: innerloop train {rows[0]['name']}")
