r"""How far each layer's weights move in the inner loop.

    relative = ||theta'_l - theta_l|| / ||theta_l||,        angle = the angle between theta_l and theta'_l, in degrees

over all parameters of layer l together.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.analysis.analyzed_model import Subject, Watch, interval, unwatched
from innerloop.engine.types import Params, Task


def vector(leaves: list[Array]) -> Float[Array, " parameters"]:
    """Arrays as one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])


def relative(new: Array, old: Array) -> Float[Array, ""]:
    """The length of the change in units of what it was; 0 where nothing was and nothing is."""
    return jnp.linalg.norm(new - old) / jnp.maximum(jnp.linalg.norm(old), 1e-12)


def _angle(a: Array, b: Array) -> Float[Array, ""]:
    """The angle between two vectors in degrees, exact for small angles too (Kahan), which arccos is not."""
    u, v = a / jnp.maximum(jnp.linalg.norm(a), 1e-12), b / jnp.maximum(jnp.linalg.norm(b), 1e-12)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v)))


def movement(
    subject: Subject, *, tasks: int = 200, key: PRNGKeyArray, watch: Watch = unwatched
) -> list[dict[str, Any]]:
    """One record a layer.

    `{"layer", "head": bool, "parameters", "relative", "relative_ci95", "angle", "angle_ci95"}`.
    """
    layers = subject.layers

    def one(params: Params, task: Task) -> dict[str, dict[str, Array]]:
        adapted = subject.algorithm.adapt(params, task.support)
        old, new = layers.parts(subject.theta(params)), layers.parts(adapted)
        pairs = {name: (vector(new[name]), vector(old[name])) for name in layers.names}
        return {name: {"relative": relative(*p), "angle": _angle(*p)} for name, p in pairs.items()}

    found = subject.collect(one, tasks=tasks, key=key, watch=watch)
    own = layers.parts(subject.theta(subject.params))
    sizes = {name: sum(leaf.size for leaf in leaves) for name, leaves in own.items()}
    return [_record(name, name == layers.head, sizes[name], found[name]) for name in layers.names]


def _record(name: str, head: bool, size: int, values: dict[str, np.ndarray]) -> dict[str, Any]:
    """One layer's line."""
    line: dict[str, Any] = {"layer": name, "head": head, "parameters": size}
    for what in ("relative", "angle"):
        line[what], line[f"{what}_ci95"] = interval(values[what])
    return line
