"""Named layers of any pytree model: which parameters each has, and what it computes.

The built-in networks are known. For a model of one's own:

    NamedLayers({"first": "encoder/0", "second": "encoder/1", "head": "readout"}, activations)

where `activations(params, inputs)` gives every layer's output by name, `[examples, ..., neurons]`. The last layer is
the head; the others, in the order of the data, are the body.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, PyTree

from innerloop.engine.pytree import Selection, chosen, paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.nn.mlp import ACTIVATIONS


@dataclass(frozen=True)
class NamedLayers:
    """Layers in the order of the data, the head last.

    selections: the parameters of each layer, by tree path. activations: `(params, inputs) -> {layer: output}`.
    features: `(params, inputs) -> [examples, features]`, what the head sees (None: the last body layer, flattened).
    """

    selections: dict[str, Selection]
    activations: Callable[..., dict[str, Array]]
    features: Callable[..., Array] | None = None

    def __post_init__(self) -> None:
        if len(self.selections) < 2:
            got = list(self.selections)
            raise InnerloopError("NamedLayers", "needs a body and a head: two layers at least", got=got)

    @property
    def names(self) -> tuple[str, ...]:
        """All layers."""
        return tuple(self.selections)

    @property
    def body(self) -> tuple[str, ...]:
        """All layers but the head."""
        return self.names[:-1]

    @property
    def head(self) -> str:
        """The last layer."""
        return self.names[-1]

    def embed(self, params: Params, inputs: PyTree) -> Float[Array, "examples features"]:
        """Penultimate features."""
        if self.features is not None:
            return self.features(params, inputs)
        last = self.activations(params, inputs)[self.body[-1]]
        return last.reshape(last.shape[0], -1)

    def owns(self, names: Sequence[str]) -> Callable[[str], bool]:
        """Whether a parameter's path belongs to one of the layers. Raises InnerloopError for unknown names."""
        for name in names:
            if name not in self.selections:
                do = "choose among: " + ", ".join(self.names)
                raise InnerloopError("layers", "there is none of this name", got=repr(name), do=do)
        return lambda path: any(chosen(self.selections[name], path) for name in names)

    def parts(self, tree: PyTree) -> dict[str, list[Array]]:
        """A parameter-shaped tree's leaves, layer by layer."""
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
                do = "choose among: " + ", ".join(paths(params))
                raise InnerloopError("NamedLayers", f"layer {name!r} has no parameter", do=do)


def named_layers(model: PyTree) -> NamedLayers:
    """The layers of a built-in network. Raises InnerloopError for any other model."""
    if isinstance(model, Conv4):
        body: dict[str, Selection] = {f"conv{i}": f"body/{i - 1}" for i in range(1, len(model.body) + 1)}
        return NamedLayers({**body, "head": "head"}, _conv4_activations, _embed)
    if isinstance(model, MLP):
        count = len(model.body)
        normed = lambda i: [f"body/{i}", f"norms/{i}"] if model.norms else [f"body/{i}"]
        body = {f"hidden{i + 1}": normed(i) for i in range(count)}
        return NamedLayers({**body, "head": "head"}, _mlp_activations, _embed)
    do = "name its layers with `innerloop.analysis.NamedLayers`"
    raise InnerloopError("layers", "the model is none of ours", got=type(model).__name__, do=do)


def _embed(model: Conv4 | MLP, inputs: Array) -> Array:
    """The built-in networks' own features."""
    return model.embed(inputs)


def _conv4_activations(
    model: Conv4, images: Float[Array, "examples height width channels"]
) -> dict[str, Array]:
    """Each block's output after normalisation, ReLU and pooling, and the scores."""
    found: dict[str, Array] = {}
    x = images
    for i, block in enumerate(model.body, 1):
        found[f"conv{i}"] = x = block(x)
    return {**found, "head": model(images)}


def _mlp_activations(model: MLP, inputs: Float[Array, "examples *shape"]) -> dict[str, Array]:
    """Each hidden layer's output after its activation, and the outputs."""
    found: dict[str, Array] = {}
    x = inputs.reshape(inputs.shape[0], -1)
    for i, layer in enumerate(model.body):
        x = layer(x)
        x = model.norms[i](x) if model.norms else x
        found[f"hidden{i + 1}"] = x = ACTIVATIONS[model.activation](x)
    return {**found, "head": model.head(x)}
