"""An adapted network as one function of one array: scaling of the inputs, weights, normalisation, probabilities.

What `Learner.predict` does in NumPy around the model is part of the function, so that its inputs are what users pass to
`predict`. The support examples are in it only if predictions need them, as in a file of `save_adapted`.
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
from innerloop.learner.outputs import in_use
from innerloop.learner.persistence import needs_examples
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
        dtype: of the inputs; bytes are scaled to [0, 1] by the function.
        output: the name of the output: `probabilities`, or `values` for a regressor.
        classes: the labels, in the order of the columns of the probabilities (None: a regressor).
        normalization: which batch normalises an example.
        holds_examples: whether the support examples are a part of it.
    """

    function: Step
    shape: tuple[int, ...]
    dtype: str
    output: str
    classes: list[object] | None
    normalization: Normalization
    holds_examples: bool

    @property
    def one_by_one(self) -> Step:
        """The same, taking the examples of a batch one by one; not for `transductive` networks."""
        return jax.vmap(lambda example: self.function(example[None])[0])


def network_of(
    learner: "Learner",
    before: Step | None = None,
    after: Step | None = None,
    shape: tuple[int, ...] | None = None,
) -> Network:
    """The network of a fitted learner.

    Args:
        learner: the learner, after `fit`.
        before: what is done to the numbers of a batch first, as float32 where they are bytes (None: nothing).
        after: what is done to a regressor's values at the end (None: nothing).
        shape: the shape of one example before `before` (None: as the model takes it).
    """
    numbers = numbers_in_use(learner)
    held = needs_examples(learner, learner.params_, learner.support_)
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
    """The type of the model's inputs beside its parameters; their own if it takes no other, as an embedding does.

    JAX promotes a product's operands by itself. What jax2onnx makes of that, other programs do not take.
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
    """The model's outputs in use; without examples where these change nothing, as `transductive` has it."""
    ways = len(learner.classes_) if learner.classification else None
    apply, params = learner.loss.predictor(learner.params_)
    support = jnp.asarray(learner.support_ if held else learner.support_[:0])
    mode = learner.normalization if held else "transductive"
    return lambda x: in_use(predict(apply, params, support, x, mode), ways)


def _finished(learner: "Learner", outputs: Array, after: Step | None) -> Array:
    """Probabilities, or values in the shape that y had in `fit`."""
    if learner.classification:
        return jax.nn.softmax(outputs)
    values = outputs.reshape(outputs.shape[0], *learner.target_shape_)
    return values if after is None else after(values)


def difference(found: np.ndarray, wanted: np.ndarray, close: float) -> str:
    """How outputs differ from those that are wanted; empty if they do not, beside the largest of these."""
    if found.shape != wanted.shape:
        return f"outputs of shape {found.shape} instead of {wanted.shape}"
    largest = np.abs(found - wanted).max()
    return (
        "" if largest <= close * max(1.0, np.abs(wanted).max()) else f"outputs that differ by {largest:.1e}"
    )
