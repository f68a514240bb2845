"""Losses as `loss_fn(params, batch) -> scalar`, made from any `apply(params, inputs) -> outputs`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.losses.loss import Adapted, check_function
from innerloop.engine.model_state import fresh_state
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.nn.masks import Mask, flat_examples, masked_targets, mean_over_examples

Apply = Callable[..., PyTree]
"""`apply(params, inputs) -> outputs`; models with batch normalisation may take a keyword `reference`."""


def call(params: Params, inputs: PyTree, **keywords: object) -> Array:
    """The `apply` of models that are pytrees of their own parameters, like those of `innerloop.nn`."""
    if not callable(params):
        hint = "give the loss its model, `apply(params, inputs)`"
        got = type(params).__name__
        raise InnerloopError("loss", "the parameters are not callable", got=got, hint=hint)
    return params(inputs, **keywords)  # pyright: ignore[reportReturnType]


def _check_targets(targets: Array, shape: tuple[int, ...], who: str = "loss") -> None:
    """Raise InnerloopError for targets of another shape, which broadcasting would turn into a wrong result."""
    if jnp.shape(targets) != shape:
        hint = "reshape them, for example with targets[:, None] or targets[:, 0]"
        raise InnerloopError(who, f"targets must have shape {shape}", got=jnp.shape(targets), hint=hint)


def _check_scores(scores: Array, targets: Array, who: str) -> None:
    """Raise InnerloopError unless every example has one score for each class, and one target."""
    if scores.ndim != 2:
        hint = "return one row of scores per example; use jax.vmap if these are several tasks"
        raise InnerloopError(who, "the scores must have shape [examples, ways]", got=scores.shape, hint=hint)
    _check_targets(targets, scores.shape[:1], who)


def squared_error(outputs: Array, targets: Array, mask: Mask = None) -> Float[Array, ""]:
    """Mean over examples of the squared distance to the targets (Finn et al. 2017, equation 2, as a mean).

    Args:
        outputs: `[examples, ...]`.
        targets: of the same shape.
        mask: which examples count, `[examples]` bool, or their weights of 0 or more (None: equally).

    Raises:
        InnerloopError: if the shapes differ, or that of the mask.
    """
    _check_targets(targets, outputs.shape)
    errors = jnp.square(outputs - masked_targets(targets, mask))
    return mean_over_examples(jnp.sum(flat_examples(errors), axis=-1), mask)


def _is_class(targets: Array, ways: int) -> Array:
    """Whether each target is one of 0, 1, ..., ways-1."""
    numbers = targets.astype(jnp.int32)  # narrow dtypes, such as uint8, cannot hold every number of a class
    return (numbers == targets) & (numbers >= 0) & (numbers < ways)


def _is_probability(targets: Array) -> Array:
    """Whether each target is within 0..1."""
    return (targets >= 0) & (targets <= 1)


def softmax_cross_entropy(
    scores: Float[Array, "examples ways"], targets: Array, mask: Mask = None
) -> Float[Array, ""]:
    """Mean over examples of -log softmax(scores) at the target class.

    MAML's code sums N per-class means instead, so its inner step size is N times smaller than the one for this mean
    (the 0.4 printed for 5 ways is 2.0 here).

    Args:
        scores: `[examples, ways]`.
        targets: class numbers, `[examples]`; the loss is NaN if one that counts is not one of 0, 1, ..., ways-1.
        mask: which examples count, `[examples]` bool, or their weights of 0 or more (None: equally).

    Raises:
        InnerloopError: if the scores, the targets or the mask have another shape.
    """
    _check_scores(scores, targets, "loss")
    is_class = lambda targets: _is_class(targets, scores.shape[-1])
    targets = masked_targets(targets, mask, is_class)
    numbers, known = targets.astype(jnp.int32), is_class(targets)
    # The scores become NaN too, or the gradient would be finite.
    log_f = jax.nn.log_softmax(scores * jnp.where(known, 1.0, jnp.nan)[:, None].astype(scores.dtype))
    # A product with one-hot targets, not a gather: a gather's second derivative is a slow scatter on a CPU.
    log_likelihood = jnp.sum(log_f * jax.nn.one_hot(numbers, scores.shape[-1], dtype=log_f.dtype), axis=-1)
    return -mean_over_examples(jnp.where(known, log_likelihood, jnp.nan), mask)


def sigmoid_cross_entropy(scores: Array, targets: Array, mask: Mask = None) -> Float[Array, ""]:
    """Minus the mean of y log f + (1 - y) log(1 - f) with f = sigmoid(scores).

    Args:
        scores: `[examples, ...]`.
        targets: 0 or 1, or a probability, of the same shape; the loss is NaN if one that counts is outside 0..1.
        mask: which examples count, `[examples]` bool, or their weights of 0 or more (None: equally).

    Raises:
        InnerloopError: if the shapes differ, or that of the mask.
    """
    _check_targets(targets, scores.shape)
    targets = masked_targets(targets, mask, _is_probability)
    losses = optax.sigmoid_binary_cross_entropy(scores, targets.astype(scores.dtype))
    losses = losses * jnp.where(_is_probability(targets), 1.0, jnp.nan).astype(losses.dtype)
    return mean_over_examples(flat_examples(losses).mean(axis=-1), mask)


def _check_batch(batch: object) -> None:
    """Raise InnerloopError unless this has inputs, targets and a mask."""
    if not all(hasattr(batch, name) for name in Batch._fields):
        got = type(batch).__name__
        hint = "give innerloop.Batch(inputs, targets), or write a `loss_fn(params, batch)` for batches of your own"
        raise InnerloopError("loss", "needs a Batch", got=got, hint=hint)


def _check_takes_mask(measure: Callable[..., Array]) -> None:
    """Raise InnerloopError for a measure of two arguments, on batches that are padded."""
    try:
        inspect.signature(measure).bind(None, None, None)
    except ValueError:  # it has no signature
        return
    except TypeError:
        wrong, hint = "`measure` must take the mask of padded tasks", "define measure(outputs, targets, mask)"
        raise InnerloopError("BatchLoss", wrong, hint=hint) from None


def _counted(batch: Batch) -> np.ndarray:
    """The targets of the examples that count."""
    targets = np.asarray(batch.targets)
    return targets if batch.mask is None else targets[np.asarray(batch.mask) != 0]


@dataclass(frozen=True)
class BatchLoss:
    """A loss function for a model: `loss_fn(params, batch)` compares its outputs with the targets of a batch.

    Attributes:
        measure: `measure(outputs, targets) -> scalar`, or `measure(outputs, targets, mask)` for batches with a mask.
        apply: the model, `apply(params, inputs) -> outputs`. Within a `Loss` it gets the keyword `key` if the loss is
            random, and the keyword `state` if there is model state; it then returns `(outputs, new_state)`.
        predict: the model in prediction mode, without dropout and with the statistics in its state: like `apply`, but
            without a key and returning only the outputs (None: `apply`).
    """

    measure: Callable[..., Array]
    apply: Apply = call
    predict: Apply | None = None

    def __post_init__(self) -> None:
        if isinstance(self.predict, Batch):
            hint = "call it first, as in maml(mean_squared_error(), ...)"
            raise InnerloopError("BatchLoss", "a loss by name takes the model, not a batch", hint=hint)
        check_function(self.measure, "BatchLoss", "measure", "measure(outputs, targets)")
        check_function(self.apply, "BatchLoss", "apply", "apply(params, inputs)")
        if self.predict is not None:
            check_function(self.predict, "BatchLoss", "predict", "predict(params, inputs)")

    def __call__(self, params: Params, batch: Batch, **given: PyTree) -> PyTree:
        """The loss of one batch; with model state, `(loss, new_state)`.

        Raises:
            InnerloopError: if this is not a batch, or `measure` or its mask does not fit.
        """
        _check_batch(batch)
        masks = () if batch.mask is None else (batch.mask,)
        if masks:
            _check_takes_mask(self.measure)
        found = self.apply(params, batch.inputs, **given)
        outputs, *state = found if "state" in given else (found,)
        loss = self.measure(outputs, batch.targets, *masks)
        return (loss, *state) if state else loss

    def predictor(self, adapted: Params | Adapted) -> tuple[Apply, Params]:
        """`(apply, params)` of the model in prediction mode; `apply` holds the state of the adapted parameters."""
        model = self.apply if self.predict is None else self.predict
        if not isinstance(adapted, Adapted):
            return model, adapted

        def outputs(params: Params, inputs: PyTree) -> Array:
            found = model(params, inputs, state=fresh_state(adapted.state))
            return found[0] if isinstance(found, tuple) else found

        return outputs, adapted.params

    def misfit(self, params: Params, batch: Batch, ways: int | None = None) -> str:
        """Describe why the targets of a batch do not fit the outputs; empty if they do, or if that is unknown.

        Args:
            params: the parameters of the model.
            batch: the batch; only its shapes are read if `ways` is given.
            ways: the number of classes (None: the targets are read).
        """
        if self.measure is sigmoid_cross_entropy and ways is None:
            low, high = _counted(batch).min(), _counted(batch).max()
            return "" if low >= 0 and high <= 1 else f"the targets range from {low} to {high}"
        if self.measure is not softmax_cross_entropy:
            return ""
        outputs = jax.eval_shape(lambda params, x: self.apply(params, x), params, batch.inputs).shape[-1]
        if ways is not None:
            return "" if ways <= outputs else f"the model has {counted(outputs, 'output')} for {ways} classes"
        labels = _counted(batch)
        wrong = labels[(labels < 0) | (labels >= outputs) | (labels != np.round(labels))]
        return f"the model has {counted(outputs, 'output')}, but a target is {wrong[0]}" if wrong.size else ""


def mean_squared_error(apply: Apply = call, predict: Apply | None = None) -> BatchLoss:
    """The loss function of regression: `squared_error` on batches."""
    return BatchLoss(squared_error, apply, predict)


def cross_entropy(apply: Apply = call, predict: Apply | None = None) -> BatchLoss:
    """The loss function of classification: `softmax_cross_entropy` on batches with class numbers as targets."""
    return BatchLoss(softmax_cross_entropy, apply, predict)


def binary_cross_entropy(apply: Apply = call, predict: Apply | None = None) -> BatchLoss:
    """The loss function of binary classification with one output: `sigmoid_cross_entropy` on batches."""
    return BatchLoss(sigmoid_cross_entropy, apply, predict)


def accuracy(scores: Float[Array, "examples ways"], targets: Array, mask: Mask = None) -> Float[Array, ""]:
    """Fraction of examples whose highest score is that of the target class; NaN if one has no finite highest score.

    Args:
        scores: `[examples, ways]`.
        targets: class numbers, `[examples]`.
        mask: which examples count, `[examples]` bool, or their weights of 0 or more (None: equally).

    Raises:
        InnerloopError: if the scores, the targets or the mask have another shape.
    """
    _check_scores(scores, targets, "accuracy")
    right = (jnp.argmax(scores, axis=-1) == targets).astype(jnp.float32)
    return mean_over_examples(jnp.where(jnp.isfinite(jnp.max(scores, axis=-1)), right, jnp.nan), mask)
