r"""Slices of the loss landscape around theta, along the first inner steps of tasks.

Let u_t be the first inner step of task t (for gradient descent, -alpha times its support gradient):

    line:   a -> L_t(theta + a u_t; support) and (; query), averaged over tasks; a = 1 is one inner step;
    plane:  (a, b) -> L_t(theta + a u_1 + b u_2; query) for two tasks t = 1, 2, with their inner-loop paths projected
            onto it (least squares).

If theta is a good starting point for many tasks, the loss of each task falls along its own step but hardly along the
other's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, summary
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.analysis.weight_movement import flat_vector
from innerloop.engine.algorithm import loss_key
from innerloop.engine.diagnosis import Diverged
from innerloop.engine.losses.loss import Adapted, params_of, with_params
from innerloop.engine.pytree import subtract
from innerloop.engine.types import Params, Task
from innerloop.io.untrusted import JsonObject

ALONG = tuple(np.round(np.linspace(-1, 3, 17), 2).tolist())
GRID = tuple(np.round(np.linspace(-1, 2.5, 22), 3).tolist())


def _first_step(model: AnalyzedModel, params: Params, task: Task, key: PRNGKeyArray) -> Params:
    """The first inner step of a task, as a change of all parameters."""
    once = model.algorithm.with_inner(steps=1).adapt(params, task.support, key=key)
    return subtract(params_of(once), params_of(model.start(params, task)))


def _displaced(start: Params | Adapted, *changes: tuple[Array, Params]) -> Params | Adapted:
    """theta + sum of scaled changes, with the initial model state."""
    params = params_of(start)
    for scale, change in changes:
        params = jax.tree.map(lambda x, u, scale=scale: x + scale * u, params, change)
    return with_params(start, params)


def loss_line(
    model: AnalyzedModel,
    *,
    num_tasks: int = 100,
    key: PRNGKeyArray,
    along: Sequence[float] = ALONG,
    on_progress: OnProgress = no_progress,
) -> JsonObject:
    """The loss of each task along its own first inner step, averaged over tasks.

    Args:
        model: the model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        along: the values of a; 1 is one inner step.
        on_progress: progress callback.

    Returns:
        `{"along": [...], "support_loss": {"mean": [...], "ci95": [...]}, "query_loss": ...}`.
    """

    def one(params: Params, task: Task, key: PRNGKeyArray) -> dict[str, Array]:
        step = _first_step(model, params, task, key)

        def at(a: Array) -> dict[str, Array]:
            here = _displaced(model.start(params, task), (a, step))
            query_loss = model.algorithm.query_loss(here, task.query, key=key)
            return {
                "support_loss": model.support_loss(here, task, jax.random.fold_in(key, 0)),
                "query_loss": query_loss,
            }

        return jax.lax.map(at, jnp.asarray(along))

    found = model.collect(one, num_tasks=num_tasks, key=key, on_progress=on_progress)
    return {"along": list(along), **{name: summary(x) for name, x in found.items()}}


def loss_plane(model: AnalyzedModel, *, key: PRNGKeyArray, grid: Sequence[float] = GRID) -> JsonObject:
    """The losses of two tasks on the plane of their first inner steps, and their inner-loop paths on it.

    Args:
        model: the model.
        key: determines the two tasks.
        grid: the values of both a and b.

    Returns:
        `{"grid": [...], "losses": [task][b][a], "paths": [task][step][a, b]}`.

    Raises:
        Diverged: if a loss or a path is not finite.
    """
    keys = [jax.random.fold_in(key, i) for i in range(2)]
    values = jnp.asarray(grid)

    def all_at_once(params: Params, keys: list[Array]) -> tuple[list[Array], list[Array]]:
        tasks = [model.tasks.sample(k) for k in keys]
        own = [loss_key(k) for k in keys]
        steps = [_first_step(model, params, *pair) for pair in zip(tasks, own, strict=True)]
        starts, loss = [model.start(params, task) for task in tasks], model.algorithm.query_loss

        def losses(b: Array) -> list[Array]:
            at = lambda a: [
                loss(_displaced(start, (a, steps[0]), (b, steps[1])), task.query, key=key)
                for start, task, key in zip(starts, tasks, own, strict=True)
            ]
            return jax.lax.map(at, values)

        flat = jnp.stack([flat_vector(jax.tree.leaves(step)) for step in steps])
        paths = [_projected_path(model, params, *pair, flat) for pair in zip(tasks, own, strict=True)]
        return jax.lax.map(losses, values), paths

    losses, paths = jax.jit(all_at_once)(model.params, keys)
    if not all(np.isfinite(x).all() for x in (*losses, *paths)):
        raise Diverged("loss_plane", "the losses are not finite", hint="lower the inner step size")
    plain = lambda found: [np.asarray(x).tolist() for x in found]
    return {"grid": list(grid), "losses": plain(losses), "paths": plain(paths)}


def _projected_path(
    model: AnalyzedModel, params: Params, task: Task, key: PRNGKeyArray, flat: Array
) -> Array:
    """An inner-loop path in units of the two first steps, `[steps + 1, 2]`: least squares on their plane."""
    gram = flat @ flat.T
    # Parallel or zero steps span no plane; the small diagonal selects the solution of minimal norm.
    gram = gram + (1e-7 * jnp.trace(gram) + 1e-30) * jnp.eye(2)

    def observe(now: Params, i: Array) -> Array:
        moved = subtract(params_of(now), params_of(model.start(params, task)))
        return jnp.linalg.solve(gram, flat @ flat_vector(jax.tree.leaves(moved)))

    return model.algorithm.trajectory(params, task.support, observe, key=key).observed
