"""JAX errors inside a loss or an inner rule, reported in terms that their author understands."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jaxtyping import PyTree

from innerloop.errors import InnerloopError, first_line

REVERSE = "Reverse-mode differentiation does not work for lax.while_loop"
"""How JAX's error about a derivative through a `while` loop begins."""


@contextmanager
def rule_errors() -> Iterator[None]:
    """Turn the errors of an inner rule into an InnerloopError, so that the loss is not blamed for them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, InnerloopError):
            raise
        raise InnerloopError("InnerLoop", f"its rule cannot take a step ({first_line(error)})") from error


@contextmanager
def loss_errors(batch: PyTree) -> Iterator[None]:
    """Turn JAX's errors about shapes and types into an InnerloopError with the shapes of the batch.

    Flax's error about writing to a model inside a transformation becomes an InnerloopError, too.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # from Flax, which may not be installed
            wrong = f"writes to variables that were created outside it ({first_line(error)})"
            hint = "recreate the model inside the loss with nnx.merge(..., copy=True)"
            raise InnerloopError("loss_fn", wrong, hint=hint) from error
        if not isinstance(error, TypeError | ValueError):
            raise
        if isinstance(error, InnerloopError):
            raise
        if str(error).startswith(REVERSE):
            wrong = "the loss or the inner rule has a loop without a fixed length, such as optax.lbfgs's line search"
            hint = "use fomaml or reptile, which do not differentiate the inner loop, or another rule"
            raise InnerloopError("meta-gradient", wrong, hint=hint) from error
        shapes = ", ".join(
            str(jax.typeof(x)) if hasattr(x, "dtype") else repr(x) for x in jax.tree.leaves(batch)
        )
        wrong = f"cannot be computed ({first_line(error)})"
        hint = "give the shapes that the model expects"
        raise InnerloopError("loss_fn", wrong, got=f"a batch of {shapes}", hint=hint) from error
