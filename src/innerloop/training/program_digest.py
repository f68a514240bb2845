"""What a traced program computes, as a digest: two programs with the same one do the same on the same arguments.

A step size within an optimiser, a constant within a loss and an array that a distribution holds are all found in the
trace of the function that reads them, wherever a user has put them.
"""

import re
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from innerloop.engine.dependence import numbers_within
from innerloop.engine.distribution import bits_of
from innerloop.io.digests import sha256

CHANGING = re.compile(r"0x[0-9a-f]+|\bname=\S+|\bat /\S+")
"""What of a program's text changes though it computes the same: addresses, and names of functions and files."""


def program_digest(fn: Callable[..., PyTree], *args: PyTree) -> str:
    """SHA-256 of the traced program of `fn(*args)` and of the numbers within it; arrays may be their shapes."""
    traced = jax.make_jaxpr(lambda *args: fn(*args))(*args)
    text = CHANGING.sub("", str(traced.jaxpr))
    return sha256([text.encode(), *map(bits_of, numbers_within(traced))]).hex()


def arrays_within(tree: PyTree) -> dict[str, str]:
    """Type and shape of every leaf by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return {name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}
