r"""Sinusoid regression: y = A sin(x - phase), or A sin(x + phase) in Reptile's protocol.

MAML (section 5.1, arXiv 1703.03400): A ~ U[0.1, 5], phase ~ U[0, pi], and x ~ U[-5, 5] for every example.
Reptile (section 4.1 and its published script, arXiv 1803.02999): phase ~ U[0, 2 pi]; x are 50 equally spaced points on
[-5, 5]; training uses all 50 as the support set, testing draws 10 of them with replacement; the error is measured on
all 50.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.engine.keys import check_key
from innerloop.engine.types import Batch, Task
from innerloop.errors import check_choice, check_count, check_flag

GRID_POINTS = 50


@dataclass(frozen=True)
class Sinusoid:
    """The distribution of sinusoid regression tasks; a task is one wave.

    Attributes:
        shots: number of points in the support set.
        queries: number of points in the query set; unused in Reptile's protocol, whose query set is the grid.
        protocol: "maml" or "reptile".
        oracle: whether amplitude and phase are given as two extra inputs (the upper bound in the MAML paper).

    Raises:
        InnerloopError: if the protocol is unknown, `shots` or `queries` is below 1, or `oracle` is not a boolean.
    """

    shots: int = 10
    queries: int = 10
    _: KW_ONLY
    protocol: Literal["maml", "reptile"] = "maml"
    oracle: bool = False

    def __post_init__(self) -> None:
        check_choice("Sinusoid", "protocol", self.protocol, ("maml", "reptile"))
        check_flag("Sinusoid", "oracle", self.oracle)
        check_count("Sinusoid", "shots", self.shots)
        check_count("Sinusoid", "queries", self.queries)

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw one wave and its points: inputs `[examples, 1]` (3 with the oracle), targets `[examples, 1]`."""
        check_key(key, "Sinusoid.sample")
        key_amplitude, key_phase, key_support, key_query = jax.random.split(key, 4)
        amplitude = jax.random.uniform(key_amplitude, minval=0.1, maxval=5.0)
        top = math.pi if self.protocol == "maml" else 2 * math.pi
        phase = jax.random.uniform(key_phase, maxval=top)
        if self.protocol == "maml":
            support = jax.random.uniform(key_support, (self.shots, 1), minval=-5.0, maxval=5.0)
            query = jax.random.uniform(key_query, (self.queries, 1), minval=-5.0, maxval=5.0)
        else:
            query = jnp.linspace(-5.0, 5.0, GRID_POINTS)[:, None]
            support = self._grid_support(key_support, query)
        return Task(self._batch(support, amplitude, phase), self._batch(query, amplitude, phase))

    def _grid_support(self, key: PRNGKeyArray, grid: Float[Array, "points 1"]) -> Float[Array, "shots 1"]:
        """The whole grid in random order, or `shots` of its points drawn with replacement."""
        if self.shots == GRID_POINTS:
            return jax.random.permutation(key, grid)
        return grid[jax.random.randint(key, (self.shots,), 0, GRID_POINTS)]

    def _batch(self, x: Float[Array, "examples 1"], amplitude: Array, phase: Array) -> Batch:
        """The values of the wave at x."""
        sign = -1 if self.protocol == "maml" else 1
        targets = amplitude * jnp.sin(x + sign * phase)
        if self.oracle:
            x = jnp.concatenate([x, jnp.full_like(x, amplitude), jnp.full_like(x, phase)], axis=1)
        return Batch(x, targets)
