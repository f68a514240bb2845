"""The outputs of a model that are in use: one per class of the task, although a model may have more."""

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError
from innerloop.nn.losses import BatchLoss, sigmoid_cross_entropy, softmax_cross_entropy


def batch_loss(loss_fn: LossFn) -> BatchLoss:
    """The loss that holds the model. Raises InnerloopError if it holds none."""
    held = loss_fn.fn if isinstance(loss_fn, Loss) else loss_fn
    if not isinstance(held, BatchLoss):
        hint = "use innerloop.BatchLoss(measure, apply)"
        raise InnerloopError(
            "Learner", "the algorithm's loss does not expose its model", got=loss_fn, hint=hint
        )
    return held


def loss_on_active_outputs(loss_fn: LossFn, ways: int | None) -> LossFn:
    """The loss on only the outputs of the first `ways` classes (None: a regressor's loss, unchanged)."""
    loss = batch_loss(loss_fn)

    def apply(params: Params, x: PyTree, **given: PyTree) -> PyTree:
        found = loss.apply(params, x, **given)
        return (active_outputs(found[0], ways), found[1]) if "state" in given else active_outputs(found, ways)

    # For two classes and one output, the two losses are equal.
    one_output = ways is not None and loss.measure is sigmoid_cross_entropy
    used = BatchLoss(softmax_cross_entropy if one_output else loss.measure, apply)
    return replace(loss_fn, fn=used) if isinstance(loss_fn, Loss) else used


def active_outputs(outputs: Array, ways: int | None) -> Array:
    """Scores of the first `ways` classes; a single output is the log-odds of the second of two classes."""
    if ways is None:
        return outputs
    if outputs.shape[-1] == 1:
        outputs = jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)
    return outputs[..., :ways]
