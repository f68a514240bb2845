"""The hardware that kernels are traced for: that of this process, or any.

Kernels are chosen when a function is traced. A network that is exported to a file runs in other programs, which support
neither our primitives nor blocks of a fixed number of images. So it is traced with XLA's own operations only, which
accept any batch.
"""

import contextlib
import os

import jax

from innerloop.errors import check_choice

GPU_CONVOLUTION = "INNERLOOP_GPU_CONVOLUTION"
"""The environment variable that selects a GPU's convolution: `pallas`, the default where it runs, or `patches`."""

TRITON = 8.0
"""The lowest compute capability of a GPU that Pallas's Triton backend compiles for."""

_PORTABLE = jax.make_user_context(False)  # part of the cache key of every traced function


def portable_tracing() -> contextlib.AbstractContextManager[None]:
    """A context in which functions are traced with XLA's own operations only."""
    return _PORTABLE(True)


def backend() -> str:
    """`cpu`, `gpu` or `tpu`; `any` while tracing within `portable_tracing`."""
    return "any" if _PORTABLE.value else jax.default_backend()


def gpu_convolution() -> str:
    """The convolution to use on a GPU. Raises InnerloopError if it is unknown."""
    chosen = os.environ.get(GPU_CONVOLUTION) or ("pallas" if _has_triton() else "patches")
    check_choice(GPU_CONVOLUTION, "value", chosen, ("patches", "pallas"))
    return chosen


def _has_triton() -> bool:
    """Whether the GPU is from NVIDIA and new enough."""
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0)) >= TRITON
    except ValueError:  # AMD's capabilities are names
        return False
