"""Ordinary batches over all classes."""

import jax
import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.supervised import SupervisedBatches

COUNTS = (2, 6, 4)


def arrays() -> ClassArrays:
    rows = np.arange(sum(COUNTS), dtype=np.float32).reshape(-1, 1, 1, 1)
    return ClassArrays.from_lists(np.split(rows, np.cumsum(COUNTS)[:-1]), ["a", "b", "c"])


def test_classes_and_examples_are_equally_likely():
    """Labels are class numbers; counts within 4 standard deviations of a binomial's."""
    draws = 6000
    pooled = SupervisedBatches(arrays(), draws)
    task = jax.jit(lambda key: pooled.sample(key))(jax.random.key(0))
    rows, labels = np.asarray(task.query.inputs).ravel().astype(int), np.asarray(task.query.targets)
    np.testing.assert_array_equal(labels, np.repeat(np.arange(3), COUNTS)[rows])
    seen = np.bincount(rows, minlength=sum(COUNTS))
    chance = np.repeat(1 / 3 / np.array(COUNTS), COUNTS)
    assert (np.abs(seen - draws * chance) < 4 * np.sqrt(draws * chance * (1 - chance))).all()
    np.testing.assert_array_equal(task.support.inputs, task.query.inputs)


def test_supervised_batches_can_be_passed_to_jit():
    """Its arrays alone are data; the size of a batch decides shapes."""
    pooled, key = SupervisedBatches(arrays(), 3), jax.random.key(0)
    drawn = jax.jit(lambda pooled, key: pooled.sample(key))(pooled, key)
    jax.tree.map(np.testing.assert_array_equal, drawn, pooled.sample(key))


def test_empty_batch_raises():
    with pytest.raises(InnerloopError, match="`batch` must be 1 or more, got 0"):
        SupervisedBatches(arrays(), 0)
