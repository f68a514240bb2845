"""`innerloop export`: adapt a trained initialisation to the user's examples, and write the network for deployment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from innerloop.cli.common import DataFolder, Source, Steps, console, parse, print_json, start_jax
from innerloop.cli.user_examples import InkOption, NormalizationOption, UserData
from innerloop.config.schema import ExportFormat
from innerloop.io.files import check_output_path
from innerloop.io.text import counted
from innerloop.io.untrusted import JsonObject


@dataclass(frozen=True)
class Export:
    """Adapt a trained initialisation to a few examples of your own and write the adapted network as one file.

    The file runs without innerloop: ONNX in onnxruntime and others, StableHLO in JAX. It takes pictures as bytes,
    rows of a table in the table's units, and batches of any size.

    Example: innerloop export runs/short --support my-letters/support --out letters.onnx
    """

    source: Source
    support: Annotated[Path, arg(metavar="PATH", help_behavior_hint="(required)")]
    """Your examples: a folder with one subfolder of pictures per class, a table, or a CSV file of points x,y."""
    out: Annotated[Path, arg(metavar="FILE", help_behavior_hint="(required)")]
    """The file to write."""
    format: Annotated[
        ExportFormat | None,
        arg(metavar="{onnx,stablehlo}", help_behavior_hint="(default: from the file name)"),
    ] = None
    """The file's format."""
    steps: Steps = None
    normalization: NormalizationOption = None
    """Batch that provides a new picture's normalisation statistics: the picture with the support set (inductive), the
    support set alone (support), or the batch that the network is called on (transductive)."""
    ink: InkOption = None
    """Whether drawings are dark on light or light on dark."""
    data_folder: DataFolder = ""
    """Where the training images are (data set `folder`), or the training table."""
    json: bool = False
    """Print one JSON object and nothing else."""
    overwrite: bool = False
    """Replace the --out file if it exists."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop export` and return the exit code."""
    arguments = parse(Export, argv)
    start_jax()
    from innerloop.cli.export_network import write
    from innerloop.cli.user_fit import start_from
    from innerloop.learner.exporting.formats import format_of
    from innerloop.training.storage.sources import inputs_of

    format_of(arguments.out, arguments.format)
    inputs = (*inputs_of(arguments.source, arguments.data_folder), arguments.support)
    check_output_path(arguments.out, overwrite=arguments.overwrite, inputs=inputs)
    start = start_from(arguments.source, arguments.data_folder, arguments.steps, arguments.normalization)
    own = UserData(arguments.support, (), arguments.ink, "export")
    record = write(start, own, arguments.out, arguments.format, overwrite=arguments.overwrite)
    if arguments.json:
        print_json(record)
    else:
        _show(record)
    return 0


def _show(record: JsonObject) -> None:
    """Print the file's inputs and outputs."""
    out = console()
    out.print(f"Wrote {record['file']} ({record['format']}).")
    for name in ("input", "output"):
        about = record[name]
        shape = ", ".join(map(str, about["shape"]))
        out.print(f"{name}: {about['name']}, {about['dtype']} [{shape}]{_of(about)}")
    how = f"{record['preset']} with {counted(record['steps'], 'inner step')}"
    out.print(f"Adapted from {how} on {counted(record['examples'], 'example')}.")
    if record["holds_examples"]:
        out.print(f"It contains the examples: normalization `{record['normalization']}` needs them.")


def _of(about: JsonObject) -> str:
    """The names of the columns."""
    return ": " + ", ".join(map(str, about["columns"])) if about.get("columns") else ""
