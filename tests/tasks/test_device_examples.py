"""Packed or not, a row is what was stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.tasks.device_examples import DeviceExamples


@pytest.mark.parametrize(("shape", "packed"), [((6, 4, 1), True), ((3, 3, 1), False), ((4,), True)])
def test_uint8_rows_are_scaled_to_unit_range(shape: tuple[int, ...], packed: bool):
    stored = np.random.default_rng(0).integers(0, 256, (9, *shape), np.uint8)
    resident, rows = DeviceExamples(stored), np.array([8, 0, 3, 3])
    assert resident.packed == packed
    found = jax.jit(lambda resident, rows: resident[rows])(resident, rows)
    np.testing.assert_allclose(found, stored[rows] / np.float32(255), rtol=2e-7)


def test_floats_and_integers_are_unchanged():
    for dtype in (np.float32, np.int32):
        stored = np.arange(24, dtype=dtype).reshape(3, 8) - 7
        found = DeviceExamples(stored)[jnp.array([2, 1])]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, stored[[2, 1]])
