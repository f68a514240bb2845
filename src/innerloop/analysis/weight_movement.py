r"""How far each layer's weights move in the inner loop.

    relative = ||theta'_l - theta_l|| / ||theta_l||,        angle = the angle between theta_l and theta'_l, in degrees

over all parameters of layer l taken together. A layer that starts at zero and moves has neither.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, interval
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.engine.losses.loss import params_of
from innerloop.engine.types import Params, Task
from innerloop.io.untrusted import JsonObject


def flat_vector(leaves: list[Array]) -> Float[Array, " parameters"]:
    """Arrays flattened and concatenated into one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def relative_change(new: Array, old: Array) -> Float[Array, ""]:
    """||new - old|| / ||old||; 0 if both are 0, and NaN if only `old` is."""
    moved, size = jnp.linalg.norm(new - old), jnp.linalg.norm(old)
    return jnp.where(moved == 0, 0, jnp.where(size == 0, jnp.nan, moved / jnp.where(size == 0, 1, size)))


def none_for_nan(values: Any) -> Any:
    """A number or a list of numbers, with None for NaN."""
    if isinstance(values, list):
        return [none_for_nan(x) for x in values]
    return None if np.isnan(values) else values


def _angle(a: Array, b: Array) -> Float[Array, ""]:
    """The angle between two vectors in degrees, by Kahan's formula: unlike arccos, accurate for small angles."""
    u, v = a / jnp.maximum(jnp.linalg.norm(a), 1e-12), b / jnp.maximum(jnp.linalg.norm(b), 1e-12)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v)))


def layer_movement(
    model: AnalyzedModel, *, num_tasks: int = 200, key: PRNGKeyArray, on_progress: OnProgress = no_progress
) -> list[JsonObject]:
    """How far each layer moves in the inner loop.

    Args:
        model: the model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        on_progress: progress callback.

    Returns:
        A record per layer: `{"layer", "head": bool, "parameters", "relative", "relative_ci95", "angle", "angle_ci95"}`;
        the last four are None if the layer starts at zero and moves.
    """
    layers = model.layers

    def one(params: Params, task: Task, key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
        adapted = model.algorithm.adapt(params, task.support, key=key)
        old, new = (layers.parts(params_of(x)) for x in (model.start(params, task), adapted))
        pairs = {name: (flat_vector(new[name]), flat_vector(old[name])) for name in layers.names}
        return {name: _movement(*p) for name, p in pairs.items()}

    found = model.collect(one, num_tasks=num_tasks, key=key, on_progress=on_progress)
    own = layers.parts(model.initialization(model.params))
    sizes = {name: sum(leaf.size for leaf in leaves) for name, leaves in own.items()}
    records = []
    for name in layers.names:
        line: JsonObject = {"layer": name, "head": name == layers.head, "parameters": sizes[name]}
        for what in ("relative", "angle"):
            line[what], line[f"{what}_ci95"] = map(none_for_nan, interval(found[name][what]))
        records.append(line)
    return records


def _movement(new: Array, old: Array) -> dict[str, Array]:
    """How far one layer moved in one task."""
    relative = relative_change(new, old)
    return {"relative": relative, "angle": jnp.where(jnp.isnan(relative), jnp.nan, _angle(new, old))}
