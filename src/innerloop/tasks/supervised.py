"""Ordinary supervised batches over all classes, for the pre-trained baseline."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from innerloop.engine.types import Batch, Task
from innerloop.errors import check_count
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.device_examples import DeviceExamples


class SupervisedBatches(eqx.Module):
    """A distribution whose "tasks" are batches of images from all classes, labelled by class number.

    Support and query set are the same batch. It is meant for `joint` training, which reads the query set only.
    """

    examples: DeviceExamples
    starts: Int[Array, " classes"]
    counts: Int[Array, " classes"]
    batch: int = eqx.field(static=True)

    def __init__(self, arrays: ClassArrays, batch: int):
        """Put the examples on the device.

        Args:
            arrays: all classes.
            batch: the number of images per batch.

        Raises:
            InnerloopError: if `batch` is below 1.
        """
        check_count("SupervisedBatches", "batch", batch)
        self.examples = DeviceExamples(arrays.examples)
        self.starts, self.counts = jnp.asarray(arrays.starts), jnp.asarray(arrays.counts)
        self.batch = batch

    def sample(self, key: PRNGKeyArray) -> Task:
        """Draw a batch: inputs `[batch, height, width, channels]`, targets `[batch]`, all classes equally likely."""
        key_classes, key_rows = jax.random.split(key)
        classes = jax.random.randint(key_classes, (self.batch,), 0, len(self.starts))
        rows = self.starts[classes] + jax.random.randint(key_rows, (self.batch,), 0, self.counts[classes])
        batch = Batch(self.examples[rows], classes)
        return Task(batch, batch)
