"""How learning is spread over inner steps: score, support loss, and per layer the gradient and the way gone.

At each step i = 0..k: the score on the queries, the loss on the support set, the norm of its gradient with respect to
each layer (whether the inner loop moves that layer or not), and how far each layer is from where it started,
relative to its norm.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.analyzed_model import Subject, Watch, interval, unwatched
from innerloop.analysis.weight_movement import relative, vector
from innerloop.engine.evaluate import steps_to_record
from innerloop.engine.types import Params, Task


def by_step(
    subject: Subject, *, tasks: int = 200, key: PRNGKeyArray, watch: Watch = unwatched
) -> dict[str, Any]:
    """`{"steps": [...], NAME: {"mean": [...], "ci95": [...]}, "layers": {LAYER: {"gradient": ..., "moved": ...}}}`.

    NAME: every score (`accuracy`, `loss`) on the queries, and `support_loss`.
    """
    layers, recorded = subject.layers, steps_to_record(subject.algorithm.inner.steps)

    def one(params: Params, task: Task) -> dict[str, Any]:
        theta = subject.theta(params)

        def observe(now: Params, i: Array) -> dict[str, Any]:
            loss, grads = jax.value_and_grad(subject.algorithm.loss_fn)(now, task.support)
            grads, old, new = (layers.parts(tree) for tree in (grads, theta, now))
            per_layer = {
                name: {
                    "gradient": jnp.linalg.norm(vector(grads[name])),
                    "moved": relative(vector(new[name]), vector(old[name])),
                }
                for name in layers.names
            }
            return {**subject.score(now, task), "support_loss": loss, "layers": per_layer}

        seen = subject.algorithm.trajectory(params, task.support, observe).observed
        return jax.tree.map(lambda x: x[jnp.asarray(recorded)], seen)

    found = subject.collect(one, tasks=tasks, key=key, watch=watch)
    summary = lambda values: dict(zip(("mean", "ci95"), interval(values), strict=True))
    return {"steps": list(recorded), **jax.tree.map(summary, found)}
