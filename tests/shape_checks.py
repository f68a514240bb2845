"""Check every call's arguments and result against the signature: shapes and dtypes as well as types."""

import functools
import inspect

import jax
import jaxtyping
from jaxtyping import PyTree, _decorator, _pytree_type

CHECKER = "beartype.beartype"


def install(package: str) -> None:
    """Check the modules of `package`, which must not have been imported yet."""
    _decorator._make_fn_with_signature = once_for_each_signature(_decorator._make_fn_with_signature)
    _decorator._apply_typechecker = functools.cache(_decorator._apply_typechecker)
    _pytree_type._MetaPyTree._check = of_leaves(_pytree_type._MetaPyTree._check)  # pyright: ignore
    jaxtyping.install_import_hook(package, CHECKER)


def once_for_each_signature(make):
    """Cache jaxtyping's function, which is called whenever a function is defined.

    Nested functions are defined again at every call of the outer function, and building their checks again took a tenth
    of the time of all tests.
    """
    kept = functools.cache(make)

    def checked(name: str, qualname: str, module: str, signature: inspect.Signature, output: bool):
        try:
            return kept(name, qualname, module, signature, output)
        except TypeError:  # a default or an annotation is not hashable
            return make(name, qualname, module, signature, output)

    return checked


def of_leaves(check):
    """Wrap jaxtyping's method with a fast path for trees of arrays, the most common annotation."""

    def checked(annotation, tree: PyTree, structures: dict) -> bool:
        if annotation.leaftype is jax.Array and annotation.structure is None:
            return all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree))
        return check(annotation, tree, structures)

    return checked
