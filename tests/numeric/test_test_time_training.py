"""The example of test-time training at toy size: finite differences in float64, and checkpoints that change nothing."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import innerloop as il


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "test_time_training.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(example: ModuleType, chunks: int = 3):
    """A model of 8 units, and a text of so many chunks of 4 bytes seen through windows of 5."""
    sizes = example.Sizes(width=8, heads=2, prefix=1, suffix=1, window=5, chunk=4, context=4 * chunks)
    draw = np.random.default_rng(0)
    double = lambda x: jnp.asarray(x + 0.1 * draw.normal(size=x.shape), jnp.float64)
    params = jax.tree.map(double, example.decoder(jax.random.key(0), sizes))
    text = jnp.asarray(draw.integers(0, 256, 4 * chunks + 1))
    return example.test_time_training(example.clipped(0.7), sizes), params, il.Task(text, ())


def test_the_meta_gradient_is_that_of_finite_differences(example: ModuleType):
    algorithm, params, task = problem(example)
    grads, info = jax.jit(algorithm.meta_grad)(params, task)
    loss = jax.jit(lambda params: algorithm.meta_grad(params, task)[1].outer_loss)
    draw = np.random.default_rng(1)
    way = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape)), params)
    at = lambda step: loss(jax.tree.map(lambda x, d: x + step * d, params, way))
    slope = (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4
    expected = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, way)), strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)
    np.testing.assert_allclose(info.outer_loss, info.inner_losses.mean())


@pytest.mark.parametrize(("derivative", "checkpoints"), [("unrolled", None), ("mixed", 2)])
def test_ways_of_differentiating_are_one(example: ModuleType, derivative, checkpoints):
    algorithm, params, task = problem(example)
    other = replace(algorithm, inner=replace(algorithm.inner, derivative=derivative, checkpoints=checkpoints))
    expected, found = (jax.jit(one.meta_grad)(params, task)[0] for one in (algorithm, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-12), found, expected)


def test_without_steps_it_is_ordinary_attention(example: ModuleType):
    """With one chunk as long as the text nothing is learned, and chunks of a window as long give the same losses."""
    algorithm, params, task = problem(example)
    still = example.test_time_training(example.clipped(0.0), replace(algorithm.sizes, window=12))
    whole = example.test_time_training(example.clipped(0.0), replace(algorithm.sizes, window=12, chunk=12))
    losses = [jax.jit(one.trajectory)(params, task.support).aux.reshape(-1) for one in (still, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_memory_grows_with_the_square_root_of_the_chunks(example: ModuleType):
    """Compiled, not run: 16 times as many chunks take less than 6 times the memory beyond the text's own."""

    def temporary(chunks: int) -> int:
        algorithm, params, task = problem(example, chunks)
        # The text's own activations in the prefix grow with it; here they are small beside the prime weights.
        wide = example.decoder(jax.random.key(0), replace(algorithm.sizes, width=64))
        algorithm = example.test_time_training(example.clipped(0.7), replace(algorithm.sizes, width=64))
        memory = jax.jit(algorithm.meta_grad).lower(wide, task).compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    assert temporary(64) < 6 * temporary(4)
