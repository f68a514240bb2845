"""An adapted network as one function of one array: scaling of the inputs, weights, normalisation, probabilities.

The function includes what `Learner.predict` does in NumPy around the model, so its inputs are what users pass to
`predict`. It contains the support examples only if predictions need them, as in a file of `save_adapted`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from innerloop.config.schema import Normalization
from innerloop.learner.outputs import active_outputs
from innerloop.learner.samples import numbers_in_use
from innerloop.learner.validation import Numbers
from innerloop.nn.normalization import predict

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner

INPUT = "inputs"
"""The name of the input."""

DTYPES: dict[Numbers, str] = {"bytes": "uint8", "whole numbers": "int32", "floats": "float32"}

Step = Callable[[Array], Array]


@dataclass(frozen=True)
class Network:
    """An adapted network as other programs see it.

    Attributes:
        function: `inputs -> outputs`, both with the batch as their first axis.
        shape: the shape of one example.
        dtype: the type of the inputs; the function scales bytes to [0, 1].
        output: the name of the output: `probabilities`, or `values` for a regressor.
        classes: the labels, in the order of the columns of the probabilities (None: a regressor).
        normalization: which batch normalises an example.
        holds_examples: whether it contains the support examples.
    """

    function: Step
    shape: tuple[int, ...]
    dtype: str
    output: str
    classes: list[object] | None
    normalization: Normalization
    holds_examples: bool


def network_of(
    learner: "Learner",
    before: Step | None = None,
    after: Step | None = None,
    shape: tuple[int, ...] | None = None,
) -> Network:
    """The network of a fitted learner.

    Args:
        learner: the learner, after `fit`.
        before: preprocessing of a batch, as float32 if it holds bytes (None: none).
        after: postprocessing of a regressor's values (None: none).
        shape: the shape of one example before preprocessing (None: as the model takes it).
    """
    numbers = numbers_in_use(learner)
    held = learner._programs.needs_examples(learner.params_, learner.support_)
    outputs = _outputs(learner, held)
    dtype = _promoted(learner, outputs)
    function = lambda x: _finished(learner, outputs(_prepared(x, numbers, before).astype(dtype)), after)
    return Network(
        function,
        learner.support_.shape[1:] if shape is None else shape,
        DTYPES[numbers],
        "probabilities" if learner.classification else "values",
        learner.classes_.tolist() if learner.classification else None,
        learner.normalization,
        held,
    )


def _prepared(x: Array, numbers: Numbers, before: Step | None) -> Array:
    """The inputs of the model."""
    x = x.astype(jnp.float32) if numbers == "bytes" else x
    x = x if before is None else before(x)
    return x / jnp.float32(255) if numbers == "bytes" else x


def _promoted(learner: "Learner", outputs: Step) -> DTypeLike:
    """The inputs' type promoted with the parameters'; unpromoted if the model takes no other, as an embedding does.

    JAX promotes a product's operands by itself, but other programs reject what jax2onnx makes of that.
    """
    own = learner.support_.dtype
    dtype = jnp.result_type(own, *jax.tree.leaves(learner.params_))
    like = lambda dtype: jax.ShapeDtypeStruct((2, *learner.support_.shape[1:]), dtype)
    try:
        same = jax.eval_shape(outputs, like(dtype)) == jax.eval_shape(outputs, like(own))
    except (TypeError, ValueError, IndexError):
        return own
    return dtype if same else own


def _outputs(learner: "Learner", held: bool) -> Step:
    """The model's outputs in use; without the examples if these change nothing, as in `transductive`."""
    ways = len(learner.classes_) if learner.classification else None
    apply, params = learner.loss.predictor(learner.params_)
    support = jnp.asarray(learner.support_ if held else learner.support_[:0])
    mode = learner.normalization if held else "transductive"
    return lambda x: active_outputs(predict(apply, params, support, x, mode), ways)


def _finished(learner: "Learner", outputs: Array, after: Step | None) -> Array:
    """Probabilities, or values in the shape that y had in `fit`."""
    if learner.classification:
        return jax.nn.softmax(outputs)
    values = outputs.reshape(outputs.shape[0], *learner.target_shape_)
    return values if after is None else after(values)


def difference(found: np.ndarray, wanted: np.ndarray, close: float) -> str:
    """How outputs differ from the wanted ones, relative to the largest of these; empty if they are close."""
    if found.shape != wanted.shape:
        return f"outputs of shape {found.shape} instead of {wanted.shape}"
    largest = np.abs(found - wanted).max()
    return (
        "" if largest <= close * max(1.0, np.abs(wanted).max()) else f"outputs that differ by {largest:.1e}"
    )
