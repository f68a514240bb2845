"""A fitted learner's task as one safetensors file: adapted parameters, examples, classes. It holds no pickle."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from innerloop import labelled, weights
from innerloop.errors import InnerloopError
from innerloop.tree import paths

if TYPE_CHECKING:
    from innerloop.learner import Learner


def save(learner: "Learner", path: Path) -> None:
    """Write the task. Raises InnerloopError for labels that JSON does not hold."""
    leaves = zip(paths(learner.params_), jax.tree.leaves(learner.params_), strict=True)
    arrays = {f"params/{name}": np.asarray(leaf) for name, leaf in leaves}
    # The examples too: predictions may be normalised by their statistics.
    arrays |= {"support": learner.support, "losses": learner.losses_}
    labels = learner.classes_.tolist() if learner.classification else None
    target_shape = None if learner.classification else list(learner.target_shape)
    try:
        text = json.dumps({"classes": labels, "target_shape": target_shape})
    except TypeError as error:
        do = "use strings, numbers or tuples of them as labels"
        raise InnerloopError("Learner.save_adapted", f"the labels cannot be saved ({error})", do=do) from None
    draft = path.with_name(f".{path.name}.tmp")
    save_file(arrays, draft, metadata={"learner": text})
    draft.replace(path)


def load(learner: "Learner", path: Path) -> None:
    """Give the learner the saved task. Raises InnerloopError for a file that is none, or of another model."""
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})["learner"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        wrong = f"holds no adapted learner ({type(error).__name__}: {error})"
        raise InnerloopError(str(path), wrong) from None
    if (facts["classes"] is not None) != learner.classification:
        raise InnerloopError(str(path), "one of the two is a classifier and the other a regressor")
    support, losses = arrays.pop("support"), arrays.pop("losses")
    found = {name.removeprefix("params/"): array for name, array in arrays.items()}
    learner.params_ = weights.into(learner.params, found, str(path))
    learner.support, learner.losses_ = support, losses
    if learner.classification:
        learner.classes_ = labelled.as_array([hashable(label) for label in facts["classes"]])
    else:
        learner.target_shape = tuple(facts["target_shape"])


def hashable(label: Any) -> Any:
    """Tuples, which JSON gives back as lists."""
    return tuple(hashable(part) for part in label) if isinstance(label, list) else label
