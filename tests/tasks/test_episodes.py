"""Episodes: disjoint, shuffled, uniform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.engine.types import TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.episodes import Episodes, _after_swaps, _draw_distinct, with_rotations

COUNTS = (4, 7, 5, 9)


def arrays(dtype: Any = np.float32) -> ClassArrays:
    """Pixel value = row number, so that every example says which it is; classes of unequal size."""
    rows = np.arange(sum(COUNTS), dtype=dtype).reshape(-1, 1, 1, 1)
    ends = np.cumsum(COUNTS)
    per_class = [rows[end - count : end] for end, count in zip(ends, COUNTS, strict=True)]
    return ClassArrays.from_lists(per_class, ["a", "b", "c", "d"])


def many(ways: int, shots: int, queries: int, tasks: int = 400):
    """Rows and labels of many episodes: support rows, support labels, query rows, query labels."""
    sample = jax.jit(jax.vmap(Episodes(arrays(), ways, shots, queries).sample))
    task = sample(jax.random.split(jax.random.key(0), tasks))
    rows = lambda batch: np.asarray(batch.inputs).reshape(tasks, -1).astype(int)
    return (
        rows(task.support),
        np.asarray(task.support.targets),
        rows(task.query),
        np.asarray(task.query.targets),
    )


CLASS_OF = np.repeat(np.arange(4), COUNTS)


@pytest.mark.parametrize(("ways", "shots", "queries"), [(3, 1, 3), (2, 2, 1), (4, 3, 1), (1, 1, 1)])
def test_support_and_query_are_disjoint_with_same_labels(ways: int, shots: int, queries: int):
    """Distinct examples, none in both sets; every label stands for one class, in both sets alike."""
    support, support_labels, query, query_labels = many(ways, shots, queries)
    assert support.shape == (400, ways * shots)
    assert query.shape == (400, ways * queries)
    for t in range(400):
        assert len({*support[t], *query[t]}) == ways * (shots + queries)
        stands_for = dict(zip(support_labels[t], CLASS_OF[support[t]], strict=True))
        assert len(set(stands_for.values())) == ways
        assert [stands_for[y] for y in query_labels[t]] == CLASS_OF[query[t]].tolist()
        assert np.bincount(support_labels[t], minlength=ways).tolist() == [shots] * ways
        assert np.bincount(query_labels[t], minlength=ways).tolist() == [queries] * ways


def test_classes_draw_examples_independently():
    """Two classes of ten examples choose the same number of them in about one of ten episodes, not in all."""
    rows = np.arange(20, dtype=np.float32).reshape(2, 10, 1, 1, 1)
    episodes = Episodes(ClassArrays.from_lists(list(rows), ["a", "b"]), 2, 1, 1)
    drawn = jax.jit(jax.vmap(episodes.sample))(jax.random.split(jax.random.key(0), 400))
    for batch in drawn:
        numbers = np.asarray(batch.inputs).reshape(400, 2) % 10
        alike = np.mean(numbers[:, 0] == numbers[:, 1])
        assert abs(alike - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)


def chi_square(observed: np.ndarray) -> float:
    """Standardised distance from uniform: (chi^2 - df) / sqrt(2 df), about normal for many cells."""
    expected = observed.sum() / observed.size
    df = observed.size - 1
    return float((np.square(observed - expected).sum() / expected - df) / np.sqrt(2 * df))


@pytest.mark.parametrize(("count", "total"), [(1, 3), (3, 3), (3, 5), (4, 20)])
def test_draw_distinct_is_uniform(count: int, total: int):
    """All ordered draws equally often (or each number at each place): within 4 deviations, at a fixed key."""
    draws = 8000
    keys = jax.random.split(jax.random.key(1), draws)
    found = np.asarray(jax.jit(jax.vmap(lambda key: _draw_distinct(key, count, total)))(keys))
    assert found.min() == 0
    assert found.max() == total - 1
    assert all(len(set(row)) == count for row in found)
    for place in range(count):
        assert chi_square(np.bincount(found[:, place], minlength=total)) < 4
    if total**count <= 125:
        codes = found @ (total ** np.arange(count))
        seen = np.bincount(codes, minlength=total**count)
        ordered = int(np.prod(np.arange(total, total - count, -1)))
        assert (seen > 0).sum() == ordered
        assert chi_square(seen[seen > 0]) < 4


@pytest.mark.parametrize(("count", "total"), [(1, 1), (2, 2), (5, 6), (16, 16), (16, 20), (33, 40)])
def test_after_swaps_matches_sequential_swaps(count: int, total: int):
    """Against a shuffle that swaps one pair after the other, for random partners and the longest chain of moves."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(np.arange(count), total, size=(200, count))
    next_ones = np.minimum(np.arange(count) + 1, total - 1)  # place 0's number travels through all places
    at_once = jax.jit(jax.vmap(_after_swaps))
    for partners in (drawn, next_ones[None], np.full((1, count), total - 1)):
        expected = []
        for row in partners:
            places = np.arange(total)
            for i, r in enumerate(row):
                places[[i, r]] = places[[r, i]]
            expected.append(places[:count])
        np.testing.assert_array_equal(at_once(jnp.asarray(partners)), expected)


def test_draw_distinct_accepts_traced_total():
    key = jax.random.key(2)
    traced = jax.jit(lambda total: _draw_distinct(key, 3, total))(jnp.asarray(9))
    np.testing.assert_array_equal(traced, _draw_distinct(key, 3, 9))


def test_classes_and_examples_are_drawn_uniformly():
    """Classes uniformly whatever their size, then examples uniformly within their class."""
    support, labels, _, _ = many(2, 1, 1, 6000)
    classes = CLASS_OF[support]
    assert chi_square(np.bincount(classes.ravel(), minlength=4)) < 4
    for c, count in enumerate(COUNTS):
        rows = support[classes == c]
        assert chi_square(np.bincount(rows - rows.min(), minlength=count)) < 4
    # label 0 is as often any class as label 1 is: labels are permuted anew in every episode
    assert chi_square(np.bincount(classes[labels == 0], minlength=4)) < 4


def test_support_set_is_shuffled():
    """Its first example has every label equally often; the query set is in order."""
    _, labels, _, query_labels = many(4, 2, 1, 2000)
    assert chi_square(np.bincount(labels[:, 0], minlength=4)) < 4
    assert (labels[:, :4] != labels[:, :1]).any(1).mean() > 0.9
    assert (query_labels == np.arange(4)).all()


def test_uint8_inputs_are_scaled_to_unit_range():
    task = Episodes(arrays(np.uint8), 4, 3, 1).sample(jax.random.key(0))
    assert task.support.inputs.dtype == jnp.float32
    rows = np.concatenate([np.asarray(b.inputs).ravel() for b in (task.support, task.query)]) * 255
    np.testing.assert_allclose(rows, np.round(rows), atol=1e-5)
    assert rows.max() > 2


def test_zero_queries_give_empty_query_set():
    task = Episodes(arrays(), 2, 3, 0).sample(jax.random.key(0))
    assert task.query.inputs.shape == (0, 1, 1, 1)


def test_with_rotations_adds_quarter_turns():
    """Four classes from each, turned by quarters; examples of a class stay together."""
    images = np.arange(2 * 3 * 2 * 2 * 1, dtype=np.uint8).reshape(2, 3, 2, 2, 1)
    turned = with_rotations(ClassArrays.from_lists(list(images), ["a", "b"]))
    assert turned.names == ("a/0", "b/0", "a/90", "b/90", "a/180", "b/180", "a/270", "b/270")
    for i, name in enumerate(turned.names):
        original = images["ab".index(name[0])]
        quarter = int(name[2:]) // 90
        np.testing.assert_array_equal(turned.rows(i), np.rot90(original, quarter, (1, 2)))
    # by hand: a quarter turn against the clock of [[0, 1], [2, 3]]
    np.testing.assert_array_equal(turned.rows(2)[0, :, :, 0], [[1, 3], [0, 2]])


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "message"),
    [
        (5, 1, 1, "5 ways need as many classes, got 4; lower `ways`"),
        (2, 3, 2, "3 shots and 2 queries need 5 examples of every class, got 4 of 'a'; lower"),
        (0, 1, 1, "1 or more"),
        (1, 0, 1, "1 or more"),
        (1, 1, -1, "0 or more"),
    ],
)
def test_invalid_arguments_raise(ways: int, shots: int, queries: int, message: str):
    with pytest.raises(InnerloopError, match=message):
        Episodes(arrays(), ways, shots, queries)


def test_draw_and_fetch_match_sample():
    """The rows of many tasks drawn at once, and each fetched in its turn, are the tasks that `sample` draws."""
    episodes, keys = Episodes(arrays(), 3, 2, 1), jax.random.split(jax.random.key(1), 20)
    assert isinstance(episodes, TwoStageSampler)
    drawn = jax.jit(jax.vmap(episodes.draw))(keys)
    found = jax.lax.map(episodes.fetch, drawn)
    jax.tree.map(np.testing.assert_array_equal, found, jax.jit(jax.vmap(episodes.sample))(keys))
