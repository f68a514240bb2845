r"""3x3 convolution whose derivatives of every order stay fast: patches, then one matrix product.

    conv(x, w)[n, i, j, f] = sum_{a, b, c} x[n, s i + a, s j + b, c] w[a, b, c, f]

Convolution is bilinear. Written as `patches(x) @ w`, every derivative of every order is again made of copies of
slices (and their transposes, sums of shifted slices) and of matrix products, which run near the machine's peak.
XLA's own convolution on a CPU is fair forward, but its second-order weight gradients are slower by a factor of
ten and more, so `lax.conv_general_dilated` serves accelerators only.

Layouts: inputs `[examples, height, width, channels]`, kernels `[height, width, channels, filters]`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis so that the output has ceil(size / stride) places."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def patches(
    x: Float[Array, "examples height width channels"], kernel: int = 3, stride: int = 1
) -> Float[Array, "examples out_height out_width patch"]:
    """Every window of a SAME convolution as one row: patch = (row offset, column offset, channel)."""
    examples, height, width, channels = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    x = jnp.pad(
        x, ((0, 0), same_padding(height, kernel, stride), same_padding(width, kernel, stride), (0, 0))
    )
    shifts = [
        lax.slice(
            x,
            (0, a, b, 0),
            (examples, a + (out_height - 1) * stride + 1, b + (out_width - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for a in range(kernel)
        for b in range(kernel)
    ]
    return jnp.concatenate(shifts, axis=-1)


def conv_by_patches(
    x: Float[Array, "examples height width channels"],
    w: Float[Array, "kernel kernel channels filters"],
    stride: int = 1,
) -> Float[Array, "examples out_height out_width filters"]:
    """SAME convolution as one matrix product."""
    rows = patches(x, w.shape[0], stride)
    flat = rows.reshape(-1, rows.shape[-1]) @ w.reshape(-1, w.shape[-1])
    return flat.reshape(*rows.shape[:-1], w.shape[-1])


def conv_by_xla(
    x: Float[Array, "examples height width channels"],
    w: Float[Array, "kernel kernel channels filters"],
    stride: int = 1,
) -> Float[Array, "examples out_height out_width filters"]:
    """SAME convolution as XLA's own operation."""
    return lax.conv_general_dilated(
        x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv(
    x: Float[Array, "examples height width channels"],
    w: Float[Array, "kernel kernel channels filters"],
    stride: int = 1,
) -> Float[Array, "examples out_height out_width filters"]:
    """SAME convolution: by patches on a CPU, by XLA's own operation elsewhere."""
    if jax.default_backend() == "cpu":
        return conv_by_patches(x, w, stride)
    return conv_by_xla(x, w, stride)
