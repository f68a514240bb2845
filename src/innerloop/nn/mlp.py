"""Fully connected networks: the sinusoid regressors, and MAML's Omniglot network without convolutions."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.engine.keys import check_key
from innerloop.errors import check_choice, check_count, check_counts, check_flag
from innerloop.nn.layers import BatchNorm, Linear
from innerloop.nn.masks import flat_examples

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class MLP(eqx.Module):
    """A fully connected network; `body` holds the hidden layers, `head` the linear layer that ANIL adapts.

    `context` is a vector of additional inputs, the same for all examples, that CAVIA adapts; it starts at zero.

    MAML's sinusoid: hidden (40, 40), ReLU, truncated normal weights with standard deviation 0.01.
    Reptile's sinusoid: hidden (64, 64), tanh. MAML's Omniglot network without convolutions: hidden
    (256, 128, 64, 64), ReLU, batch normalisation (section 5.2).
    """

    body: tuple[Linear, ...]
    norms: tuple[BatchNorm, ...]
    head: Linear
    context: Float[Array, " context"] | None
    activation: Literal["relu", "tanh"] = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: tuple[int, ...] = (40, 40),
        activation: Literal["relu", "tanh"] = "relu",
        normalize: bool = False,
        scale: float | None = None,
        context: int = 0,
        key: PRNGKeyArray,
    ):
        """Initialise the weights.

        Args:
            inputs: the number of inputs per example, over all its axes.
            outputs: the number of outputs.
            hidden: the widths of the hidden layers.
            activation: the activation function after every hidden layer.
            normalize: whether to apply batch normalisation before the activation.
            scale: the standard deviation of truncated normal weights (None: Glorot uniform).
            context: the number of context parameters (0: none).
            key: the key for the random weights.

        Raises:
            InnerloopError: if the activation is unknown, a size is not a whole number, `normalize` is not a
                boolean, or `key` is not a key.
        """
        check_choice("MLP", "activation", activation, ACTIVATIONS)
        check_flag("MLP", "normalize", normalize)
        check_key(key, "MLP")
        inputs, outputs = check_count("MLP", "inputs", inputs, 0), check_count("MLP", "outputs", outputs)
        hidden, context = check_counts("MLP", "hidden", hidden), check_count("MLP", "context", context, 0)
        keys = jax.random.split(key, len(hidden) + 1)
        widths = (inputs + context, *hidden)
        self.body = tuple(
            Linear(widths[i], widths[i + 1], key=keys[i], scale=scale) for i in range(len(hidden))
        )
        self.norms = tuple(BatchNorm(width) for width in hidden) if normalize else ()
        self.head = Linear(widths[-1], outputs, key=keys[-1], scale=scale)
        self.context = jnp.zeros(context) if context else None
        self.activation = activation

    def inputs(self, x: Float[Array, "examples *shape"]) -> Float[Array, "examples inputs"]:
        """The input of the first layer: the flattened examples, and the context."""
        x = flat_examples(x)
        if self.context is None:
            return x
        return jnp.concatenate([x, jnp.broadcast_to(self.context, (x.shape[0], len(self.context)))], axis=1)

    def layer_outputs(self, x: Float[Array, "examples *shape"], reference: int | None = None) -> list[Array]:
        """The input of the first layer, and the output of each hidden layer after its activation."""
        outputs = [self.inputs(x)]
        for i, layer in enumerate(self.body):
            x = layer(outputs[-1])
            x = self.norms[i](x, reference) if self.norms else x
            outputs.append(ACTIVATIONS[self.activation](x))
        return outputs

    def embed(
        self, x: Float[Array, "examples *shape"], reference: int | None = None
    ) -> Float[Array, "examples features"]:
        """The features that the body computes for the head, `[examples, hidden[-1]]`."""
        return self.layer_outputs(x, reference)[-1]

    def __call__(
        self, x: Float[Array, "examples *shape"], reference: int | None = None
    ) -> Float[Array, "examples outputs"]:
        """Apply to a batch; `reference` leading examples give the normalisation statistics (None: all)."""
        return self.head(self.embed(x, reference))
