"""The configured model before training."""

import math

from jaxtyping import PRNGKeyArray

from innerloop.config.schema import Config
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4


def sinusoid_shape(config: Config) -> tuple[int]:
    """Shape of one input of the sinusoids."""
    return (3,) if config.data.oracle else (1,)


def fresh_model(
    config: Config, shape: tuple[int, ...], key: PRNGKeyArray, outputs: int | None = None
) -> Params:
    """The configured model before training, for examples of `shape` (`outputs` replaces the config's number)."""
    m = config.model
    if outputs is None:
        outputs = config.data.outputs
    if m.kind == "mlp":
        return MLP(
            math.prod(shape),
            outputs,
            hidden=m.hidden,
            activation=m.activation,
            normalize=m.normalize,
            scale=m.scale,
            context=m.context,
            key=key,
        )
    if m.context:
        hint = "use `mlp`, or leave `model.context` at 0"
        raise InnerloopError("model.context", "`conv4` has no context parameters", got=m.context, hint=hint)
    if len(shape) != 3:
        raise InnerloopError(
            "model", "`conv4` needs images", got=f"inputs of shape {shape}", hint="use `mlp`"
        )
    return Conv4(
        outputs, image_shape=shape, filters=m.filters, downsample=m.downsample, features=m.features, key=key
    )
