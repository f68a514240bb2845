"""For which hardware the kernels are traced: the one that this process computes on, or any.

Kernels are chosen when a function is traced. A network that is written to a file runs elsewhere, and other programs
know neither our primitives nor blocks of a fixed number of images. It is traced with operations of XLA alone, which
take any batch.
"""

import contextlib

import jax

_PORTABLE = jax.make_user_context(False)  # part of the key of every cache of traced functions


def portable() -> contextlib.AbstractContextManager[None]:
    """What is traced within uses operations of XLA alone."""
    return _PORTABLE(True)


def backend() -> str:
    """`cpu`, `gpu` or `tpu`; `any` for what is traced within `portable`."""
    return "any" if _PORTABLE.value else jax.default_backend()
