"""The formats of exported networks, and the writing of their files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import jax

from innerloop.config.schema import ExportFormat
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.files import new_output, output
from innerloop.learner.exporting.network import Network, Step, network_of
from innerloop.learner.exporting.onnx import onnx
from innerloop.learner.exporting.stablehlo import stablehlo
from innerloop.nn.kernels.backend import portable

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner

WRITERS: dict[ExportFormat, Callable[[Network], bytes]] = {"onnx": onnx, "stablehlo": stablehlo}


def export(
    learner: "Learner",
    path: Path,
    format: ExportFormat | None = None,
    *,
    overwrite: bool = False,
    before: Step | None = None,
    after: Step | None = None,
    shape: tuple[int, ...] | None = None,
) -> Network:
    """Write an adapted learner for deployment.

    Args:
        learner: the learner, after `fit`.
        path: the file.
        format: its format (None: as its name ends).
        overwrite: whether to replace an existing file.
        before: as in `network_of`.
        after: as in `network_of`.
        shape: as in `network_of`.

    Returns:
        The network that the file holds.

    Raises:
        InnerloopError: for an unknown format, a package that is not installed, a model that the format cannot express,
            an existing file without `overwrite`, and a path that cannot be written.
    """
    write = WRITERS[format_of(path, format)]
    target = output(path, overwrite=overwrite)
    network = network_of(learner, before, after, shape)
    # The file may run on another machine, so that products are exact wherever it does.
    with portable(), jax.default_matmul_precision("highest"):
        content = write(network)
    with new_output(target, overwrite=overwrite) as draft:
        draft.write_bytes(content)
    return network


def format_of(path: Path, given: ExportFormat | None) -> ExportFormat:
    """The format that is given, or that a file's name ends with. Raises InnerloopError if there is neither."""
    if given is not None:
        check_choice("export", "format", given, get_args(ExportFormat))
        return given
    found = [known for known in get_args(ExportFormat) if path.suffix == f".{known}"]
    if not found:
        do = "give format `onnx` or `stablehlo`, or a file that ends with .onnx or .stablehlo"
        raise InnerloopError("export", "cannot tell the format by the file's name", got=path.name, do=do)
    return found[0]
