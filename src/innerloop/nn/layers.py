"""Layers as pytrees of parameters: every leaf is a float array, everything else is static.

Layers take a batch of examples, because batch normalisation needs one. `reference` is the number of leading examples
whose statistics normalise the whole batch (None: all of them); see `innerloop.nn.normalization`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.engine.keys import check_key
from innerloop.errors import check_count
from innerloop.nn.kernels.blockwise_conv import conv_then, output_moments
from innerloop.nn.kernels.channel_sums import (
    Channels,
    Images,
    channel_moments,
    channel_scale,
    per_channel,
    spread,
)
from innerloop.nn.kernels.conv import conv, has_few_inputs
from innerloop.nn.kernels.linear import linear
from innerloop.nn.kernels.max_pool import max_pool


def glorot_uniform(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, fan_out: int) -> Array:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


class Linear(eqx.Module):
    """y = x W + b."""

    weight: Float[Array, "features_in features_out"]
    bias: Float[Array, " features_out"]

    def __init__(self, features_in: int, features_out: int, *, key: PRNGKeyArray, scale: float | None = None):
        """Initialise the bias to zero, and the weights.

        Args:
            features_in: the number of inputs.
            features_out: the number of outputs.
            key: the key for the random weights.
            scale: the standard deviation of truncated normal weights, as in MAML's sinusoid (None: Glorot uniform).
        """
        shape = (
            check_count("Linear", "features_in", features_in, 0),
            check_count("Linear", "features_out", features_out),
        )
        check_key(key, "Linear")
        if scale is None:
            self.weight = glorot_uniform(key, shape, features_in, features_out)
        else:
            self.weight = scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)
        self.bias = jnp.zeros(features_out)

    def __call__(self, x: Float[Array, "examples features_in"]) -> Float[Array, "examples features_out"]:
        """Apply to a batch."""
        return linear(x, self.weight) + self.bias[None]


class BatchNorm(eqx.Module):
    """Normalise each channel by the statistics of the batch itself (or of its `reference` leading examples).

    There are no running averages: the MAML and Reptile papers use batch statistics in training and at test time
    (Ioffe and Szegedy 2015, arXiv 1502.03167).
    """

    scale: Channels
    offset: Channels
    epsilon: float = eqx.field(static=True, default=1e-3)

    def __init__(self, channels: int):
        self.scale = jnp.ones(channels)
        self.offset = jnp.zeros(channels)

    def __call__(self, x: Images, reference: int | None = None) -> Images:
        """Normalise; `reference` leading examples give the statistics (None: all)."""
        mean, variance = channel_moments(x if reference is None else x[:reference])
        return self.normalize(x, mean, variance, self.scale)

    def normalize(self, x: Images, mean: Channels, variance: Channels, scale: Channels) -> Images:
        """(x - mean) / sqrt(variance + epsilon) * scale + offset."""
        factor = lax.rsqrt(variance + self.epsilon) * scale
        return channel_scale(x - spread(mean, x), factor) + spread(self.offset, x)


class ConvBlock(eqx.Module):
    """3x3 convolution, batch normalisation, ReLU, and 2x2 max-pooling unless the convolution strides by 2.

    Max-pooling is moved before normalisation and ReLU, which are monotone, so that these work on a quarter of the
    elements. (Normalisation is decreasing in a channel with negative scale; there the signs of the kernel and the scale
    are flipped.) The convolution has no bias, because the normalisation would remove it.
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
        turn = jnp.where(self.norm.scale < 0, -1.0, 1.0)  # the largest of -y is minus the smallest of y
        w, scale = self.weight * per_channel(turn, self.weight), self.norm.scale * turn
        if has_few_inputs(w):
            mean, variance = output_moments(x if reference is None else x[:reference], w, self.stride)
            return conv_then(lambda y: self.activate(y, mean, variance, scale), x, w, self.stride)
        y = conv(x, w, self.stride)
        mean, variance = channel_moments(y if reference is None else y[:reference])
        return self.activate(y, mean, variance, scale)

    def activate(
        self, y: Images, mean: Channels, variance: Channels, scale: Channels
    ) -> Float[Array, "examples out_height out_width channels"]:
        """Everything after the convolution, given its mean and variance and a non-negative scale."""
        y = max_pool(y) if self.stride == 1 else y
        return jax.nn.relu(self.norm.normalize(y, mean, variance, scale))
