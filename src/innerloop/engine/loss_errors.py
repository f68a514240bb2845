"""JAX errors inside a loss or an inner rule, reported in terms that their author understands."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.engine.distribution import UNTRACEABLE
from innerloop.engine.pytree import is_numeric
from innerloop.errors import InnerloopError, first_line

REVERSE = "Reverse-mode differentiation does not work for lax.while_loop"
"""How JAX's error about a derivative through a `while` loop begins."""


@contextmanager
def loss_errors(batch: PyTree) -> Iterator[None]:
    """Turn the errors of a loss, and JAX's errors about it, into an InnerloopError with the shapes of the batch.

    Flax's error about writing to a model inside a transformation becomes an InnerloopError, too.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # from Flax, which may not be installed
            wrong = f"writes to variables that were created outside it ({first_line(error)})"
            hint = "recreate the model inside the loss with nnx.merge(..., copy=True)"
            raise InnerloopError("loss_fn", wrong, hint=hint) from error
        if not isinstance(error, TypeError | ValueError | AttributeError | LookupError):
            raise
        if isinstance(error, InnerloopError):
            raise
        if str(error).startswith(REVERSE):
            wrong = "the loss or the inner rule has a loop without a fixed length, such as optax.lbfgs's line search"
            hint = "use fomaml or reptile, which do not differentiate the inner loop, or another rule"
            raise InnerloopError("meta-gradient", wrong, hint=hint) from error
        leaves = jax.tree.leaves(batch)
        name = "KeyError: " if isinstance(error, KeyError) else ""  # its message is the key alone
        wrong = f"cannot be computed ({name}{first_line(error)})"
        got = f"a batch of {', '.join(map(_described, leaves))}"
        raise InnerloopError("loss_fn", wrong, got=got, hint=_advice(error, leaves)) from error


def _described(leaf: Any) -> str:
    """The type and shape of an array; anything else as it is."""
    if not hasattr(leaf, "dtype"):
        return repr(leaf)
    try:
        return str(jax.typeof(leaf))
    except TypeError:  # it holds text, for example
        return f"{leaf.dtype}{list(np.shape(leaf))}"


def _advice(error: Exception, leaves: Sequence[Any]) -> str:
    """What to do about an error of a loss on a batch with these leaves."""
    if isinstance(error, UNTRACEABLE):
        return "compute it with jax.numpy, without float(), bool() or `if` on values of arrays"
    if "positional argument" in str(error):
        return "pass a function of (params, batch); if yours makes a loss, call it, as in `surrogates.clipped(0.2)`"
    if not all(is_numeric(leaf) and np.ndim(leaf) for leaf in leaves):
        return "give a batch of arrays of numbers, each with one row per example"
    return "give the shapes and the structure that it expects"
