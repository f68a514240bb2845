"""What can be trained: a tree of float arrays, none of which is the state of a model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import core
from jaxtyping import PyTree

from innerloop.engine.pytree import path_in_words, paths
from innerloop.errors import InnerloopError


def check_trainable(params: PyTree, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless every leaf is a float array and there is at least one.

    Model state is refused, too: it would be trained as if it were a parameter, and never updated as the model does.
    """
    if hasattr(params, "params") and hasattr(params, "opt_state"):
        got = f"the whole {type(params).__name__}"
        raise InnerloopError(who, "needs the parameters only", got=got, hint="pass `state.params`")
    _check_no_model_state(params, who)
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise InnerloopError(who, "the parameter tree has no array", hint="pass a pytree of float arrays")
    for number, leaf in enumerate(leaves):
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            path = paths(params)[number]
            what = f"parameter `{path}` is not a float array" if path else "needs a pytree of float arrays"
            hint = "keep only float arrays in the parameters and close over the rest"
            if isinstance(params, eqx.Module):
                hint += "; eqx.partition(model, eqx.is_inexact_array) separates them"
            raise InnerloopError(who, what, got=getattr(leaf, "dtype", type(leaf).__name__), hint=hint)
        if isinstance(leaf, jax.Array) and not isinstance(leaf, core.Tracer) and leaf.is_deleted():
            what = "the parameters were donated to an earlier call, such as OuterLoop.run, and are deleted"
            hint = "use what that call returned, or keep a copy, jax.tree.map(jnp.copy, params)"
            raise InnerloopError(who, what, hint=hint)


def _check_no_model_state(params: PyTree, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, if a part of the tree is known to be model state."""
    is_state = lambda node: bool(_cure(node) and jax.tree.leaves(node))
    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_state):
        if is_state(node):
            what = "the parameters hold model state" + (f" at `{path_in_words(path)}`" if path else "")
            hint = f"{_cure(node)}, and declare the state with `Loss(fn, state=...)`"
            raise InnerloopError(who, what, got=type(node).__name__, hint=hint)


def _cure(node: Any) -> str:
    """What to do about a node of a tree that is, or holds, model state; empty if it is not.

    Flax, which may not be installed, is recognised by its names.
    """
    if isinstance(node, Mapping) and "params" in node and jax.tree.leaves(node.get("batch_stats")):
        return 'pass `variables["params"]` without "batch_stats"'
    if isinstance(node, eqx.nn.State | eqx.nn.StateIndex):
        return "separate it by eqx.nn.make_with_state"
    kinds = {cls.__name__ for cls in type(node).__mro__ if cls.__module__.startswith("flax.nnx.")}
    stateful = "Variable" in kinds and kinds & {"BatchStat", "Cache", "Intermediate"}
    return "separate it by nnx.split(model, nnx.Param, ...)" if stateful else ""
