"""`Preparation` as functions that JAX can trace, which become parts of an exported network."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.tasks.tables.preparation import Category, Number, Preparation


def encoded(preparation: Preparation, rows: Float[Array, "rows columns"]) -> Float[Array, "rows features"]:
    """Encode rows as inputs for a model.

    Args:
        preparation: the preparation learned on the training groups.
        rows: the columns of x in their order, with numbers in the units of the table; a category is its index among the
            levels, or any other number if no training group has it.
    """
    return jnp.concatenate([_encoded(c, rows[:, i : i + 1]) for i, c in enumerate(preparation.x)], axis=1)


def _encoded(column: Number | Category, values: Float[Array, "rows 1"]) -> Float[Array, "rows width"]:
    if isinstance(column, Category):
        return (values == jnp.arange(column.width, dtype=values.dtype)[None]).astype(values.dtype)
    # Rounding the mean would cost large numbers, such as years, some digits. The rounding error is subtracted at the
    # end, because compilers merge two subtractions in a row.
    mean, scale = np.float32(column.mean), np.float32(column.scale)
    return (values - mean) / scale - np.float32((column.mean - float(mean)) / column.scale)


def restored(preparation: Preparation, values: Float[Array, "rows outputs"]) -> Float[Array, "rows outputs"]:
    """A regression model's outputs in the units of the table."""
    numbers = [column for column in preparation.y if isinstance(column, Number)]
    mean, scale = (np.array([getattr(c, name) for c in numbers], np.float32) for name in ("mean", "scale"))
    return values * scale[None] + mean[None]
