"""Pictures as tasks: the examples of a picture are its pixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import innerloop as il
from innerloop.tasks.datasets import cifar, glyphs


class Pictures(NamedTuple):
    """The distribution over pictures; support and query are the same pixels, as in the papers."""

    places: Float[Array, "pixels 2"]
    pictures: Float[Array, "pictures pixels channels"]

    def task(self, number: int | jax.Array) -> il.Task:
        picture = il.Batch(self.places, self.pictures[number])
        return il.Task(picture, picture)

    def sample(self, key: jax.Array) -> il.Task:
        return self.task(jax.random.randint(key, (), 0, len(self.pictures)))


def load(folder: str | None, side: int) -> tuple[Pictures, Pictures]:
    """Training and test pictures, the middle `side` x `side` pixels of each."""
    splits = glyphs.load(size=side) if folder is None else cifar.load(root=folder)
    grid = jnp.linspace(-1, 1, side)
    places = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)

    def part(examples: np.ndarray) -> Pictures:
        first = (examples.shape[1] - side) // 2
        middle = examples[:, first : first + side, first : first + side]
        return Pictures(places, jnp.asarray(middle.reshape(len(middle), side * side, -1) / 255, jnp.float32))

    return part(splits.train.examples), part(splits.test.examples)
