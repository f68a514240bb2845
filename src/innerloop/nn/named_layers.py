"""Named layers of any pytree model: the parameters of each, and its output.

The built-in networks are supported directly. For a model of your own:

    NamedLayers({"first": "encoder/0", "second": "encoder/1", "head": "readout"}, activations)

where `activations(params, inputs)` returns the output of every layer by name, `[examples, ..., neurons]`. The last
layer is the head; the others, from input to output, are the body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.pytree import Selection, is_selected, paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.nn import MLP, Conv4
from innerloop.nn.masks import flat_examples


@dataclass(frozen=True)
class NamedLayers:
    """The layers of a model from input to output, the head last.

    Attributes:
        selections: the parameters of each layer, by tree path.
        activations: `(params, inputs) -> {layer: output}`, outputs `[examples, ..., neurons]`. If the loss has model
            state, `params` is `Adapted(params, state)`.
        features: `(params, inputs) -> [examples, features]`, the input of the head (None: the output of the last body
            layer, flattened).

    Raises:
        InnerloopError: if there are fewer than two layers.
    """

    selections: dict[str, Selection]
    activations: Callable[..., dict[str, Array]]
    features: Callable[..., Array] | None = None

    def __post_init__(self) -> None:
        if len(self.selections) < 2:
            got = list(self.selections)
            raise InnerloopError("NamedLayers", "needs at least two layers, a body and a head", got=got)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all layers."""
        return tuple(self.selections)

    @property
    def body(self) -> tuple[str, ...]:
        """The names of all layers but the head."""
        return self.names[:-1]

    @property
    def head(self) -> str:
        """The name of the last layer."""
        return self.names[-1]

    def embed(self, params: Params, inputs: PyTree) -> Float[Array, "examples features"]:
        """The input of the head."""
        if self.features is not None:
            return self.features(params, inputs)
        return flat_examples(self.activations(params, inputs)[self.body[-1]])

    def owns(self, names: Sequence[str]) -> Callable[[str], bool]:
        """A function that tells whether a parameter's path belongs to one of these layers.

        Raises:
            InnerloopError: if a name is unknown.
        """
        for name in names:
            check_choice("layers", "layer", name, self.selections)
        return lambda path: any(is_selected(self.selections[name], path) for name in names)

    def parts(self, tree: PyTree) -> dict[str, list[Array]]:
        """The leaves of a tree with the structure of the parameters, by layer."""
        leaves = list(zip(paths(tree), jax.tree.leaves(tree), strict=True))
        found = {}
        for name in self.names:
            owned = self.owns([name])
            found[name] = [leaf for path, leaf in leaves if owned(path)]
        return found

    def check(self, params: Params) -> None:
        """Raise InnerloopError unless every layer has parameters."""
        for name, leaves in self.parts(params).items():
            if not leaves:
                hint = "choose among: " + ", ".join(paths(params))
                raise InnerloopError("NamedLayers", f"layer {name!r} has no parameter", hint=hint)


def named_layers(model: PyTree) -> NamedLayers:
    """The layers of a built-in network.

    Raises:
        InnerloopError: if the model is not a built-in one.
    """
    if not isinstance(model, Conv4 | MLP):
        hint = "name its layers with `innerloop.analysis.NamedLayers`"
        raise InnerloopError("layers", "the model is not a built-in one", got=type(model).__name__, hint=hint)
    normalized = isinstance(model, MLP) and model.norms
    selections: dict[str, Selection] = {
        name: [f"body/{i}", f"norms/{i}"] if normalized else f"body/{i}"
        for i, name in enumerate(_body_names(model))
    }
    return NamedLayers({**selections, "head": "head"}, _activations, type(model).embed)


def _body_names(model: Conv4 | MLP) -> list[str]:
    """The names of the layers of a built-in network's body."""
    kind = "conv" if isinstance(model, Conv4) else "hidden"
    return [f"{kind}{i}" for i in range(1, len(model.body) + 1)]


def _activations(model: Conv4 | MLP, inputs: Float[Array, "examples *shape"]) -> dict[str, Array]:
    """The output of each layer of a built-in network's body, and its scores."""
    outputs = model.layer_outputs(inputs)[1:]
    features = model.pooled(outputs[-1]) if isinstance(model, Conv4) else outputs[-1]
    return {**dict(zip(_body_names(model), outputs, strict=True)), "head": model.head(features)}
