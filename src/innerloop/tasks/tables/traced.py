"""What `Preparation` does to rows and to predictions, as functions that JAX traces: parts of an exported network."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.tasks.tables.preparation import Category, Number, Preparation


def encoded(preparation: Preparation, rows: Float[Array, "rows columns"]) -> Float[Array, "rows features"]:
    """Rows as a model takes them.

    Args:
        preparation: of the training groups.
        rows: the columns of x in their order, numbers in their units; a category as its position among the levels,
            any other number for one that no training group has.
    """
    return jnp.concatenate([_encoded(c, rows[:, i : i + 1]) for i, c in enumerate(preparation.x)], axis=1)


def _encoded(column: Number | Category, values: Float[Array, "rows 1"]) -> Float[Array, "rows width"]:
    if isinstance(column, Category):
        return (values == jnp.arange(column.width, dtype=values.dtype)[None]).astype(values.dtype)
    # A rounded mean would cost large numbers, such as years, digits. What it lacks is subtracted at the end: compilers
    # join two subtractions in a row.
    mean, scale = np.float32(column.mean), np.float32(column.scale)
    return (values - mean) / scale - np.float32((column.mean - float(mean)) / column.scale)


def restored(preparation: Preparation, values: Float[Array, "rows outputs"]) -> Float[Array, "rows outputs"]:
    """A regressor's values in the units of the table."""
    numbers = [column for column in preparation.y if isinstance(column, Number)]
    mean, scale = (np.array([getattr(c, name) for c in numbers], np.float32) for name in ("mean", "scale"))
    return values * scale[None] + mean[None]
