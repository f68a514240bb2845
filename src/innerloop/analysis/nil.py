r"""NIL, no inner loop: the head is dropped at test time and nothing is adapted.

    p(y | x) = sum_k softmax_k( cos(f(x), f(x_k)) ) [y = y_k]          over the support examples (x_k, y_k)

with f the penultimate features. The accuracy reflects the features alone.

Raghu et al. 2020, section 5.1, tables 4 and 5, arXiv 1909.09157; the weighting is that of matching networks (Vinyals
et al. 2016). With `transductive`, support and queries are each normalised as one batch; this protocol is our own.
"""

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel, task_count
from innerloop.analysis.freezing import paired_scores, scorer, shifted_progress
from innerloop.analysis.progress import OnProgress, no_progress
from innerloop.engine.evaluation.evaluate import Score
from innerloop.engine.types import Params, Task
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.nn.losses import accuracy
from innerloop.nn.masks import Mask, mean_over_examples
from innerloop.nn.normalization import predict


def cosine_scores(
    query: Float[Array, "query features"],
    support: Float[Array, "support features"],
    labels: Integer[Array, " support"],
    ways: int,
    mask: Mask = None,
) -> Float[Array, "query ways"]:
    """Class probabilities from the cosine similarity of features.

    Args:
        query: features of the queries.
        support: features of the support examples.
        labels: the classes of the support examples.
        ways: the number of classes.
        mask: which support examples count, or their weights (None: equally).

    Returns:
        The support labels weighted by the softmax of the similarities; each row sums to 1.
    """
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    weights = 0 if mask is None else jnp.log(mask.astype(query.dtype))
    return jax.nn.softmax(unit(query) @ unit(support).T + weights) @ jax.nn.one_hot(
        labels.astype(jnp.int32), ways
    )


def _nil_score(model: AnalyzedModel) -> Score:
    """A score that ignores the head: accuracy and loss of `cosine_scores`."""
    embed = model.layers.embed
    # `support` needs a model with a `reference` argument; feature extractors have none, so each query is normalised
    # together with the support set.
    normalization = "inductive" if model.normalization == "support" else model.normalization

    def score(params: Params, task: Task) -> dict[str, Array]:
        ways = jax.eval_shape(model.layers.activations, params, task.query.inputs)[model.layers.head]
        of_support, of_query = (getattr(batch, "mask", None) for batch in task)
        features = predict(embed, params, task.support.inputs, task.query.inputs, normalization)
        known = embed(params, task.support.inputs)
        found = cosine_scores(features, known, task.support.targets, ways.shape[-1], of_support)
        picked = jnp.take_along_axis(found, task.query.targets[:, None], 1)[:, 0]
        return {
            "accuracy": accuracy(found, task.query.targets, of_query),
            "loss": -mean_over_examples(jnp.log(picked), of_query),
        }

    return score


def nil(
    model: AnalyzedModel,
    bodies: Mapping[str, Params],
    *,
    num_tasks: int = 1000,
    key: PRNGKeyArray,
    on_progress: OnProgress = no_progress,
) -> list[JsonObject]:
    """NIL accuracy of several bodies, and the model's accuracy with its inner loop, on the same tasks.

    Args:
        model: the model.
        bodies: meta-parameters by name, such as `{"trained": params, "random": untrained}`.
        num_tasks: the number of held-out tasks.
        key: determines the tasks.
        on_progress: progress callback.

    Returns:
        One record for the inner loop, then one per body: `{"body", "inner_loop": bool, "accuracy", "ci95", "change",
        "change_ci95"}`.

    Raises:
        InnerloopError: for regression tasks.
    """
    if model.metric != "accuracy":
        raise InnerloopError("nil", "there is no NIL for regression", hint="leave it out")
    num_tasks = task_count(model.tasks, num_tasks)
    still = model.algorithm.with_inner(steps=0)
    total = num_tasks * (1 + len(bodies))
    own = scorer(model, model.algorithm, "accuracy", num_tasks)
    found = {"": own(model.params, key, shifted_progress(on_progress, 0, total))}
    features = scorer(replace(model, score=_nil_score(model)), still, "accuracy", num_tasks)
    for i, (name, params) in enumerate(bodies.items(), 1):
        found[name] = features(params, key, shifted_progress(on_progress, i * num_tasks, total))
    return [
        {"body": name or "trained", "inner_loop": not name, **paired_scores("accuracy", values, found[""])}
        for name, values in found.items()
    ]
