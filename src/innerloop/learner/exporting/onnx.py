"""A network as ONNX, converted by jax2onnx and checked against the original in onnxruntime."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from innerloop.errors import InnerloopError, first_line
from innerloop.io.versions import required
from innerloop.learner.exporting.network import INPUT, Network, Step, difference
from innerloop.learner.persistence import check_labels

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 21
"""The ONNX operator set: that of 2024, which onnxruntime supports since 1.18."""

CLOSE = 1e-4
"""The largest tolerated difference between the file's outputs and ours, relative to the largest output."""


def onnx(network: Network, inputs: np.ndarray) -> bytes:
    """The file's content.

    Args:
        network: the network.
        inputs: some of its inputs, on which the file must give the same outputs.

    Raises:
        InnerloopError: if jax2onnx is not installed, cannot convert the model, or converts it incorrectly.
    """
    jax2onnx = required("jax2onnx", "onnx", "export")
    check_labels(network.classes or [], "export")
    # jax2onnx converts constant examples joined to a batch of unknown size incorrectly, to a batch of one correctly.
    one_by_one = jax.vmap(lambda example: network.function(example[None])[0])
    function = one_by_one if network.holds_examples else network.function
    like = jax.ShapeDtypeStruct(("batch", *network.shape), np.dtype(network.dtype))
    if jax.eval_shape(network.function, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)).dtype == np.float64:
        hint = "cast the parameters to float32 before `fit`, or write it as stablehlo"
        raise InnerloopError("export", "the model computes in 64 bits but ONNX files use 32", hint=hint)
    try:
        with _quiet(), _restored(jnp, jax.lax, jax.nn):
            model = jax2onnx.to_onnx(
                function, [like], opset=OPSET, input_names=[INPUT], output_names=[network.output]
            )
    except Exception as error:  # a user's model can make the converter raise anything
        raise InnerloopError("export", f"jax2onnx cannot convert this model ({first_line(error)})") from error
    _describe(model, network)
    content = model.SerializeToString()
    try:
        found = _differences(content, function, network, inputs)
    except Exception as error:  # onnxruntime raises many error classes
        wrong = f"onnxruntime cannot run what jax2onnx made of this model ({first_line(error)})"
        raise InnerloopError("export", wrong, hint="write it as stablehlo") from error
    if found:
        raise InnerloopError("export", "jax2onnx does not convert this model right", got=found)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the converter logs and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _restored(*modules: ModuleType) -> Iterator[None]:
    """Restore the modules afterwards: the converter leaves its own functions in `jax.numpy`."""
    before = [(module, dict(vars(module))) for module in modules]
    try:
        yield
    finally:
        for module, names in before:
            for name, value in names.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)


def _describe(model: "ModelProto", network: Network) -> None:
    """Add labels and normalisation as metadata, which onnxruntime exposes as `custom_metadata_map`."""
    model.producer_name = "innerloop"
    about = {"normalization": network.normalization}
    if network.classes is not None:
        about["classes"] = json.dumps(network.classes)
    for name, value in about.items():
        model.metadata_props.add(key=name, value=value)


def _differences(content: bytes, function: Step, network: Network, inputs: np.ndarray) -> str:
    """How the file's outputs differ from ours; empty if they do not."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = np.asarray(session.run([network.output], {INPUT: inputs})[0])
    return difference(found, np.asarray(jax.jit(function)(inputs)), CLOSE)
