"""N-way K-shot episodes from class arrays, sampled inside `jit` on the device.

An episode draws `ways` classes, then `shots + queries` distinct examples of each; the first `shots` are the support
set and the rest the query set, so the two are disjoint. Classes are numbered in the order drawn, so labels are permuted
in every episode. The support set is shuffled, so that consecutive examples are random minibatches.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from innerloop.engine.types import Batch, Task, TwoStageSampler
from innerloop.errors import InnerloopError, check_count
from innerloop.io.text import counted
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.device_examples import DeviceExamples


def _draw_distinct(key: PRNGKeyArray, count: int, total: int | Int[Array, ""]) -> Int[Array, " count"]:
    """Draw `count` distinct integers below `total` in random order, at a cost that does not grow with `total`.

    These are the first `count` swaps of a Fisher-Yates shuffle: position i is swapped with position r_i, drawn from
    i..total-1.
    """
    return _after_swaps(jax.random.randint(key, (count,), jnp.arange(count), total))


def _after_swaps(partners: Int[Array, " count"]) -> Int[Array, " count"]:
    """The first `count` elements of 0, 1, 2, ... after swapping position i with position r_i >= i, for each i in turn.

    This is computed in parallel. Position p holds p until some swap j moves there what position j held just before. So
    swap i brings r_i to position i, or, if j < i was the last swap with r_j = r_i, what position j held before swap j.
    Position j held j, or, if k < j was the last swap with r_k = j, what position k held before swap k. Following this
    last chain to its end takes log2(count) doublings.
    """
    count = len(partners)
    swap = jnp.arange(count)

    def last_before(places: Array) -> Array:
        """For each i, the last j < i with r_j = places_i, or -1."""
        hits = (partners[None] == places[:, None]) & (swap[None] < swap[:, None])
        return jnp.where(hits, swap, -1).max(1)

    found, before = last_before(partners), last_before(swap)
    origin = jnp.where(before < 0, swap, before)
    for _ in range((count - 1).bit_length()):
        origin = origin[origin]
    return jnp.where(found < 0, partners, origin[found])


def with_rotations(arrays: ClassArrays) -> ClassArrays:
    """Turn each class into four, with images rotated by 0, 90, 180 and 270 degrees (Finn et al. 2017, section 5.2).

    Raises:
        InnerloopError: if the images are not square.
    """
    if arrays.shape[0] != arrays.shape[1]:
        got = "{} x {}".format(*arrays.shape[:2])
        hint = "resize the images, or leave the rotations out"
        raise InnerloopError(
            "rotations", "only square images can be rotated by 90 degrees", got=got, hint=hint
        )
    turned = [np.rot90(arrays.examples, quarter, axes=(1, 2)) for quarter in range(4)]
    starts = [arrays.starts + quarter * len(arrays.examples) for quarter in range(4)]
    names = rotated_names(arrays.names)
    return ClassArrays(np.concatenate(turned), np.concatenate(starts), np.tile(arrays.counts, 4), names)


def rotated_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes that `with_rotations` makes, in their order."""
    return tuple(f"{name}/{90 * quarter}" for quarter in range(4) for name in names)


class EpisodeRows(eqx.Module):
    """A distribution over the rows and labels of episodes; `Episodes` fetches their examples.

    Attributes:
        starts: the first row of each class.
        counts: the number of rows of each class.
        ways: classes per episode.
        shots: support examples per class.
        queries: query examples per class.
    """

    starts: Int[Array, " classes"]
    counts: Int[Array, " classes"]
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)

    def __init__(self, arrays: ClassArrays, ways: int, shots: int, queries: int):
        """Raises InnerloopError if there are too few classes, or too few examples of a class."""
        check_episode(arrays, ways, shots, queries)
        self.starts, self.counts = jnp.asarray(arrays.starts), jnp.asarray(arrays.counts)
        self.ways, self.shots, self.queries = ways, shots, queries

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one episode: row indices and labels, `[ways*shots]` and `[ways*queries]` each."""
        _, key_examples, key_order = jax.random.split(key, 3)
        classes = self.classes(key)
        keys = jax.random.split(key_examples, self.ways)
        per_class = lambda key, total: _draw_distinct(key, self.shots + self.queries, total)
        rows = self.starts[classes][:, None] + jax.vmap(per_class)(keys, self.counts[classes])
        order = jax.random.permutation(key_order, self.ways * self.shots)
        support, query = self._labelled(rows[:, : self.shots]), self._labelled(rows[:, self.shots :])
        return Task(Batch(support.inputs[order], support.targets[order]), query)

    def classes(self, key: PRNGKeyArray) -> Int[Array, " ways"]:
        """The class numbers of this key's episode, in the order of its labels."""
        return _draw_distinct(jax.random.split(key, 3)[0], self.ways, len(self.starts))

    def _labelled(self, rows: Int[Array, "ways each"]) -> Batch:
        """The rows as one array, labelled by class number."""
        return Batch(rows.reshape(-1), jnp.repeat(jnp.arange(self.ways), rows.shape[1]))


class Episodes(TwoStageSampler, eqx.Module):
    """The distribution of N-way K-shot episodes over a set of classes, as a pytree whose leaves hold the examples.

    Unsigned bytes are scaled to [0, 1] when drawn.

    Attributes:
        ways: classes per episode.
        shots: support examples per class.
        queries: query examples per class.
    """

    examples: DeviceExamples
    rows: EpisodeRows

    def __init__(self, arrays: ClassArrays, ways: int, shots: int, queries: int):
        """Put the examples on the device.

        Args:
            arrays: the classes.
            ways: classes per episode.
            shots: support examples per class.
            queries: query examples per class.

        Raises:
            InnerloopError: if there are too few classes, or too few examples of a class.
        """
        self.rows = EpisodeRows(arrays, ways, shots, queries)
        self.examples = DeviceExamples(arrays.examples)

    ways = property(lambda self: self.rows.ways)
    shots = property(lambda self: self.rows.shots)
    queries = property(lambda self: self.rows.queries)

    def draw(self, key: PRNGKeyArray) -> Task:
        """Draw the rows and labels of one episode."""
        return self.rows.sample(key)

    def fetch(self, drawn: Task) -> Task:
        """The episode: inputs `[ways*shots, height, width, channels]`, targets `[ways*shots]`; the query set too."""
        return Task(*(Batch(self.examples[batch.inputs], batch.targets) for batch in drawn))


def check_episode(
    arrays: ClassArrays,
    ways: int,
    shots: int,
    queries: int,
    who: str = "Episodes",
    hint: str = "lower `shots` or `queries`, or leave the class out",
    more_classes: str = "lower `ways` or add classes",
) -> None:
    """Raise InnerloopError, on behalf of `who`, unless the classes suffice for such an episode.

    `hint` says what to do about a class with too few examples, `more_classes` about too few classes.
    """
    if not isinstance(arrays, ClassArrays):
        got = type(arrays).__name__
        how = "pass innerloop.ClassArrays.from_lists(arrays, names), for example"
        raise InnerloopError(who, "`arrays` must be class arrays", got=got, hint=how)
    for name, count, minimum in (("ways", ways, 1), ("shots", shots, 1), ("queries", queries, 0)):
        check_count(who, name, count, minimum)
    if arrays.classes < ways:
        wrong = f"{ways} ways need as many classes"
        raise InnerloopError(who, wrong, got=arrays.classes, hint=more_classes)
    smallest = int(np.argmin(arrays.counts))
    if arrays.counts[smallest] < shots + queries:
        given = f"{counted(shots, 'shot')} and {counted(queries, 'query', 'queries')}"
        wrong = f"{given} need {counted(shots + queries, 'example')} of every class"
        got = f"{arrays.counts[smallest]} of {arrays.names[smallest]!r}"
        raise InnerloopError(who, wrong, got=got, hint=hint)
