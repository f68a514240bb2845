"""A digest of a traced program: two programs with the same digest compute the same on the same arguments.

A step size in an optimiser, a constant in a loss, and an array in a distribution all appear in the trace of the
function that reads them, wherever the user has put them.
"""

import re
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from innerloop.engine.distribution import bits_of
from innerloop.engine.jaxprs import constants_of
from innerloop.io.digests import sha256

CHANGING = re.compile(r"0x[0-9a-f]+|\bname=\S+|\bat /\S+")
"""Parts of a program's text that may change although it computes the same: addresses, function and file names."""


def program_digest(fn: Callable[..., PyTree], *args: PyTree) -> str:
    """SHA-256 of the traced program of `fn(*args)` and its constants; arrays may be given as shapes."""
    traced = jax.make_jaxpr(lambda *args: fn(*args))(*args)
    text = CHANGING.sub("", str(traced.jaxpr))
    return sha256([text.encode(), *map(bits_of, constants_of(traced))]).hex()


def arrays_within(tree: PyTree) -> dict[str, str]:
    """Type and shape of every leaf, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    return {name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}
