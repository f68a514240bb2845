"""`innerloop adapt`: adapt a trained initialisation to the user's examples, and predict new ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from innerloop.cli.common import DataFolder, Source, Steps, console, parse, print_json, start_jax
from innerloop.cli.tables import new_table
from innerloop.cli.user_examples import InkOption, NormalizationOption, UserData
from innerloop.io.files import check_output_path, new_output, resolved
from innerloop.io.text import counted, csv_text
from innerloop.io.untrusted import JsonObject


@dataclass(frozen=True)
class Adapt:
    """Adapt a trained initialisation to a few examples of your own and predict new ones.

    Pictures: DATA/support/CLASS/*.png are the labelled examples, DATA/query/*.png the new ones.
    Sinusoids: DATA is a CSV file with the header x,y; rows with an empty y are predicted.
    Tables: DATA is a CSV or Parquet file with the rows of a new group; those without y are predicted.

    Example: innerloop adapt runs/omniglot-5way-1shot-maml my-letters
    """

    source: Source
    data: Annotated[Path, tyro.conf.Positional, arg(metavar="DATA")]
    """Your examples."""
    query: Annotated[
        tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="(default: DATA/query)")
    ] = ()
    """New pictures to predict."""
    steps: Steps = None
    normalization: NormalizationOption = None
    """Batch that provides a new picture's normalisation statistics: the picture with the support set (inductive), the
    support set alone (support), or all new pictures together (transductive)."""
    ink: InkOption = None
    """Whether drawings are dark on light or light on dark."""
    data_folder: DataFolder = ""
    """Where the training images are (data set `folder`), or the training table."""
    json: bool = False
    """Print one JSON object and nothing else."""
    csv: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the predictions to this file."""
    overwrite: bool = False
    """Replace the --csv file if it exists."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop adapt` and return the exit code."""
    arguments = parse(Adapt, argv)
    start_jax()
    from innerloop.cli.adapt_model import adapt_and_predict
    from innerloop.cli.user_fit import start_from
    from innerloop.training.storage.sources import inputs_of

    if arguments.csv is not None:
        data = arguments.data
        read = [data / "support", data / "query"] if data.is_dir() else [data]
        inputs = (*inputs_of(arguments.source, arguments.data_folder), *read, *arguments.query)
        check_output_path(arguments.csv, overwrite=arguments.overwrite, inputs=inputs)
    own = UserData(arguments.data, arguments.query, arguments.ink)
    start = start_from(arguments.source, arguments.data_folder, arguments.steps, arguments.normalization)
    result = adapt_and_predict(start, own)
    rows = [{k: v for k, v in p.items() if k != "probabilities"} for p in result["predictions"]]
    if arguments.csv is not None:
        with new_output(resolved(arguments.csv), overwrite=arguments.overwrite) as draft:
            draft.write_text(csv_text(list(rows[0]), rows), encoding="utf-8", newline="")
    if arguments.json:
        print_json(result)
    else:
        _show(result, rows)
    return 0


def _show(result: JsonObject, rows: Sequence[JsonObject]) -> None:
    """Print the predictions as a table, and how they were made."""
    out, as_text = console(), lambda cell: f"{cell:.4f}" if isinstance(cell, float) else str(cell)
    left = len({"file", "label"} & set(rows[0]))
    out.print(new_table(*rows[0], left=left, rows=(map(as_text, row.values()) for row in rows)))
    examples = counted(result["examples"], "example")
    how = f"{result['preset']} with {counted(result['steps'], 'inner step')} on {examples}"
    if "classes" in result:
        how += f" of {len(result['classes'])} classes; normalisation {result['normalization']}"
    out.print(f"Adapted from {how}.")
    if result.get("ink"):
        other = {"dark": "light", "light": "dark"}[result["ink"]]
        out.print(f"Assumed that the drawings are {result['ink']} on {other}; otherwise give --ink {other}.")
