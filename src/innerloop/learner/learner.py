"""An estimator with fit, predict and score: from arrays of a few labelled examples to a classifier or regressor.

    learner = Learner.from_pretrained("omniglot-5way-1shot-maml")
    learner.fit(images, ["alpha", "beta", "gamma"]).predict(more_images)

`fit` always starts the inner loop from the initialisation: fitting again forgets the last task.
"""

from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from innerloop.config.schema import ExportFormat, Normalization
from innerloop.engine.algorithm import Algorithm, check_is_algorithm
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError, check_choice, check_flag
from innerloop.io.files import as_path
from innerloop.learner import labels, validation
from innerloop.learner.estimator import ClassifierOnly, Estimator, not_fitted
from innerloop.learner.outputs import batch_loss
from innerloop.learner.programs import Programs
from innerloop.nn.losses import BatchLoss, squared_error


class Learner(Estimator):
    """A scikit-learn estimator that adapts an initialisation to the examples of a task.

    Attributes:
        params: the meta-parameters; `fit` never changes them.
        algorithm: the algorithm that adapts them.
        classification: whether y holds labels rather than values.
        normalization: which batch normalises a query.
        shape: shape of one example (None: any).
        pixels: whether inputs must lie in 0..1.
        n_steps: inner steps of a fit.
        params_: the adapted parameters, after `fit`; with model state, `Adapted(params, state)`.
        losses_: loss on the examples before each inner step, `[steps]`, after `fit`.
        classes_: the labels, `[ways]`, in the order of the columns of `predict_proba`, after `fit`.
    """

    normalization: Normalization
    shape: validation.Shape | None
    pixels: bool
    params_: Params = None
    losses_: np.ndarray
    classes_: np.ndarray
    support_: np.ndarray
    target_shape_: tuple[int, ...]
    numbers_: validation.Numbers | None = None
    _programs: Programs

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
        """Create a learner for any model.

        Args:
            params: the trained meta-parameters: any pytree of float arrays.
            algorithm: adapts as it does in training; `algorithm.with_inner(steps=10)` takes more steps. Its loss must
                hold the model: one of `innerloop.nn.losses`, or another `BatchLoss(measure, apply)`; for a model with
                dropout or state, a `Loss` of one of these.
            classification: whether y holds labels rather than values (None: unless the loss is the squared error, so
                give False for another loss of a regression).
            normalization: which batch normalises a query, for models with batch normalisation. `inductive` and
                `support` predict each query independently; `transductive` uses all queries of a call.
            shape: shape of one example, with None for axes of any size (None: any shape).
            pixels: whether inputs must lie in 0..1 after bytes have been scaled.

        Raises:
            InnerloopError: if the parameters are not float arrays, or the loss does not expose its model.
        """
        check_is_algorithm(algorithm, "Learner")
        check_trainable(params, "Learner")
        check_choice("Learner", "normalization", normalization, get_args(Normalization))
        check_choice("Learner", "classification", classification, (None, True, False))
        check_flag("Learner", "pixels", pixels)
        validation.check_shape(shape)
        loss = batch_loss(algorithm.loss_fn)
        if classification is None:
            classification = loss.measure is not squared_error
        settings = {"params": params, "algorithm": algorithm, "classification": classification}
        settings |= {"normalization": normalization, "shape": shape, "pixels": pixels}
        vars(self).update(settings, _programs=Programs(algorithm, normalization))

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, steps: int | None = None, normalization: Normalization = "inductive"
    ) -> "Learner":
        """Load a learner from a trained initialisation; no data set is read.

        Args:
            source: a run's folder, a `.safetensors` file, or a preset with bundled weights.
            steps: inner steps (None: as the run is evaluated).
            normalization: as in `Learner`.

        Raises:
            InnerloopError: if there is no such source, or it is an RL policy.
        """
        # Imported here because reading weights imports the checkpoint library.
        from innerloop.learner.pretrained import load_initialisation

        params, experiment, shape = load_initialisation(source)
        algorithm = experiment.test_algorithm
        algorithm = algorithm if steps is None else algorithm.with_inner(steps=steps)
        images = experiment.classification
        return cls(params, algorithm, normalization=normalization, shape=shape, pixels=images)

    @property
    def loss(self) -> BatchLoss:
        """The algorithm's loss, which holds the model."""
        return batch_loss(self.algorithm.loss_fn)

    @property
    def n_steps(self) -> int:
        """Inner steps of a fit."""
        return self.algorithm.inner.steps

    @property
    def n_features_in_(self) -> int:
        """The features of an example, after a `fit` on `[examples, features]`."""
        if self.params_ is None or self.support_.ndim != 2:
            raise AttributeError("n_features_in_ is set by a fit on examples with one axis")
        return self.support_.shape[1]

    def fit(self, x: object, y: object) -> "Learner":
        """Adapt to examples.

        With fewer classes than the model has outputs, the remaining outputs are ignored in the loss and in
        predictions. If an error is raised, the learner is left unchanged. A new number of examples is compiled
        anew, which takes much longer than a fit; for many sets of different sizes, pad them with `innerloop.TaskList`.

        Args:
            x: examples, `[examples, ...]`; bytes are scaled to [0, 1], and floats are read as float32, or as float64 if
                a parameter is float64.
            y: labels, one hashable per example, or values, `[examples, ...]`.

        Returns:
            The learner itself.

        Raises:
            InnerloopError: for input that does not fit the model, fractions as labels, more classes than outputs, or a
                single class.
            Diverged: an InnerloopError, for a loss or a parameter that is not finite.
        """
        inputs = self._inputs(x, "Learner.fit")
        shape = self._programs.output_shape(self.params, inputs)
        if self.classification:
            classes, targets = labels.class_numbers(y, shape)
        else:
            classes, targets = None, validation.values(y, shape, self._dtype, "Learner.fit")
        batch = Batch(inputs, targets)
        if self.algorithm.inner.minibatch is not None:
            # Shuffle: minibatches are consecutive examples, and users often sort by class.
            order = np.random.default_rng(0).permutation(len(inputs))
            batch = Batch(inputs[order], targets[order])
        ways = None if classes is None else len(classes)
        self.params_, self.losses_ = self._programs.adapt(self.params, batch, ways)
        self.support_, self.numbers_ = batch.inputs, validation.numbers_of(x)
        if classes is not None:
            self.classes_ = labels.as_array(classes)
        else:
            self.target_shape_ = np.asarray(y).shape[1:]
        return self

    def predict(self, x: object) -> np.ndarray:
        """Predict labels or values.

        Args:
            x: examples, `[examples, ...]`.

        Returns:
            Labels, `[examples]`, or values, `[examples, ...]`.

        Raises:
            InnerloopError: before `fit`, or for input that does not fit the model.
        """
        outputs = self._predict_outputs(x, "Learner.predict")
        if self.classification:
            return self.classes_[outputs.argmax(-1)]
        return outputs.reshape(len(outputs), *self.target_shape_)

    @ClassifierOnly
    def predict_proba(self, x: object) -> Float[np.ndarray, "examples ways"]:
        """Predict probabilities.

        Args:
            x: examples, `[examples, ...]`.

        Returns:
            The probability of each class, in the order of `classes_`.

        Raises:
            InnerloopError: for a regressor, before `fit`, or for input that does not fit the model.
        """
        return np.asarray(jax.nn.softmax(self._predict_outputs(x, "Learner.predict_proba")))

    def score(self, x: object, y: object) -> float:
        """Compute the accuracy, or for a regressor R^2 over all values.

        Args:
            x: examples, `[examples, ...]`.
            y: their labels or values; a label unknown to `fit` counts as an error.

        Returns:
            Accuracy in [0, 1]; R^2 is 1 for perfect predictions and 0 for predicting the mean of y.

        Raises:
            InnerloopError: before `fit`, or if all values are equal, so that R^2 is undefined.
        """
        found = self.predict(x)
        if self.classification:
            wanted = labels.as_labels(y, len(found), "Learner.score")
            return float(np.mean([a == b for a, b in zip(found.tolist(), wanted, strict=True)]))
        wanted = validation.values(y, found.shape, self._dtype, "Learner.score")
        if (wanted == wanted[0]).all():
            hint = "give at least two different values"
            raise InnerloopError("Learner.score", "R^2 needs values that differ", hint=hint)
        spread = float(np.square(wanted - wanted.mean(0)).sum())
        return 1 - float(np.square(wanted - found).sum()) / spread

    def save_adapted(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Save the adapted learner as a safetensors file.

        The file contains the examples of `fit` only if predictions need them: for models with batch normalisation,
        unless `normalization` is transductive. Otherwise it holds only the adapted parameters, labels and losses.

        Args:
            path: the file.
            overwrite: whether to replace an existing file.

        Raises:
            InnerloopError: before `fit`, for an existing file without `overwrite`, or for labels that JSON cannot
                represent.
        """
        from innerloop.learner import persistence

        self._check_fitted("Learner.save_adapted")
        persistence.save(self, as_path(path), overwrite=overwrite)

    def load_adapted(self, path: str | Path) -> "Learner":
        """Load a file that `save_adapted` wrote.

        Args:
            path: the file.

        Returns:
            The learner itself.

        Raises:
            InnerloopError: for a file of another model, or a file that is not an adapted learner.
        """
        from innerloop.learner import persistence

        persistence.load(self, as_path(path))
        return self

    def export(
        self, path: str | Path, format: ExportFormat | None = None, *, overwrite: bool = False
    ) -> None:
        """Export the adapted network to a file that other programs can run without innerloop.

        Its input `inputs`, `[batch, ...]` for any batch size, takes what `predict` takes, in the type that `fit` was
        given: bytes (scaled to [0, 1] inside), int32 or float32. Its output is `probabilities`, `[batch, ways]` in the
        order of `classes_`, or the `values` of a regressor. The file contains the examples of `fit` only if
        predictions need them, as in `save_adapted`; with transductive `normalization`, each batch is normalised by
        itself.

        Args:
            path: the file.
            format: `stablehlo` (read by `jax.export.deserialize`, needs `innerloop[stablehlo]`) or `onnx` (for
                onnxruntime and others, needs `innerloop[onnx]`). None: from the file name's suffix.
            overwrite: whether to replace an existing file.

        Raises:
            InnerloopError: before `fit`, or for an unknown format, a package that is not installed, a model that the
                format cannot express, an existing file without `overwrite`, or a path that cannot be written.
        """
        from innerloop.learner import exporting

        self._check_fitted("Learner.export")
        exporting.export(self, as_path(path), format, overwrite=overwrite)

    @property
    def _dtype(self) -> np.dtype:
        """The type of floats that the model reads: float64 if a parameter has this type, else float32."""
        return np.dtype(jnp.result_type(np.float32, *jax.tree.leaves(self.params)))

    def _inputs(self, x: object, who: str) -> np.ndarray:
        inputs = validation.as_inputs(x, self.shape, self._dtype, who)
        if self.pixels:
            validation.check_unit_range(inputs, who)
        return inputs

    def _predict_outputs(self, x: object, who: str) -> np.ndarray:
        """The outputs in use for `x`, `[examples, ...]`."""
        self._check_fitted(who)
        inputs = self._inputs(x, who)
        validation.check_example_shape(inputs.shape[1:], self.support_.shape[1:], who)
        validation.check_same_numbers(x, self.numbers_, who)
        ways = len(self.classes_) if self.classification else None
        return self._programs.outputs(self.params_, self.support_, inputs, ways)

    def _check_fitted(self, who: str) -> None:
        if self.params_ is None:
            raise not_fitted()(who, "the learner is not fitted", hint="call fit(x, y) first")
