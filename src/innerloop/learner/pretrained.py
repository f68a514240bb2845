"""Trained initialisations without their training data: the model is built from the config alone."""

from pathlib import Path

import jax
import numpy as np

from innerloop.config.schema import Config
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.learner.validation import Shape
from innerloop.training.experiments.models import fresh_model, sinusoid_shape
from innerloop.training.experiments.supervised import SupervisedExperiment
from innerloop.training.memory import model_size
from innerloop.training.storage import weights
from innerloop.training.storage.sources import load_weights
from innerloop.training.warm_start import MODEL, zero_head


def refuse_policies(config: Config) -> None:
    """Raise InnerloopError for an RL policy, which adapts from trajectories, not from labelled examples."""
    if config.reinforcement:
        hint = "measure it with `innerloop evaluate`, or act with it through `innerloop.rl`"
        raise InnerloopError(
            config.name, "is an RL policy; it adapts from trajectories, not from labelled examples", hint=hint
        )


def load_initialisation(source: str | Path) -> tuple[Params, SupervisedExperiment, Shape | None]:
    """Load a trained initialisation without its training data.

    Args:
        source: a run's folder, a `.safetensors` file, or a preset with bundled weights.

    Returns:
        Meta-parameters, the experiment without its data, and the shape of one example (None: any shape).

    Raises:
        InnerloopError: if there is no such source, it is an RL policy, or the weights do not fit the config's model.
    """
    path, arrays, config, _ = load_weights(source)
    refuse_policies(config)
    network = _first_layers(config, arrays, str(path))
    shape = _example_shape(config, network)
    experiment = SupervisedExperiment(config)
    build = lambda: fresh_model(config, _shape_to_build(config, shape, network), jax.random.key(0))
    like = model_size.shapes_of(lambda: experiment.algorithm.init(build()), str(path))
    if experiment.pretrains:
        arrays = arrays | zero_head(like)  # the trained head has one output per training class
    return weights.into(like, arrays, str(path)), experiment, shape


def _first_layers(config: Config, arrays: dict[str, np.ndarray], who: str) -> dict[str, np.ndarray]:
    """The arrays by their names in the network. Raises InnerloopError if they belong to another kind of network."""
    model_size.check_stored(config, arrays, who)
    network = {name.removeprefix(MODEL): x for name, x in arrays.items()}
    if "head/weight" in network:  # without hidden layers, the head is the first layer
        network.setdefault("body/0/weight", network["head/weight"])
    for name, axes in (("body/0/weight", 4 if config.model.kind == "conv4" else 2), ("head/weight", 2)):
        if name not in network or network[name].ndim != axes:
            got = network[name].shape if name in network else "none of this name"
            raise InnerloopError(who, f"`{name}` must have {axes} axes", got=got)
    return network


def _example_shape(config: Config, arrays: dict[str, np.ndarray]) -> Shape | None:
    """The shape of one example, as far as config and weights determine it."""
    if config.data.spec.needs_file:
        return (_inputs(config, arrays),)
    if config.data.spec.kind == "regression":
        return sinusoid_shape(config)
    if config.data.spec.image_shape is not None:
        return config.data.spec.image_shape
    side = config.data.size or None
    if config.model.kind == "conv4":
        return side, side, arrays["body/0/weight"].shape[2]
    return None if side is None else (side, side, _inputs(config, arrays) // side**2)


def _inputs(config: Config, arrays: dict[str, np.ndarray]) -> int:
    """How many numbers of an example the first fully connected layer sees, not counting the context."""
    return len(arrays["body/0/weight"]) - config.model.context


def _shape_to_build(config: Config, shape: Shape | None, arrays: dict[str, np.ndarray]) -> tuple[int, ...]:
    """A full example shape for which the model has weights of these shapes."""
    if shape is None:
        return (_inputs(config, arrays),)
    if None not in shape:
        return tuple(side for side in shape if side is not None)
    # Four halvings leave one position of 16 by 16 pixels, so a strip of n such squares gives the head n positions.
    positions = len(arrays["head/weight"]) // config.model.filters
    return 16, 16 * positions, int(arrays["body/0/weight"].shape[2])
