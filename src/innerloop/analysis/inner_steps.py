"""Learning over the inner steps: score, support loss, and the gradient and movement of each layer.

At each step i = 0..k: the score on the queries, the loss on the support set, the norm of its gradient with respect to
each layer (adapted or not), and the distance of each layer from its initial value, relative to its norm (None once a
layer that starts at zero has moved).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, summary
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.analysis.weight_movement import flat_vector, none_for_nan, relative_change
from innerloop.engine.evaluation.evaluate import steps_to_record
from innerloop.engine.losses.loss import params_of, with_params
from innerloop.engine.types import Params, Task
from innerloop.io.untrusted import JsonObject


def inner_step_curves(
    model: AnalyzedModel, *, num_tasks: int = 200, key: PRNGKeyArray, on_progress: OnProgress = no_progress
) -> JsonObject:
    """Curves over the inner steps, averaged over tasks.

    Args:
        model: the model.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        on_progress: progress callback.

    Returns:
        `{"steps": [...], NAME: {"mean": [...], "ci95": [...]}, "layers": {LAYER: {"gradient": ..., "moved": ...}}}`,
        where NAME is each score on the queries (`accuracy`, `loss`) and `support_loss`.
    """
    layers, recorded = model.layers, steps_to_record(model.algorithm.inner.steps)

    def one(params: Params, task: Task, key: PRNGKeyArray) -> dict[str, Any]:
        theta = params_of(model.start(params, task))

        def observe(now: Params, i: Array) -> dict[str, Any]:
            loss_of = lambda own: model.support_loss(with_params(now, own), task, jax.random.fold_in(key, i))
            loss, grads = jax.value_and_grad(loss_of)(params_of(now))
            grads, old, new = (layers.parts(tree) for tree in (grads, theta, params_of(now)))
            per_layer = {
                name: {
                    "gradient": jnp.linalg.norm(flat_vector(grads[name])),
                    "moved": relative_change(flat_vector(new[name]), flat_vector(old[name])),
                }
                for name in layers.names
            }
            return {**model.score(now, task), "support_loss": loss, "layers": per_layer}

        seen = model.algorithm.trajectory(params, task.support, observe, key=key).observed
        return jax.tree.map(lambda x: x[jnp.asarray(recorded)], seen)

    found = model.collect(one, num_tasks=num_tasks, key=key, on_progress=on_progress)
    found = jax.tree.map(summary, found)
    for layer in found["layers"].values():
        layer["moved"] = {name: none_for_nan(values) for name, values in layer["moved"].items()}
    return {"steps": list(recorded), **found}
