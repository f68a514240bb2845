"""The named layers of built-in networks and of a model of one's own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from analysis_cases import KEY, LAYERS, activations, own

from innerloop.analysis import NamedLayers, named_layers
from innerloop.engine.pytree import paths
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4


def test_named_layers_of_built_in_networks():
    """Names, parameters and activations; the last activation is what the network answers."""
    conv = Conv4(5, image_shape=(16, 16, 1), filters=4, features="mean", key=KEY)
    mlp = MLP(16, 5, hidden=(8, 6), normalize=True, key=KEY)
    images = jax.random.normal(KEY, (7, 16, 16, 1))
    for model, inputs, names in ((conv, images, 5), (mlp, images[:, :4, :4], 3)):
        layers = named_layers(model)
        layers.check(model)
        parts = layers.parts(model)
        assert len(layers.names) == names
        assert sum(len(x) for x in parts.values()) == len(paths(model))
        seen = layers.activations(model, inputs)
        assert tuple(seen) == layers.names
        assert jnp.allclose(seen["head"], model(inputs), atol=1e-6)
        assert jnp.allclose(layers.embed(model, inputs), model.embed(inputs), atol=1e-6)
        once, whole = (jax.make_jaxpr(f)(model, inputs) for f in (layers.activations, type(model).__call__))
        assert len(once.eqns) == len(whole.eqns)  # the body is computed once
    assert jnp.allclose(seen["hidden2"], mlp.embed(images[:, :4, :4]), atol=1e-6)


def test_named_layers_of_custom_models():
    assert (LAYERS.body, LAYERS.head) == (("first",), "out")
    x = jnp.ones((3, 1))
    assert jnp.array_equal(LAYERS.embed(own().params, x), activations(own().params, x)["first"])
    with pytest.raises(InnerloopError, match="a body and a head, got \\['a'\\]"):
        NamedLayers({"a": "a"}, activations)
    with pytest.raises(InnerloopError, match="layer 'lost' has no parameter; choose among: deep/first, out"):
        replace(own(), layers=NamedLayers({"lost": "nowhere", "out": "out"}, activations))
    with pytest.raises(InnerloopError, match="the model is not a built-in one, got dict; name its layers"):
        named_layers({"a": 1})
