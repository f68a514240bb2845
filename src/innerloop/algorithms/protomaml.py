r"""ProtoMAML: MAML whose linear head is initialised for every task as that of a prototypical network.

    c_k = mean over the support examples of class k of f(x),   W_k = 2 c_k,   b_k = -|c_k|^2

so that the scores are -|f(x) - c_k|^2 up to a term that all classes share; then the inner loop adapts body and head.
The inner gradient is partial: body and head are separate arguments. The meta-gradient flows through the prototypes.
Without inner steps it is a prototypical network (Snell et al. 2017) with squared distances.

Triantafillou et al. 2020, "Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples", section 3,
arXiv 1903.03096.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from innerloop.algorithms.maml import MAML
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, LossFn, Params

Embed = Callable[[Params, PyTree], Array]
"""`embed(params, inputs)`: the features that the head takes, `[examples, features]`."""

WithHead = Callable[[Params, Array, Array], Params]
"""`with_head(params, weight, bias)`: the parameters with a new head, of shapes `[features, ways]` and `[ways]`."""


def embed_by_body(params: Params, inputs: PyTree) -> Array:
    """The features computed by a model of `innerloop.nn`."""
    return params.embed(inputs)


def with_linear_head(params: Params, weight: Array, bias: Array) -> Params:
    """A model of `innerloop.nn` with a new head."""
    return eqx.tree_at(lambda model: (model.head.weight, model.head.bias), params, (weight, bias))


@dataclass(frozen=True)
class ProtoMAML(MAML):
    """The algorithm that `protomaml` returns."""

    ways: int | None = None
    embed: Embed = embed_by_body
    with_head: WithHead = with_linear_head

    def start(self, meta_params: Params, support: Batch) -> Params:
        """The initialisation, with the head of a prototypical network for the support set."""
        ways = len(meta_params.head.bias) if self.ways is None else self.ways
        means = prototypes(self.embed(meta_params, support.inputs), support.targets, ways, support.mask)
        return self.with_head(meta_params, 2 * means.T, -jnp.sum(jnp.square(means), axis=-1))


def prototypes(
    features: Float[Array, "examples features"],
    targets: Int[Array, " examples"],
    ways: int,
    mask: Bool[Array, " examples"] | Num[Array, " examples"] | None = None,
) -> Float[Array, "ways features"]:
    """The mean features of every class, over the examples that count, or weighted; zero for a class without any."""
    # Narrow dtypes, such as int8, cannot hold every number of a class.
    numbers = targets.astype(jnp.result_type(targets, jnp.int32))
    members = jax.nn.one_hot(numbers, ways, dtype=features.dtype)
    members = members if mask is None else members * mask[:, None].astype(members.dtype)
    total = members.sum(0)
    return members.T @ features / jnp.where(total == 0, 1, total)[:, None]


def protomaml(
    loss_fn: LossFn,
    inner: InnerLoop,
    *,
    ways: int | None = None,
    embed: Embed = embed_by_body,
    with_head: WithHead = with_linear_head,
    outer_loss_fn: LossFn | None = None,
) -> ProtoMAML:
    """ProtoMAML (Triantafillou et al. 2020); its tasks are `Batch`es with class numbers as targets.

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop.
        ways: the number of classes of a task (None: the number of outputs of a model of `innerloop.nn`).
        embed: `embed(params, inputs) -> [examples, features]`; by default that of the models of `innerloop.nn`.
        with_head: `with_head(params, weight, bias)` replaces the head, of shapes `[features, ways]` and `[ways]`.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).
    """
    return ProtoMAML(loss_fn, inner, outer_loss_fn, ways, embed, with_head)
