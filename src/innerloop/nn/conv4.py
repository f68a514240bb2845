"""The four-block convolutional network of the few-shot papers, in its variants.

Omniglot (MAML, section 5.2): 64 filters, stride 2, mean over the last 2x2 positions, linear head.
Omniglot (Reptile): the same, flattened to 256 features instead of the mean.
mini-ImageNet and CIFAR-FS (MAML): 32 filters, stride 1 with 2x2 max-pooling, flattened.
"""

from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.engine.keys import check_key
from innerloop.errors import InnerloopError, check_choice, check_count, check_counts
from innerloop.nn.kernels.im2col import Images
from innerloop.nn.layers import ConvBlock, Linear
from innerloop.nn.masks import flat_examples


class Conv4(eqx.Module):
    """Maps images to class scores; `body` holds the four blocks, `head` the linear layer that ANIL adapts."""

    body: tuple[ConvBlock, ...]
    head: Linear
    features: Literal["mean", "flatten"] = eqx.field(static=True)

    def __init__(
        self,
        ways: int,
        *,
        image_shape: tuple[int, int, int],
        filters: int = 64,
        downsample: Literal["stride", "pool"] = "stride",
        features: Literal["mean", "flatten"] = "mean",
        key: PRNGKeyArray,
    ):
        """Initialise the weights.

        Args:
            ways: the number of classes.
            image_shape: height, width and channels.
            filters: the number of filters of each convolution.
            downsample: `stride` (strided convolutions) or `pool` (2x2 max-pooling).
            features: what the head sees of the last block: its `mean` over positions, or all of it (`flatten`).
            key: the key for the random weights.

        Raises:
            InnerloopError: if the images are smaller than 16 x 16, or `downsample` or `features` is unknown.
        """
        check_choice("Conv4", "downsample", downsample, ("stride", "pool"))
        check_choice("Conv4", "features", features, ("mean", "flatten"))
        check_key(key, "Conv4")
        ways, filters = check_count("Conv4", "ways", ways), check_count("Conv4", "filters", filters)
        height, width, channels = check_counts("Conv4", "image_shape", image_shape, 3)
        if min(height, width) < 16:
            raise InnerloopError(
                "Conv4", "four halvings need images of at least 16 by 16", got=image_shape, hint="resize them"
            )
        keys = jax.random.split(key, 5)
        stride = 2 if downsample == "stride" else 1
        widths = (channels, filters, filters, filters)
        self.body = tuple(
            ConvBlock(w, filters, stride=stride, key=k) for w, k in zip(widths, keys[:4], strict=True)
        )
        last_side = lambda side: -(-side // 16) if downsample == "stride" else side // 16
        places = 1 if features == "mean" else last_side(height) * last_side(width)
        self.head = Linear(filters * places, ways, key=keys[4])
        self.features = features

    def layer_outputs(self, images: Images, reference: int | None = None) -> list[Array]:
        """The images, and the output of each block after normalisation, ReLU and pooling."""
        outputs = [images]
        for block in self.body:
            outputs.append(block(outputs[-1], reference))
        return outputs

    def embed(self, images: Images, reference: int | None = None) -> Float[Array, "examples features"]:
        """The features that the body computes for the head."""
        return self.pooled(self.layer_outputs(images, reference)[-1])

    def pooled(self, x: Images) -> Float[Array, "examples features"]:
        """What the head sees of the last block's output."""
        return x.mean((1, 2)) if self.features == "mean" else flat_examples(x)

    def __call__(self, images: Images, reference: int | None = None) -> Float[Array, "examples ways"]:
        """Class scores; `reference` leading examples give the normalisation statistics (None: all)."""
        return self.head(self.embed(images, reference))
