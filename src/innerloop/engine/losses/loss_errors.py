"""JAX errors inside a loss or an inner rule, reported in terms that their author understands."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from innerloop.engine.distribution import UNTRACEABLE
from innerloop.engine.learned_rates import WithRates
from innerloop.engine.pytree import is_numeric
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError, first_line

REVERSE = "Reverse-mode differentiation does not work for lax.while_loop"
"""How JAX's error about a derivative through a `while` loop begins."""


FORWARD = "can't apply forward-mode autodiff (jvp) to a custom_vjp function"
"""How JAX's error about a forward-mode derivative of a function that has none begins."""


MANY = 6
"""The number of arrays of a batch that a message names."""


@contextmanager
def derivative_errors() -> Iterator[None]:
    """Turn JAX's errors about derivatives that a `while` loop or a custom derivative does not have into our own."""
    try:
        yield
    except TypeError as error:
        if not str(error).startswith(FORWARD):
            raise
        wrong = "jax.jvp meets a function without a forward-mode derivative"
        hint = "use `derivative` rematerialised or unrolled, not mixed; in the loss, jax.custom_jvp, not custom_vjp"
        raise InnerloopError("inner loop", wrong, hint=hint) from error
    except ValueError as error:
        if not str(error).startswith(REVERSE):
            raise
        wrong = (
            "the loss or the inner rule has a loop without a fixed length, such as optax.lbfgs's line search"
        )
        hint = "use fomaml or reptile, which do not differentiate the inner loop, or another rule"
        raise InnerloopError("meta-gradient", wrong, hint=hint) from error


@contextmanager
def loss_errors(batch: PyTree, who: str = "loss_fn", params: PyTree = None) -> Iterator[None]:
    """Turn the errors of a loss, and JAX's errors about it, into an InnerloopError with the shapes of the batch.

    Flax's error about writing to a model inside a transformation becomes an InnerloopError, too.

    Args:
        batch: what the loss is computed on.
        who: the argument that gave the loss.
        params: the parameters that the loss gets.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # from Flax, which may not be installed
            wrong = f"writes to variables that were created outside it ({first_line(error)})"
            hint = "recreate the model inside the loss with nnx.merge(..., copy=True)"
            raise InnerloopError(who, wrong, hint=hint) from error
        if type(error).__name__ == "ModifyScopeVariableError":  # from Flax Linen
            wrong = f"writes to collections that are not mutable ({first_line(error)})"
            hint = "apply the model with mutable=[...] and carry what it returns as the state of a Loss"
            raise InnerloopError(who, wrong, hint=hint) from error
        if not isinstance(error, TypeError | ValueError | AttributeError | LookupError):
            raise
        if isinstance(error, InnerloopError):
            raise
        leaves = jax.tree.leaves(batch)
        name = "KeyError: " if isinstance(error, KeyError) else ""  # its message is the key alone
        wrong = f"cannot be computed ({name}{first_line(error)})"
        more = ["..."] if len(leaves) > MANY else []
        got = f"a batch of {', '.join([*map(_described, leaves[:MANY]), *more])}"
        hint = _misuse(error, batch, params) or _advice(error, leaves)
        raise InnerloopError(who, wrong, got=got, hint=hint) from error


def _described(leaf: Any) -> str:
    """The type and shape of an array; anything else as it is."""
    if not hasattr(leaf, "dtype"):
        return repr(leaf)
    try:
        return str(jax.typeof(leaf))
    except TypeError:  # it holds text, for example
        return f"{leaf.dtype}{list(np.shape(leaf))}"


def _misuse(error: Exception, batch: PyTree, params: PyTree) -> str:
    """What to do if the loss got another kind of argument than it takes; empty if that is unknown."""
    if isinstance(batch, Task) and params is not None:
        return "pass the support set alone, `task.support`, to `adapt`"
    if isinstance(params, WithRates):
        return (
            "pass the parameters without step sizes, `meta_params.model`, or use the algorithm that made them"
        )
    if isinstance(batch, Batch) and isinstance(batch.mask, list | tuple):
        return "give the mask as an array, np.asarray(mask)"
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    if Path(innermost.f_code.co_filename).parent != Path(__file__).parent:
        return ""  # the loss was called as it should be, and fails within
    missing = str(error).partition(" missing ")[2].partition(" required ")[2]
    if "'key'" in missing:
        return "declare that it takes a key: Loss(fn, random=True)"
    if "'state'" in missing:
        return "declare the state that it starts from: Loss(fn, state=...)"
    if isinstance(error, TypeError) and ("argument" in missing or "positional argument" in str(error)):
        return "it is called as loss_fn(params, batch); a function that makes a loss must be called first"
    return ""


def _advice(error: Exception, leaves: Sequence[Any]) -> str:
    """What to do about an error of a loss on a batch with these leaves."""
    if isinstance(error, UNTRACEABLE):
        return "compute it with jax.numpy, without float(), bool() or `if` on values of arrays"
    if not all(is_numeric(leaf) and np.ndim(leaf) for leaf in leaves):
        return "give a batch of arrays of numbers, each with one row per example"
    stacked = len({np.shape(leaf)[:2] for leaf in leaves}) == 1 and min(map(np.ndim, leaves)) > 1
    vmap = "; use jax.vmap if these are several tasks" if stacked and max(map(np.ndim, leaves)) > 2 else ""
    return f"give the shapes and the structure that it expects{vmap}"
