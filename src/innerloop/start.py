"""Where meta-training begins: random weights, or the body of a trained model under a new head.

A body that was trained to tell all training classes apart is a far better place to begin than random weights, and
meta-training from it takes a fraction of the steps (Ye and Chao 2022, "How to Train Your MAML to Excel in Few-Shot
Classification", begin so throughout).
"""

import hashlib

import jax
import numpy as np

from innerloop import weights
from innerloop.config import Config
from innerloop.errors import InnerloopError
from innerloop.experiment import Experiment
from innerloop.task import Params
from innerloop.trained import weights_path
from innerloop.tree import chosen, paths


def first_params(experiment: Experiment) -> Params:
    """The weights before the first meta-step. Raises InnerloopError if the model to start from does not fit."""
    fresh, source = experiment.init_params(), experiment.config.model.start
    return with_body(fresh, source) if source else fresh


def with_body(fresh: Params, source: str) -> Params:
    """`fresh` with the values of a trained model, and zeros for a head of another shape.

    `source` is a run's folder, a weights file, or the name of a shipped model. Raises InnerloopError if there is no
    such model, or if its body is another one.
    """
    arrays = weights.load(weights_path(source))[0]
    own = dict(zip(paths(fresh), jax.tree.leaves(fresh), strict=True))
    head = {path for path in own if chosen("head", path)}
    if any(path not in arrays or arrays[path].shape != own[path].shape for path in head):
        arrays = {path: x for path, x in arrays.items() if path not in head}
        arrays |= {path: np.zeros_like(own[path]) for path in head}
    try:
        return weights.into(fresh, arrays, source)
    except InnerloopError as error:
        do = (
            "start from a model of the same --model.* settings and size of images, or anew (--model.start '')"
        )
        raise InnerloopError("--model.start", f"does not fit: {error}", do=do) from None


def hash_of_start(config: Config) -> dict[str, str]:
    """SHA-256 of the file that training begins from, by the name `start`; nothing for random weights."""
    if not config.model.start:
        return {}
    return {"start": hashlib.sha256(weights_path(config.model.start).read_bytes()).hexdigest()}
