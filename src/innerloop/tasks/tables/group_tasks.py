"""Groups of rows as tasks: some rows of a group form the support set, all others the query set."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from innerloop.engine.types import Batch, FiniteTasks, Task
from innerloop.errors import InnerloopError, check_count
from innerloop.io.text import counted


class GroupTasks(FiniteTasks, eqx.Module):
    """A distribution of tasks over groups of rows. Groups may have different numbers of rows, and all rows are used.

    `sample` draws a group, all equally likely; `evaluate` takes each group once. A key decides which rows of the group
    form the support set. In smaller groups the sets are padded, and the `mask` of their batches excludes the padding.

    Attributes:
        inputs: the rows of all groups, group by group, `[rows, ...]`.
        targets: the values to predict, `[rows, ...]`.
        starts: the first row of each group.
        counts: the number of rows of each group.
        names: the names of the groups.
        shots: number of support rows; a group that is too small uses all rows but one (None: half of each group).
        queries: maximum number of query rows (None: all others).
        gap: for rows in chronological order: the support set is a run of consecutive rows, and the query rows follow
            it after skipping `gap` rows (None: rows are drawn in random order).
    """

    inputs: Float[Array, "rows ..."]
    targets: Array
    starts: Int[Array, " groups"]
    counts: Int[Array, " groups"]
    names: tuple[str, ...] = eqx.field(static=True)
    shots: int | None = eqx.field(static=True)
    queries: int | None = eqx.field(static=True)
    gap: int | None = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        inputs: np.ndarray | Array,
        targets: np.ndarray | Array,
        counts: np.ndarray,
        names: tuple[str, ...],
        *,
        shots: int | None = None,
        queries: int | None = None,
        gap: int | None = None,
    ):
        """Put the rows on the device.

        Args:
            inputs: the rows, group by group, `[rows, ...]`.
            targets: the values to predict, `[rows, ...]`.
            counts: the number of rows of each group, `[groups]`.
            names: the names of the groups.
            shots: see the attribute.
            queries: see the attribute.
            gap: see the attribute.

        Raises:
            InnerloopError: if there is no group, a group has too few rows, or `shots` or `queries` is below 1.
        """
        _check(counts, names, shots, queries, gap)
        self.inputs, self.targets = jnp.asarray(inputs), jnp.asarray(targets)
        self.starts, self.counts = (jnp.asarray(x, jnp.int32) for x in (np.cumsum(counts) - counts, counts))
        self.names, self.shots, self.queries, self.gap = names, shots, queries, gap
        self.sizes = tuple(int(count) for count in counts)

    def __repr__(self) -> str:
        size = f"{counted(len(self), 'group')}, {counted(sum(self.sizes), 'row')}"
        return f"<GroupTasks: {size}, shots={self.shots}, queries={self.queries}, gap={self.gap}>"

    def __len__(self) -> int:
        """The number of groups."""
        return len(self.names)

    def draws(self, shots: int | None, queries: int | None = None) -> "GroupTasks":
        """The same groups with other numbers of support and query rows. Raises InnerloopError like the constructor."""
        counts = np.array(self.sizes)
        return GroupTasks(
            self.inputs, self.targets, counts, self.names, shots=shots, queries=queries, gap=self.gap
        )

    def largest(self) -> dict[str, int]:
        """The number of groups, and the numbers of rows of the largest support and query sets."""
        shots, queries = self._widths()
        return {"groups": len(self), "shots": shots, "queries": queries}

    def task(self, number: int | Array, key: PRNGKeyArray) -> Task:
        """The task of one group: inputs `[support, ...]` and `[query, ...]`, and likewise targets.

        Args:
            number: index of the group.
            key: decides which rows form the support set.
        """
        start, count = self.starts[number], self.counts[number]
        taken = self._taken(count)
        left = count - taken - (self.gap or 0)
        if self.gap is None:
            order, first, second = _shuffled(key, count, max(self.sizes)), 0, taken
        else:
            first = jax.random.randint(key, (), 0, left)  # early enough to leave a query row
            order, second = jnp.arange(max(self.sizes)), first + taken + self.gap
            left = left - first
        supports, queries = self._widths()
        return Task(
            self._batch(start, order, first + jnp.arange(supports), jnp.arange(supports) < taken),
            self._batch(start, order, second + jnp.arange(queries), jnp.arange(queries) < left),
        )

    def _taken(self, count: Int[Array, "..."]) -> Int[Array, "..."]:
        """The number of support rows in a group of `count` rows."""
        maximum = count - 1 - (self.gap or 0)
        return jnp.minimum(self.shots, maximum) if self.shots is not None else (maximum + 1) // 2

    def _widths(self) -> tuple[int, int]:
        """The numbers of rows in support and query set, padding included."""
        counts = np.array(self.sizes) - (self.gap or 0)
        taken = np.minimum(self.shots, counts - 1) if self.shots is not None else counts // 2
        return int(taken.max()), int(min((counts - taken).max(), self.queries or len(self.inputs)))

    def _batch(self, start: Array, order: Array, places: Array, mask: Bool[Array, " examples"]) -> Batch:
        """The rows at these places in the group's order, with zeros where the mask is off."""
        rows = jnp.where(mask, start + order[jnp.minimum(places, len(order) - 1)], start)
        zeroed = lambda x: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x[rows], jnp.zeros((), x.dtype))
        ragged = len(set(self.sizes)) > 1 or self.gap is not None
        return Batch(zeroed(self.inputs), zeroed(self.targets), mask if ragged else None)


def _shuffled(key: PRNGKeyArray, count: Int[Array, ""], maximum: int) -> Int[Array, " maximum"]:
    """The integers below `count` in random order, followed by the others below `maximum`."""
    noise = jax.random.uniform(key, (maximum,))
    return jnp.argsort(jnp.where(jnp.arange(maximum) < count, noise, 2.0))


def _check(
    counts: np.ndarray, names: tuple[str, ...], shots: int | None, queries: int | None, gap: int | None
) -> None:
    """Raise InnerloopError unless every group has at least one support row and one query row."""
    for name, value in (("shots", shots), ("queries", queries)):
        if value is not None:
            check_count("GroupTasks", name, value)
    if len(counts) == 0:
        raise InnerloopError("GroupTasks", "there must be at least one group", got=0)
    minimum = 2 + (gap or 0)
    if counts.min() < minimum:
        got = f"{counts.min()} in {names[int(counts.argmin())]!r}"
        raise InnerloopError(
            "GroupTasks", f"every group needs {minimum} rows", got=got, hint="leave the group out"
        )
