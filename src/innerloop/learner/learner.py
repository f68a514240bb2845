"""Fit, predict and score for people with arrays: a few labelled examples in, a classifier or regressor out.

    learner = Learner.from_pretrained("omniglot-5way-1shot-maml")
    learner.fit(images, ["alpha", "beta", "gamma"]).predict(more_images)

`fit` runs the inner loop from the initialisation, always from the same one: fitting again forgets the last task.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.config.schema import Normalization
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.pytree import check_trainable
from innerloop.engine.types import Batch, LossFn, Params
from innerloop.errors import InnerloopError
from innerloop.learner import validation
from innerloop.nn.losses import BatchLoss, sigmoid_cross_entropy, softmax_cross_entropy, squared_error
from innerloop.nn.normalization import predict as predict_normalized

QUERIES = 64
"""Examples predicted at a time."""


class Learner:
    """An initialisation that learns a task from its examples.

    Attributes:
        params: the meta-parameters; `fit` never changes them.
        n_steps: inner steps of a fit.
        params_: the adapted parameters, after `fit`.
        losses_: loss on the examples before each inner step, `[steps]`, after `fit`.
        classes_: the labels, `[ways]`, in the order of the columns of `predict_proba`, after `fit`.
    """

    def __init__(
        self,
        params: Params,
        algorithm: Algorithm,
        *,
        classification: bool | None = None,
        normalization: Normalization = "inductive",
        shape: validation.Shape | None = None,
        pixels: bool = False,
    ):
        """A learner on any model.

        Args:
            params: the meta-parameters, as training left them: any pytree of float arrays.
            algorithm: adapts as it does in training; `algorithm.with_inner(steps=10)` takes more steps. Its loss is
                one of `innerloop.nn.losses`, or another `BatchLoss(measure, apply)`, and tells the model.
            classification: whether y holds labels; otherwise values (None: unless the loss is the squared error).
            normalization: whose statistics normalise a query, for models with batch normalisation. `inductive` and
                `support` predict each query as if it were alone; `transductive` lets the queries of one call
                decide together.
            shape: shape of one example, None where any size will do (None: anything).
            pixels: whether inputs must lie in 0..1 once bytes are scaled.

        Raises InnerloopError for parameters that are not float arrays, and for a loss that does not tell its model.
        """
        check_trainable(params, "Learner")
        self.params, self.algorithm, self.loss = params, algorithm, _batch_loss(algorithm.loss_fn)
        regression = self.loss.measure is squared_error
        self.classification = not regression if classification is None else classification
        self.normalization: Normalization = normalization
        self.shape, self.pixels = shape, pixels
        self.params_: Params = None
        self.output_shapes: dict[Any, tuple[int, ...]] = {}
        self.adapt_compiled = jax.jit(self.adapt, static_argnums=2)
        self.outputs_compiled = jax.jit(self.outputs, static_argnums=3)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, steps: int | None = None, normalization: Normalization = "inductive"
    ) -> "Learner":
        """A run's folder, a `.safetensors` file, or a preset whose weights ship; no data set is read.

        `steps` replaces the number of inner steps at test. Raises InnerloopError if there is nothing of that name.
        """
        # Here: reading weights imports the checkpoint library.
        from innerloop.learner.pretrained import load_initialisation

        params, experiment, shape = load_initialisation(source)
        algorithm = experiment.test_algorithm
        algorithm = algorithm if steps is None else algorithm.with_inner(steps=steps)
        images = experiment.classification
        return cls(params, algorithm, normalization=normalization, shape=shape, pixels=images)

    @property
    def n_steps(self) -> int:
        """Inner steps of a fit."""
        return self.algorithm.inner.steps

    def fit(self, x: Any, y: Any) -> "Learner":
        """Adapt to examples x `[examples, ...]` with labels (any hashable, one per example) or values y.

        Bytes are scaled to [0, 1]. With fewer classes than the model has outputs, the others take no part in loss
        and prediction. Raises InnerloopError for input that does not fit the model, more classes than outputs,
        one class only, and a loss that is not finite; the learner is then as it was before.
        """
        inputs = self.inputs(x, "Learner.fit")
        shape = self.output_shape(inputs)
        if self.classification:
            classes, targets = validation.class_numbers(y, shape)
        else:
            classes, targets = None, validation.values(y, shape, "Learner.fit")
        batch = Batch(inputs, targets)
        if (
            self.algorithm.inner.minibatch is not None
        ):  # consecutive runs are the minibatches, and people sort by class
            order = np.random.default_rng(0).permutation(len(inputs))
            batch = Batch(inputs[order], targets[order])
        adapted, losses = self.adapt_compiled(self.params, batch, None if classes is None else len(classes))
        _check_converges(adapted, losses)
        self.params_, self.losses_, self.support = adapted, np.asarray(losses), batch.inputs
        if classes is not None:
            self.classes_ = validation.as_array(classes)
        else:
            self.target_shape = np.shape(y)[1:]
        return self

    def predict(self, x: Any) -> np.ndarray:
        """The label `[examples]` or value `[examples, ...]` of each example. Raises InnerloopError before `fit`."""
        outputs = self.predicted(x, "Learner.predict")
        if self.classification:
            return self.classes_[outputs.argmax(-1)]
        return outputs.reshape(len(outputs), *self.target_shape)

    def predict_proba(self, x: Any) -> Float[np.ndarray, "examples ways"]:
        """Each class's probability, in the order of `classes_`. Raises InnerloopError for a regressor."""
        if not self.classification:
            do = "use predict"
            raise InnerloopError("Learner.predict_proba", "a regressor has no probabilities", do=do)
        return np.asarray(jax.nn.softmax(self.predicted(x, "Learner.predict_proba")))

    def score(self, x: Any, y: Any) -> float:
        """Accuracy (a label never fitted counts as an error), or R^2 over all values for a regressor.

        R^2 is 1 for perfect predictions and 0 for predicting the mean of y. Raises InnerloopError where the values
        are all equal, for there R^2 has no meaning.
        """
        found = self.predict(x)
        if self.classification:
            labels = validation.as_labels(y, len(found), "Learner.score")
            return float(np.mean([a == b for a, b in zip(found.tolist(), labels, strict=True)]))
        wanted = validation.values(y, found.shape, "Learner.score")
        if (wanted == wanted[0]).all():
            do = "give at least two different values"
            raise InnerloopError("Learner.score", "R^2 needs values that differ", do=do)
        spread = float(np.square(wanted - wanted.mean(0)).sum())
        return 1 - float(np.square(wanted - found).sum()) / spread

    def save_adapted(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted learner's task as safetensors.

        Raises InnerloopError before `fit`, and for a file that exists already unless `overwrite` is true.
        """
        from innerloop.learner import persistence

        self.check_fitted("Learner.save_adapted")
        persistence.save(self, Path(path), overwrite=overwrite)

    def load_adapted(self, path: str | Path) -> "Learner":
        """Take up a task that a learner on the same model saved. Raises InnerloopError for another model's."""
        from innerloop.learner import persistence as adapted

        adapted.load(self, Path(path))
        return self

    def inputs(self, x: Any, who: str) -> np.ndarray:
        """`x` checked and scaled."""
        inputs = validation.as_inputs(x, self.shape, who)
        if self.pixels:
            validation.check_unit_range(inputs, who)
        return inputs

    def output_shape(self, inputs: np.ndarray) -> tuple[int, ...]:
        """Shape of the model's outputs for these inputs. Raises InnerloopError if it does not take them."""
        key = (inputs.shape, inputs.dtype)
        if key not in self.output_shapes:
            try:
                outputs = jax.eval_shape(self.loss.apply, self.algorithm.initialisation(self.params), inputs)
            except (TypeError, ValueError) as error:
                wrong = f"the model does not take such inputs ({str(error).splitlines()[0]})"
                raise InnerloopError("Learner.fit", wrong, got=f"x of shape {inputs.shape}") from error
            if not outputs.shape or outputs.shape[0] != len(inputs):
                do = "let apply take and give a batch (jax.vmap)"
                raise InnerloopError(
                    "apply", "must give one output per example", got=f"shape {outputs.shape}", do=do
                )
            self.output_shapes[key] = outputs.shape
        return self.output_shapes[key]

    def adapt(self, params: Params, support: Batch, ways: int | None) -> tuple[Params, Array]:
        """The inner loop on the outputs in use."""
        loss_fn = _loss_in_use(self.loss, ways)
        trajectory = replace(self.algorithm, loss_fn=loss_fn).trajectory(params, support)
        return trajectory.adapted, trajectory.losses

    def outputs(self, params: Params, support: Array, queries: Array, ways: int | None) -> Array:
        """Outputs in use for the queries."""
        return _in_use(
            predict_normalized(self.loss.apply, params, support, queries, self.normalization), ways
        )

    def predicted(self, x: Any, who: str) -> np.ndarray:
        """Outputs in use for `x`, `[examples, ...]`."""
        self.check_fitted(who)
        inputs = self.inputs(x, who)
        validation.check_example_shape(inputs.shape[1:], self.support.shape[1:], who)
        ways = len(self.classes_) if self.classification else None
        run = lambda queries: np.asarray(self.outputs_compiled(self.params_, self.support, queries, ways))
        if self.normalization == "transductive":
            return run(inputs)
        # Queries are apart, so they may be taken in pieces, filled up to few different sizes: few compilations.
        pieces = [inputs[i : i + QUERIES] for i in range(0, len(inputs), QUERIES)]
        return np.concatenate([run(_filled(piece))[: len(piece)] for piece in pieces])

    def check_fitted(self, who: str) -> None:
        """Raise InnerloopError before `fit`."""
        if self.params_ is None:
            raise InnerloopError(who, "the learner has seen no examples", do="call fit(x, y) first")


def _batch_loss(loss_fn: LossFn) -> BatchLoss:
    """The loss that was given. Raises InnerloopError for one that does not tell its model."""
    if not isinstance(loss_fn, BatchLoss):
        do = "make it by innerloop.BatchLoss(measure, apply)"
        raise InnerloopError("Learner", "the algorithm's loss does not tell its model", got=loss_fn, do=do)
    return loss_fn


def _loss_in_use(loss: BatchLoss, ways: int | None) -> BatchLoss:
    """The loss with only the outputs of the first `ways` classes taking part (None: a regressor's, as it is)."""
    # Of two classes with one output, the same number.
    one_output = ways is not None and loss.measure is sigmoid_cross_entropy
    measure = softmax_cross_entropy if one_output else loss.measure
    return BatchLoss(measure, lambda params, x: _in_use(loss.apply(params, x), ways))


def _in_use(outputs: Array, ways: int | None) -> Array:
    """Scores of the first `ways` classes; a single output is the log-odds of the second of two classes."""
    if ways is None:
        return outputs
    if outputs.shape[-1] == 1:
        outputs = jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)
    return outputs[..., :ways]


def _filled(queries: np.ndarray) -> np.ndarray:
    """Filled up with the first query to a power of two."""
    missing = (1 << (len(queries) - 1).bit_length()) - len(queries)
    return np.concatenate([queries, np.repeat(queries[:1], missing, axis=0)])


def _check_converges(adapted: Params, losses: Array) -> None:
    """Raise InnerloopError if a loss or an adapted parameter is not finite."""
    finite = all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves((adapted, losses)))
    if not finite:
        got = f"losses {np.asarray(losses).tolist()}"
        do = "lower the inner step size, or scale the inputs"
        raise InnerloopError("Learner.fit", "the inner loop diverged", got=got, do=do)
