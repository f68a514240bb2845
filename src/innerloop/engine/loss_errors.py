"""Errors of JAX within a loss, in the terms of those who wrote it."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jaxtyping import PyTree

from innerloop.errors import InnerloopError, first_line


@contextmanager
def loss_errors(batch: PyTree) -> Iterator[None]:
    """What JAX says of shapes and types that do not fit becomes an InnerloopError with the shapes of the batch.

    So does what Flax says of a model that is written to within a transformation.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # of Flax, which need not be installed
            wrong = f"writes to variables that were made outside of it ({first_line(error)})"
            do = "make the model anew in the loss, by nnx.merge(..., copy=True)"
            raise InnerloopError("loss_fn", wrong, do=do) from error
        if not isinstance(error, TypeError | ValueError):
            raise
        if isinstance(error, InnerloopError):
            raise
        shapes = ", ".join(
            str(jax.typeof(x)) if hasattr(x, "dtype") else repr(x) for x in jax.tree.leaves(batch)
        )
        wrong = f"cannot be computed ({first_line(error)})"
        do = "give the shapes that the model takes"
        raise InnerloopError("loss_fn", wrong, got=f"a batch of {shapes}", do=do) from error
