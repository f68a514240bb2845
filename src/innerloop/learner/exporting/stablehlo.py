"""A network as StableHLO, serialised by `jax.export`: any batch size, on CPUs, CUDA GPUs and TPUs."""

import importlib.util

import jax
import numpy as np

from innerloop.errors import InnerloopError
from innerloop.learner.exporting.network import Network

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(network: Network, inputs: np.ndarray) -> bytes:
    """The file's content, for `jax.export.deserialize`.

    Args:
        network: the network.
        inputs: not used; JAX's own format needs no test run.

    Raises:
        InnerloopError: if flatbuffers is not installed, or the model does not take a batch of unknown size.
    """
    if importlib.util.find_spec("flatbuffers") is None:  # JAX imports it when serialising
        hint = "run: pip install 'innerloop[stablehlo]'"
        raise InnerloopError("export", "StableHLO files need flatbuffers", hint=hint)
    (batch,) = jax.export.symbolic_shape("batch")
    like = jax.ShapeDtypeStruct((batch, *network.shape), network.dtype)
    return bytes(jax.export.export(jax.jit(network.function), platforms=PLATFORMS)(like).serialize())
