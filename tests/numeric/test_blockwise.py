"""The layer that never stores its convolution is the layer that does, and its moments are those of the output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.nn.kernels import blockwise_conv
from innerloop.nn.kernels.blockwise_conv import conv_then, output_moments
from innerloop.nn.kernels.channel_sums import channel_moments
from innerloop.nn.kernels.im2col import conv_by_xla
from innerloop.nn.layers import ConvBlock


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_output_moments_match_moments_of_convolution(side: int, stride: int):
    """w^T m and w^T C w, with padding counted, around images that are far from zero."""
    draw = normal(side)
    x, w = draw(6, side, side, 3) + 5, draw(3, 3, 3, 4)
    for found, expected in zip(
        output_moments(x, w, stride), channel_moments(conv_by_xla(x, w, stride)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def plain(block: ConvBlock, x: jax.Array, reference: int | None) -> jax.Array:
    """As the papers write it: convolution, normalisation, ReLU, and only then the largest of each 2x2."""
    y = conv_by_xla(x, block.weight, block.stride)
    source = y if reference is None else y[:reference]
    scaled = (y - source.mean((0, 1, 2))) / jnp.sqrt(source.var((0, 1, 2)) + block.norm.epsilon)
    y = jnp.maximum(scaled * block.norm.scale + block.norm.offset, 0)
    if block.stride == 2:
        return y
    y = y[:, : y.shape[1] // 2 * 2, : y.shape[2] // 2 * 2]
    return y.reshape(y.shape[0], y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1).max((2, 4))


@pytest.mark.parametrize("channels", [1, 5], ids=["in blocks", "at once"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reference", [None, 4])
def test_conv_block_matches_papers_definition(reference: int | None, stride: int, channels: int):
    """Value, gradient and a Hessian-vector product, with scales of both signs."""
    draw = normal(3)
    block = ConvBlock(channels, 3, stride=stride, key=jax.random.key(0))
    scales = lambda b: jax.tree.map(lambda leaf: jnp.asarray(draw(*leaf.shape)), b)
    block, direction, x = scales(block), scales(block), jnp.asarray(draw(6, 7, 7, channels))
    assert block.norm.scale.min() < 0 < block.norm.scale.max()

    def everything(layer) -> tuple:
        curved = lambda b: jnp.sum(jnp.sin(layer(b, x)))
        return layer(block, x), *jax.jvp(jax.grad(curved), (block,), (direction,))

    ours = everything(lambda b, x: b(x, reference))
    theirs = everything(lambda b, x: plain(b, x, reference))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        assert np.abs(b).max() > 1e-3


def test_conv_then_is_independent_of_block_size(monkeypatch: pytest.MonkeyPatch):
    """All images at once or one at a time, also in the derivative of the images."""
    draw = normal(4)
    x, w = jnp.asarray(draw(6, 5, 5, 2)), jnp.asarray(draw(3, 3, 2, 3))
    total = lambda x, w: jnp.sum(conv_then(jnp.tanh, x, w, 1))
    sizes, map_blocks = [], blockwise_conv.map_blocks
    recorded = lambda fn, x, size: (sizes.append(size), map_blocks(fn, x, size))[1]
    monkeypatch.setattr(blockwise_conv, "map_blocks", recorded)
    at_once = jax.value_and_grad(total, (0, 1))(x, w)
    monkeypatch.setattr(blockwise_conv, "BLOCK_BYTES", 5 * 5 * 3 * 8 * 2)
    in_blocks = jax.value_and_grad(total, (0, 1))(x, w)
    assert sizes == [6, 2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), at_once, in_blocks)
