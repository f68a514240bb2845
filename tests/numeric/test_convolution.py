"""Convolution by patches is XLA's convolution, and so are its first and second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numeric_cases import normal

from innerloop.kernels.conv import conv, conv_by_patches, conv_by_xla, patches, same_padding


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_value_and_derivatives(kernel: int, stride: int):
    """Value, gradient in both arguments, and the Hessian-vector product of a curved function of the output."""
    draw = normal(kernel + 10 * stride)
    x, w, dx, dw = draw(2, 5, 8, 2), draw(kernel, kernel, 2, 3), draw(2, 5, 8, 2), draw(kernel, kernel, 2, 3)

    def everything(convolve) -> tuple:
        curved = lambda x, w: jnp.sum(jnp.tanh(convolve(x, w, stride)))
        slopes = jax.grad(curved, (0, 1))
        return convolve(x, w, stride), *jax.jvp(slopes, (x, w), (dx, dw))

    ours, xla = jax.jit(lambda: (everything(conv_by_patches), everything(conv_by_xla)))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(xla), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
        assert np.abs(b).max() > 1e-3


@pytest.mark.parametrize("side", range(3, 9))
def test_a_single_window_by_hand(side: int):
    """Output (0, 0) of a SAME convolution of ones with ones counts the places inside the image."""
    before, _ = same_padding(side, 3, 2)
    ones = jnp.ones((1, side, side, 1))
    found = conv(ones, jnp.ones((3, 3, 1, 1)), 2)
    assert found.shape == (1, -(-side // 2), -(-side // 2), 1)
    assert found[0, 0, 0, 0] == (3 - before) ** 2


def test_patches_hold_every_window():
    """patch = (row offset, column offset, channel), checked element by element in the interior."""
    x = np.arange(2 * 5 * 5 * 2.0).reshape(2, 5, 5, 2)
    rows = patches(jnp.asarray(x), 3, 1)
    np.testing.assert_array_equal(rows[1, 2, 3], x[1, 1:4, 2:5].reshape(-1))


def test_the_backend_decides(monkeypatch: pytest.MonkeyPatch):
    """A CPU takes patches, anything else XLA's own operation."""
    used = lambda: str(
        jax.make_jaxpr(lambda x, w: conv(x, w))(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))
    )
    assert "conv_general_dilated" not in used()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in used()
