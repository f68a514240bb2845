"""Losses as `loss_fn(params, batch) -> scalar`, made from any `apply(params, inputs) -> outputs`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from innerloop.task import Batch, LossFn, Params

Apply = Callable[..., Array]
"""`apply(params, inputs) -> outputs`, or with a keyword `reference` for models with batch normalisation."""


def call(params: Params, inputs: Any, **keywords: Any) -> Array:
    """The `apply` of models that are their own parameters, such as all of `innerloop.models`."""
    return params(inputs, **keywords)  # pyright: ignore[reportCallIssue]


def mean_squared_error(apply: Apply = call) -> LossFn:
    """Mean over examples of the squared distance to the targets (MAML, equation 2, as a mean)."""

    def loss_fn(params: Params, batch: Batch) -> Float[Array, ""]:
        errors = jnp.square(apply(params, batch.inputs) - batch.targets)
        return jnp.mean(jnp.sum(errors.reshape(errors.shape[0], -1), axis=-1))

    return loss_fn


def cross_entropy(apply: Apply = call) -> LossFn:
    """Mean over examples of the softmax cross-entropy; targets are class numbers.

    MAML's code sums N per-class means instead, so its inner step size is N times smaller than the one for this
    mean (0.4 printed for 5 ways is 2.0 here).
    """

    def loss_fn(params: Params, batch: Batch) -> Float[Array, ""]:
        log_f = jax.nn.log_softmax(apply(params, batch.inputs))
        # A product with one-hot targets, not a gather: a gather's second derivative is a slow scatter on a CPU.
        picked = log_f * jax.nn.one_hot(batch.targets, log_f.shape[-1], dtype=log_f.dtype)
        return -jnp.mean(jnp.sum(picked, axis=-1))

    return loss_fn


def binary_cross_entropy(apply: Apply = call) -> LossFn:
    """Minus the mean of y log f + (1 - y) log(1 - f) with f = sigmoid(outputs); targets are 0 or 1."""

    def loss_fn(params: Params, batch: Batch) -> Float[Array, ""]:
        scores = apply(params, batch.inputs)
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores, batch.targets.astype(scores.dtype)))

    return loss_fn


def accuracy(scores: Float[Array, "examples ways"], targets: Array) -> Float[Array, ""]:
    """Fraction of examples whose highest score is the target's."""
    return jnp.mean((jnp.argmax(scores, axis=-1) == targets).astype(jnp.float32))


def probabilities(scores: Float[Array, "examples ways"]) -> Float[Array, "examples ways"]:
    """Softmax of the scores."""
    return jax.nn.softmax(scores, axis=-1)
