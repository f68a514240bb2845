"""Which batch supplies the normalisation statistics for a query; published accuracies depend on it.

transductive: all queries of the task together (MAML's and Reptile's transductive numbers). The prediction for a query
    then depends on the other queries.
inductive: each query together with the support set (Reptile's non-transductive protocol).
support: the support set alone.

For models without batch normalisation all three are the same.
"""

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from innerloop.config.schema import Normalization
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.nn.losses import Apply


def predict(
    apply: Apply, params: Params, support_inputs: PyTree, query_inputs: PyTree, mode: Normalization
) -> Float[Array, "query outputs"]:
    """The outputs for the queries, `[query, outputs]`.

    Args:
        apply: the model.
        params: its adapted parameters.
        support_inputs: `[support, ...]`.
        query_inputs: `[query, ...]`.
        mode: which batch supplies the normalisation statistics.

    Raises:
        InnerloopError: if the mode is unknown, or it is `support` and the model has no keyword `reference`.
    """
    check_choice("normalization", "mode", mode, get_args(Normalization))
    if mode == "transductive":
        return apply(params, query_inputs)
    if mode == "inductive":
        alone = lambda query: apply(
            params, _joint_batch(support_inputs, jax.tree.map(lambda x: x[None], query))
        )[-1]
        return jax.vmap(alone)(query_inputs)
    examples = jax.tree.leaves(support_inputs)[0].shape[0]
    _check_reference(apply, params)
    return apply(params, _joint_batch(support_inputs, query_inputs), reference=examples)[examples:]


def _joint_batch(support_inputs: PyTree, query_inputs: PyTree) -> PyTree:
    """Support and query inputs as one batch, the support set first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), support_inputs, query_inputs)


def _check_reference(apply: Apply, params: Params) -> None:
    """Raise InnerloopError unless the model has the keyword `reference`."""
    for function in (apply, params):
        if callable(function) and "reference" in inspect.signature(function).parameters:
            return
    raise InnerloopError(
        "normalization",
        "mode `support` needs a model that takes `reference`",
        hint="add the keyword (see innerloop.nn.layers.BatchNorm) or choose another mode",
    )
