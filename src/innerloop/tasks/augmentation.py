"""Random flips, crops and rotations of images, for training.

Every image of a task is changed independently, in one bilinear interpolation: mirrored, shifted by whole pixels, and
rotated about its centre. Pixels beyond the border take the nearest value. Without rotation, pixel values are preserved.
"""

import math
from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from innerloop.engine.distribution import check_samples
from innerloop.engine.types import Task, TaskDistribution, TwoStageSampler
from innerloop.errors import InnerloopError, check_count, check_flag

WHO = "Augmented"


class Augmented(TwoStageSampler, eqx.Module):
    """Tasks with randomly changed images, support and query sets alike.

    Attributes:
        tasks: a distribution of tasks whose inputs are images, `[examples, height, width, channels]`.
        flip: whether to mirror images left to right, with probability one half.
        crop: the largest shift in pixels, along both axes; equivalent to a random crop after padding.
        rotation: the largest rotation in degrees, in either direction.
    """

    tasks: TaskDistribution
    _: KW_ONLY
    flip: bool = eqx.field(static=True, default=False)
    crop: int = eqx.field(static=True, default=0)
    rotation: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        """Raise InnerloopError unless `crop` and `rotation` are finite and not negative, and the others fit."""
        check_samples(self.tasks, WHO)
        check_flag(WHO, "flip", self.flip)
        check_count(WHO, "crop", self.crop, 0)
        if not isinstance(self.rotation, (int, float)) or not 0 <= self.rotation < math.inf:
            raise InnerloopError(WHO, "`rotation` must be a number of degrees, 0 or more", got=self.rotation)

    def draw(self, key: PRNGKeyArray) -> PyTree:
        """Draw what determines one task, and a key for its augmentation."""
        key, changes = jax.random.split(key)
        return self.tasks.draw(key) if isinstance(self.tasks, TwoStageSampler) else key, changes

    def fetch(self, drawn: PyTree) -> Task:
        """The task with changed images. Raises InnerloopError if its inputs are not images."""
        chosen, key = drawn
        tasks = self.tasks
        task = tasks.fetch(chosen) if isinstance(tasks, TwoStageSampler) else tasks.sample(chosen)
        keys = jax.random.split(key)
        support, query = (self._changed(k, b.inputs) for k, b in zip(keys, task, strict=True))
        return Task(task.support._replace(inputs=support), task.query._replace(inputs=query))

    def _changed(self, key: PRNGKeyArray, images: PyTree) -> Array:
        if not isinstance(images, jax.Array) or images.ndim != 4:
            got = f"shape {images.shape}" if isinstance(images, jax.Array) else type(images).__name__
            hint = "pass images [examples, height, width, channels]"
            raise InnerloopError(WHO, "the inputs of a task must be images", got=got, hint=hint)
        return jax.vmap(self.image)(jax.random.split(key, len(images)), images)

    def image(
        self, key: PRNGKeyArray, image: Float[Array, "height width channels"]
    ) -> Float[Array, "height width channels"]:
        """One randomly changed image."""
        flipped, shifted, rotated = jax.random.split(key, 3)
        mirror = jnp.where(self.flip & jax.random.bernoulli(flipped), -1.0, 1.0)
        shift = jax.random.randint(shifted, (2,), -self.crop, self.crop + 1)
        angle = jnp.deg2rad(jax.random.uniform(rotated, minval=-self.rotation, maxval=self.rotation))
        return transformed(image, mirror, shift, angle)


def transformed(
    image: Float[Array, "height width channels"],
    mirror: Float[Array, ""],
    shift: Array,
    angle: Float[Array, ""],
) -> Float[Array, "height width channels"]:
    """An image rotated about its centre, then shifted, then mirrored.

    Args:
        image: the image.
        mirror: -1 to swap left and right, otherwise 1.
        shift: pixels down and to the right, `[2]`.
        angle: radians, counterclockwise as displayed.
    """
    height, width, _ = image.shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.meshgrid(jnp.arange(height) - centre_y, jnp.arange(width) - centre_x, indexing="ij")
    y, x = y - shift[0], mirror * x - shift[1]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * y + sin * x + centre_y, cos * x - sin * y + centre_x]
    read = lambda channel: map_coordinates(channel, places, order=1, mode="nearest")
    return jax.vmap(read, -1, -1)(image)
