"""A sine network from places to colours, with shifts that come from a latent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

import innerloop as il
from innerloop.nn import sin

FREQUENCY = 30.0
"""w0: the factor on every layer's argument inside the sine, 30 in all of the papers."""


class Layer(NamedTuple):
    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]


def layer(key: jax.Array, inputs: int, outputs: int, bound: float) -> Layer:
    """Weights drawn uniformly from [-bound, bound] (Sitzmann et al., section 3.2)."""
    weight_key, bias_key = jax.random.split(key)
    return Layer(
        jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound),
        jax.random.uniform(bias_key, (outputs,), minval=-(inputs**-0.5), maxval=inputs**-0.5),
    )


def siren(key: jax.Array, width: int, depth: int, channels: int, latent: int) -> PyTree:
    """The parameters: `layers`, and with a latent the map `shifts` and the initial latent `context`."""
    keys = jax.random.split(key, depth + 2)
    hidden = (6 / width) ** 0.5 / FREQUENCY
    layers = [layer(keys[0], 2, width, 0.5), *(layer(k, width, width, hidden) for k in keys[1:depth])]
    params = {"layers": layers, "out": layer(keys[-2], width, channels, hidden)}
    if latent:
        shifts = jax.random.uniform(keys[-1], (latent, depth * width), minval=-1, maxval=1) / latent
        params |= {"shifts": shifts, "context": jnp.zeros(latent)}
    return params


def colours(params: PyTree, places: Float[Array, "pixels 2"]) -> Float[Array, "pixels channels"]:
    """Colours in 0..1 at places in -1..1; every layer is shifted by its part of the mapped latent."""
    depth, x = len(params["layers"]), places
    zeros = jnp.zeros((depth, 1))
    shifts = (params["context"] @ params["shifts"]).reshape(depth, -1) if "context" in params else zeros
    for one, shift in zip(params["layers"], shifts, strict=True):
        x = sin(FREQUENCY * (x @ one.weight + one.bias + shift))
    return x @ params["out"].weight + params["out"].bias + 0.5


def error(params: PyTree, picture: il.Batch) -> jax.Array:
    """The mean squared error over pixels and channels."""
    return jnp.mean(jnp.square(colours(params, picture.inputs) - picture.targets))


def score(params: PyTree, task: il.Task) -> dict[str, jax.Array]:
    """The peak signal-to-noise ratio, in decibels."""
    return {"psnr": -10 * jnp.log10(error(params, task.query))}
