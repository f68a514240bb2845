"""A network as StableHLO, serialised by `jax.export`: any batch size, on CPUs, CUDA GPUs and TPUs."""

import jax
import numpy as np

from innerloop.io.versions import required
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
    required("flatbuffers", "stablehlo", "export")  # JAX imports it when serialising
    (batch,) = jax.export.symbolic_shape("batch")
    like = jax.ShapeDtypeStruct((batch, *network.shape), network.dtype)
    return bytes(jax.export.export(jax.jit(network.function), platforms=PLATFORMS)(like).serialize())
