"""Layers as pytrees of parameters: every leaf is a float array, everything else is static.

They take a batch of examples, because batch normalisation needs one. `reference` is the number of leading examples
whose statistics normalise the whole batch (None: all of them); see `innerloop.normalization`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.kernels.conv import conv


def glorot_uniform(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


class Linear(eqx.Module):
    """y = x W + b."""

    weight: Float[Array, "features_in features_out"]
    bias: Float[Array, " features_out"]

    def __init__(self, features_in: int, features_out: int, *, key: PRNGKeyArray, scale: float | None = None):
        """Glorot weights, or truncated normal of standard deviation `scale` (MAML's sinusoid: 0.01)."""
        shape = (features_in, features_out)
        if scale is None:
            self.weight = glorot_uniform(key, shape, features_in, features_out)
        else:
            self.weight = scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)
        self.bias = jnp.zeros(features_out)

    def __call__(self, x: Float[Array, "examples features_in"]) -> Float[Array, "examples features_out"]:
        """Apply to a batch."""
        return x @ self.weight + self.bias


class BatchNorm(eqx.Module):
    """Normalise each channel by the statistics of the batch itself (or of its `reference` examples).

    No running averages are kept: the MAML and Reptile papers use batch statistics at training and test alike.
    """

    scale: Float[Array, " channels"]
    offset: Float[Array, " channels"]
    epsilon: float = eqx.field(static=True, default=1e-3)

    def __init__(self, channels: int):
        self.scale = jnp.ones(channels)
        self.offset = jnp.zeros(channels)

    def __call__(
        self, x: Float[Array, "examples *places channels"], reference: int | None = None
    ) -> Float[Array, "examples *places channels"]:
        """Normalise; `reference` leading examples give the statistics (None: all)."""
        flat = x.reshape(-1, x.shape[-1])
        source = flat if reference is None else x[:reference].reshape(-1, x.shape[-1])
        mean = source.mean(0)
        variance = jnp.square(source - mean).mean(0)
        normal = (flat - mean) * (lax.rsqrt(variance + self.epsilon) * self.scale) + self.offset
        return normal.reshape(x.shape)


class ConvBlock(eqx.Module):
    """3x3 convolution, batch normalisation, 2x2 max-pooling unless the convolution strides by 2, and ReLU.

    ReLU after pooling is the papers' ReLU before it (both are increasing), on a quarter of the numbers.

    The convolution has no bias: the normalisation would remove it.
    """

    weight: Float[Array, "3 3 channels filters"]
    norm: BatchNorm
    stride: int = eqx.field(static=True)

    def __init__(self, channels: int, filters: int, *, stride: int, key: PRNGKeyArray):
        self.weight = glorot_uniform(key, (3, 3, channels, filters), 9 * channels, 9 * filters)
        self.norm = BatchNorm(filters)
        self.stride = stride

    def __call__(
        self, x: Float[Array, "examples height width channels"], reference: int | None = None
    ) -> Float[Array, "examples out_height out_width filters"]:
        """Apply to a batch of images."""
        x = self.norm(conv(x, self.weight, self.stride), reference)
        return jax.nn.relu(x if self.stride == 2 else max_pool(x))


def max_pool(
    x: Float[Array, "examples height width channels"],
) -> Float[Array, "examples half_height half_width channels"]:
    """2x2 max-pooling; an odd last row or column is dropped, as the papers' VALID pooling does.

    As maxima of halves, whose derivatives are selections: `max` over axes would look for ties in every window.
    """
    examples, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    x = x.reshape(examples, height // 2, 2, width // 2, 2, channels)
    rows = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])
