"""The formats of exported networks, and how their files are written."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from innerloop.config.schema import ExportFormat
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.files import check_output_path, new_output
from innerloop.learner.exporting.network import Network, Step, difference, network_of
from innerloop.learner.exporting.onnx import onnx
from innerloop.learner.exporting.stablehlo import stablehlo
from innerloop.learner.samples import samples_of
from innerloop.nn.kernels.backend import portable_tracing

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner

CLOSE, CLOSE_IN_16_BITS = 1e-3, 5e-2
"""The largest difference from the learner's predictions that rounding may cause, relative to the largest one."""


class Samples(NamedTuple):
    """The same examples twice.

    Attributes:
        inputs: as the file takes them.
        given: as the learner takes them.
    """

    inputs: np.ndarray
    given: np.ndarray


WRITERS: dict[ExportFormat, Callable[[Network, np.ndarray], bytes]] = {"onnx": onnx, "stablehlo": stablehlo}


def export(
    learner: "Learner",
    path: Path,
    format: ExportFormat | None = None,
    *,
    overwrite: bool = False,
    before: Step | None = None,
    after: Step | None = None,
    shape: tuple[int, ...] | None = None,
    samples: Samples | None = None,
) -> Network:
    """Export an adapted learner for deployment.

    Args:
        learner: the learner, after `fit`.
        path: the file.
        format: its format (None: from its name's suffix).
        overwrite: whether to replace an existing file.
        before: as in `network_of`.
        after: as in `network_of`.
        shape: as in `network_of`.
        samples: what to test the file on (None: inputs like those of `fit`); required with `before`.

    Returns:
        The network that the file holds.

    Raises:
        InnerloopError: for an unknown format, a package that is not installed, a model that the format cannot express,
            a network that does not predict what the learner does, an existing file without `overwrite`, or a path
            that cannot be written.
    """
    write = WRITERS[format_of(path, format)]
    target = check_output_path(path, overwrite=overwrite)
    network = network_of(learner, before, after, shape)
    if samples is None:
        inputs = samples_of(learner)
        samples = Samples(inputs.astype(network.dtype), inputs)
    with jax.default_matmul_precision("highest"):
        predicted = learner.predict_proba if learner.classification else learner.predict
        wanted = predicted(samples.given)
        wanted = np.asarray(wanted if after is None else after(jnp.asarray(wanted)))
    # The file may run on another machine, so products must be exact wherever it runs.
    with portable_tracing(), jax.default_matmul_precision("highest"):
        _check_same(network, samples.inputs, wanted)
        content = write(network, samples.inputs)
    with new_output(target, overwrite=overwrite) as draft:
        draft.write_bytes(content)
    return network


def _check_same(network: Network, inputs: np.ndarray, wanted: np.ndarray) -> None:
    """Raise InnerloopError unless the network outputs what the learner predicts."""
    traced = jax.jit(network.function).trace(inputs)
    rounded = "f16[" in str(traced.jaxpr)  # or bf16
    found = np.asarray(traced.lower().compile()(inputs))
    if got := difference(found, wanted, CLOSE_IN_16_BITS if rounded else CLOSE):
        hint = "pickle the learner instead, and report the model"
        raise InnerloopError(
            "export", "the network would not predict as the learner does", got=got, hint=hint
        )


def format_of(path: Path, given: ExportFormat | None) -> ExportFormat:
    """The given format, or that of the file name's suffix.

    Raises:
        InnerloopError: if there is neither, or they differ.
    """
    found = [known for known in get_args(ExportFormat) if path.suffix.lower() == f".{known}"]
    if given is not None:
        check_choice("export", "format", given, get_args(ExportFormat))
        if found and found != [given]:
            hint = "give another name, or leave out the format"
            raise InnerloopError("export", f"the file name does not match {given}", got=path.name, hint=hint)
        return given
    if not found:
        hint = "give `format` onnx or stablehlo, or a file name that ends in .onnx or .stablehlo"
        raise InnerloopError(
            "export", "cannot tell the format from the file's name", got=path.name, hint=hint
        )
    return found[0]
