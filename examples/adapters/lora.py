"""Low-rank adapters on the linear layers of any Equinox model, chosen by their paths.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import innerloop as il

Model = TypeVar("Model")


class LoRA(eqx.Module):
    """A linear layer plus a product of two thin matrices, the second of which starts at zero."""

    linear: eqx.nn.Linear
    lora_in: Float[Array, "rank inputs"]
    lora_out: Float[Array, "outputs rank"]
    scale: float = eqx.field(static=True)

    def __init__(self, linear: eqx.nn.Linear, rank: int, scale: float, key: jax.Array):
        outputs, inputs = linear.weight.shape
        self.linear, self.scale = linear, scale
        self.lora_in = jax.random.normal(key, (rank, inputs), linear.weight.dtype) / inputs**0.5
        self.lora_out = jnp.zeros((outputs, rank), linear.weight.dtype)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        y = self.linear(x)
        return y + self.scale * (self.lora_out @ (self.lora_in @ x)).astype(y.dtype)


def with_lora(model: Model, select: str | Sequence[str], rank: int, scale: float, key: jax.Array) -> Model:
    """The model with adapters around the linear layers at these paths; its own code does not change.

    Raises:
        InnerloopError: if the paths lead to no linear layer.
    """
    is_linear = lambda node: isinstance(node, eqx.nn.Linear)
    selected, _ = il.partition(model, select)
    keys = iter(jax.random.split(key, 1000))

    def wrap(layer: eqx.nn.Linear, chosen: eqx.nn.Linear) -> eqx.nn.Linear | LoRA:
        wanted = is_linear(layer) and chosen.weight is not None
        return LoRA(layer, rank, scale, next(keys)) if wanted else layer

    adapted = jax.tree.map(wrap, model, selected, is_leaf=is_linear)
    if jax.tree.structure(adapted) == jax.tree.structure(model):
        raise il.InnerloopError("LoRA", "no linear layer is there", got=select, hint="name linear layers")
    return adapted
