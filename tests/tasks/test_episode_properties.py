"""Episodes of any shape: disjoint, complete, rightly labelled, over classes of any sizes and images of any kind."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.episodes import EpisodeRows, Episodes, with_rotations


class Kind(NamedTuple):
    """Class sizes, shape and type of an image, and the seed of its values."""

    counts: list[int]
    shape: tuple[int, int, int]
    dtype: Any
    seed: int


sides = st.one_of(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from((1, 3))),
    st.integers(1, 5).map(lambda side: (side, side, 1)),
)
sizes = st.lists(st.integers(1, 6), min_size=1, max_size=6)
kinds = st.builds(Kind, sizes, sides, st.sampled_from((np.uint8, np.float32)), st.integers(0, 2**32 - 1))


def class_arrays(kind: Kind) -> ClassArrays:
    """Random examples of that kind."""
    counts, shape, dtype, seed = kind
    rng = np.random.default_rng(seed)
    per_class = [rng.integers(0, 256, (count, *shape)).astype(dtype) for count in counts]
    return ClassArrays.from_lists(per_class, [str(i) for i in range(len(counts))])


episode = st.tuples(st.integers(-1, 6), st.integers(-1, 4), st.integers(-1, 4))


def possible(arrays: ClassArrays, ways: int, shots: int, queries: int) -> bool:
    """Whether there are such episodes."""
    sound = ways >= 1 and shots >= 1 and queries >= 0
    return sound and arrays.classes >= ways and int(arrays.counts.min()) >= shots + queries


def check_rows(arrays: ClassArrays, task: Any, ways: int, shots: int, queries: int) -> None:
    """Equal numbers of every label, one class for one label in both sets, no example twice, none that is not there."""
    support, query = np.asarray(task.support.inputs), np.asarray(task.query.inputs)
    every = np.concatenate([support, query])
    labels = np.concatenate([np.asarray(task.support.targets), np.asarray(task.query.targets)])
    assert len(set(every.tolist())) == ways * (shots + queries)
    class_of = np.repeat(np.arange(arrays.classes), arrays.counts)[every]
    assert np.bincount(labels[: len(support)], minlength=ways).tolist() == [shots] * ways
    assert np.bincount(labels[len(support) :], minlength=ways).tolist() == [queries] * ways
    assert len(set(zip(labels.tolist(), class_of.tolist(), strict=True))) == ways
    assert len(set(class_of.tolist())) == ways


@given(kind=kinds, asked=episode, seed=st.integers(0, 2**31 - 1))
@settings(max_examples=40)
def test_episode_is_valid_or_raises(kind: Kind, asked: tuple[int, int, int], seed: int):
    """Impossible ones are refused, by both samplers; the others hold what they should."""
    arrays = class_arrays(kind)
    if not possible(arrays, *asked):
        for sampler in (Episodes, EpisodeRows):
            with pytest.raises(InnerloopError):
                sampler(arrays, *asked)
        return
    with jax.disable_jit():  # compiling each shape would take a second
        rows = EpisodeRows(arrays, *asked).sample(jax.random.key(seed))
        task = Episodes(arrays, *asked).sample(jax.random.key(seed))
    check_rows(arrays, rows, *asked)
    scale = np.float32(1 / 255) if arrays.examples.dtype == np.uint8 else np.float32(1)
    for part, at in zip(task, rows, strict=True):
        wanted = arrays.examples[np.asarray(at.inputs)].astype(np.float32) * scale
        np.testing.assert_array_equal(part.inputs, wanted)
        np.testing.assert_array_equal(part.targets, at.targets)


@given(kind=kinds)
@settings(max_examples=40)
def test_with_rotations_turns_square_images_or_raises(kind: Kind):
    """Four classes of each, whose pictures are the old ones turned; only square pictures can be turned by quarters."""
    arrays = class_arrays(kind)
    if arrays.shape[0] != arrays.shape[1]:
        with pytest.raises(InnerloopError):
            with_rotations(arrays)
        return
    turned = with_rotations(arrays)
    assert turned.classes == 4 * arrays.classes
    for i in range(turned.classes):
        quarter, own = divmod(i, arrays.classes)
        np.testing.assert_array_equal(turned.rows(i), np.rot90(arrays.rows(own), quarter, axes=(1, 2)))
