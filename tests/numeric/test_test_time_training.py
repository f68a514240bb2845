"""The example of test-time training at toy size: finite differences in float64, and checkpoints that change nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples.test_time_training.algorithm import clipped
from examples.test_time_training.algorithm import test_time_training as time_training
from examples.test_time_training.decoder import Sizes, decoder

import innerloop as il


def problem(chunks: int = 3):
    """A model of 8 units, and a text of so many chunks of 4 bytes seen through windows of 5."""
    sizes = Sizes(width=8, heads=2, prefix=1, suffix=1, window=5, chunk=4, context=4 * chunks)
    draw = np.random.default_rng(0)
    double = lambda x: jnp.asarray(x + 0.1 * draw.normal(size=x.shape), jnp.float64)
    params = jax.tree.map(double, decoder(jax.random.key(0), sizes))
    text = jnp.asarray(draw.integers(0, 256, 4 * chunks + 1))
    return time_training(clipped(0.7), sizes), params, il.Task(text, ())


@pytest.fixture(scope="module")
def meta_grad():
    """Compiled once: that takes ten seconds."""
    with jax.enable_x64(True):
        return jax.jit(problem()[0].meta_grad)


def test_meta_gradient_matches_finite_differences(meta_grad):
    _, params, task = problem()
    grads, info = meta_grad(params, task)
    loss = lambda params: meta_grad(params, task)[1].outer_loss
    draw = np.random.default_rng(1)
    way = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape)), params)
    at = lambda step: loss(jax.tree.map(lambda x, d: x + step * d, params, way))
    slope = (8 * (at(1e-5) - at(-1e-5)) - (at(2e-5) - at(-2e-5))) / 12e-5
    expected = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, way)), strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)
    np.testing.assert_allclose(info.outer_loss, info.inner_losses.mean())


@pytest.mark.parametrize(("derivative", "checkpoints"), [("unrolled", None), ("mixed", 2)])
def test_derivative_modes_agree(derivative, checkpoints, meta_grad):
    algorithm, params, task = problem()
    other = replace(algorithm, inner=replace(algorithm.inner, derivative=derivative, checkpoints=checkpoints))
    found, _ = jax.jit(other.meta_grad)(params, task)
    expected, _ = meta_grad(params, task)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-12), found, expected)


def test_zero_step_size_matches_ordinary_attention():
    """With one chunk as long as the text nothing is learned, and chunks of a window as long give the same losses."""
    algorithm, params, task = problem()
    still = time_training(clipped(0.0), replace(algorithm.sizes, window=12))
    whole = time_training(clipped(0.0), replace(algorithm.sizes, window=12, chunk=12))
    losses = [jax.jit(one.trajectory)(params, task.support).aux.reshape(-1) for one in (still, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_memory_grows_with_the_square_root_of_the_chunks():
    """Compiled, not run: four times as many chunks take less than 2.5 times the memory."""

    def temporary(chunks: int) -> int:
        algorithm, params, task = problem(chunks)
        # The text's own activations in the prefix grow with it; here they are small beside the prime weights.
        wide = decoder(jax.random.key(0), replace(algorithm.sizes, width=64))
        algorithm = time_training(clipped(0.7), replace(algorithm.sizes, width=64))
        memory = jax.jit(algorithm.meta_grad).lower(wide, task).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    found = [temporary(chunks) for chunks in (4, 16, 64)]
    assert found[1] < 2.5 * found[0]
    assert found[2] < 2.5 * found[1]
