"""Winograd's convolution is the convolution: exactly in fractions, to rounding in floats, and in every derivative."""

from collections.abc import Callable
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.nn.kernels import winograd
from innerloop.nn.kernels.cpu_conv import conv_p
from innerloop.nn.kernels.im2col import conv_by_xla, kernel_gradient_by_patches


def test_one_dimensional_winograd_is_exact_in_fractions():
    """A^T [(G w) * (B^T d)] is the two windows of d times w, for a basis of all w and d."""
    exactly = lambda matrix: np.array([[Fraction(c) for c in row] for row in matrix])
    a_t, g, b_t = map(exactly, (winograd.A_T, winograd.G, winograd.B_T))
    for w in np.eye(3, dtype=int):
        for d in np.eye(4, dtype=int):
            found = a_t @ ((g @ w) * (b_t @ d))
            assert list(found) == [d[:3] @ w, d[1:] @ w]


@pytest.mark.parametrize("sides", [(6, 6), (7, 9), (8, 5), (1, 2)])
def test_winograd_value_and_kernel_gradient_match_direct_conv(sides: tuple[int, int]):
    """In float64, for even and odd sides."""
    draw = normal(sides[0])
    x, w, y = draw(6, *sides, 5), draw(3, 3, 5, 4), draw(6, *sides, 4)
    np.testing.assert_allclose(winograd.conv_by_tiles(x, w), conv_by_xla(x, w), rtol=1e-12, atol=1e-12)
    found, direct = winograd.kernel_gradient_by_tiles(x, y), kernel_gradient_by_patches(x, y, 1, 3)
    np.testing.assert_allclose(found, direct, rtol=1e-12, atol=1e-12)


def test_winograd_in_blocks_matches_single_block(monkeypatch: pytest.MonkeyPatch):
    draw = normal(0)
    x, w, y = draw(6, 4, 4, 2), draw(3, 3, 2, 3), draw(6, 4, 4, 3)
    whole = winograd.conv_by_tiles(x, w), winograd.kernel_gradient_by_tiles(x, y)
    assert winograd._block_size(x, 3) == 6
    monkeypatch.setattr(winograd, "BLOCK_BYTES", 2 * 16 * 4 * 5 * 8)  # two images of float64
    assert winograd._block_size(x, 3) == 2
    parts = winograd.conv_by_tiles(x, w), winograd.kernel_gradient_by_tiles(x, y)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


def test_conv_uses_winograd_with_correct_derivatives():
    """The primitive in float32: value, gradients and second derivatives beside XLA's own convolution in float64."""
    draw = normal(3)
    x, w, dx, dw = draw(2, 7, 6, 64), draw(3, 3, 64, 64) / 24, draw(2, 7, 6, 64), draw(3, 3, 64, 64)

    def everything(convolve) -> Callable:
        slopes = jax.grad(lambda x, w: jnp.sum(jnp.tanh(convolve(x, w))), (0, 1))
        return lambda x, w, dx, dw: (convolve(x, w), jax.jvp(slopes, (x, w), (dx, dw)))

    single = [a.astype(jnp.float32) for a in (x, w, dx, dw)]
    ours = jax.jit(everything(lambda x, w: conv_p.bind(x, w, stride=1)))
    found, expected = ours(*single), jax.jit(everything(conv_by_xla))(x, w, dx, dw)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() < 2e-6 * np.abs(b).max()
    assert "f32[16," in str(jax.make_jaxpr(lambda x, w: winograd.conv_by_tiles(x, w))(*single[:2]))
    assert "tensor<16x" in ours.lower(*single).as_text()


@pytest.mark.parametrize(
    ("side", "kernel", "channels", "stride", "dtype", "pays"),
    [
        (14, 3, 64, 1, jnp.float32, True),
        (14, 3, 64, 2, jnp.float32, False),
        (14, 5, 64, 1, jnp.float32, False),
        (5, 3, 64, 1, jnp.float32, False),
        (14, 3, 16, 1, jnp.float32, False),
        (14, 3, 64, 1, jnp.float64, False),
    ],
)
def test_winograd_is_faster_only_for_suitable_shapes(
    side: int, kernel: int, channels: int, stride: int, dtype, pays: bool
):
    x = jnp.zeros((1, side, side, channels), dtype)
    assert winograd.is_faster(x, (kernel, kernel, channels, 64), stride) == pays
