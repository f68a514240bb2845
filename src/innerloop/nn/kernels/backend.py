"""For which hardware the kernels are traced: the one that this process computes on, or any.

Kernels are chosen when a function is traced. A network that is written to a file runs elsewhere, and other programs
know neither our primitives nor blocks of a fixed number of images. It is traced with operations of XLA alone, which
take any batch.
"""

import contextlib
import os

import jax

from innerloop.errors import check_choice

GPU_CONVOLUTION = "INNERLOOP_GPU_CONVOLUTION"
"""The variable that chooses a GPU's convolution: `pallas`, the default where it runs, or `patches`."""

TRITON = 8.0
"""The least compute capability of a GPU that Pallas's Triton compiles for."""

_PORTABLE = jax.make_user_context(False)  # part of the key of every cache of traced functions


def portable() -> contextlib.AbstractContextManager[None]:
    """What is traced within uses operations of XLA alone."""
    return _PORTABLE(True)


def backend() -> str:
    """`cpu`, `gpu` or `tpu`; `any` for what is traced within `portable`."""
    return "any" if _PORTABLE.value else jax.default_backend()


def gpu_convolution() -> str:
    """How a GPU convolves. Raises InnerloopError for an unknown way."""
    chosen = os.environ.get(GPU_CONVOLUTION) or ("pallas" if _has_triton() else "patches")
    check_choice(GPU_CONVOLUTION, "value", chosen, ("patches", "pallas"))
    return chosen


def _has_triton() -> bool:
    """Whether the GPU that is here is one of NVIDIA's, and new enough."""
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0)) >= TRITON
    except ValueError:  # AMD's have names
        return False
