"""An adapted learner as one safetensors file: adapted parameters, examples, classes. It holds no pickle."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from innerloop.engine.pytree import paths
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.files import cannot_write, output, replacing
from innerloop.io.untrusted import parse_json
from innerloop.learner import validation
from innerloop.training.storage import weights

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner


def save(learner: "Learner", path: Path, *, overwrite: bool = False) -> None:
    """Write an adapted learner.

    Args:
        learner: the learner, after `fit`.
        path: the file.
        overwrite: whether to replace an existing file.

    Raises:
        InnerloopError: for labels that JSON cannot hold, an existing file without `overwrite`, and a path that cannot
            be written.
    """
    leaves = zip(paths(learner.params_), jax.tree.leaves(learner.params_), strict=True)
    arrays = {f"params/{name}": np.asarray(leaf) for name, leaf in leaves}
    # Predictions may be normalised by the statistics of the examples.
    arrays |= {"support": learner.support, "losses": learner.losses_}
    labels = learner.classes_.tolist() if learner.classification else None
    target_shape = None if learner.classification else list(learner.target_shape)
    try:
        text = json.dumps({"classes": labels, "target_shape": target_shape})
    except TypeError as error:
        do = "use strings, numbers or tuples of them as labels"
        raise InnerloopError("Learner.save_adapted", f"the labels cannot be saved ({error})", do=do) from None
    do = "give a path in a folder that is there"
    target = output(path, overwrite=overwrite)
    with cannot_write(target, do), replacing(target, overwrite=overwrite) as draft:
        safetensors_writer.write_draft(draft, arrays, {"learner": text}, path=path, do=do)


def load(learner: "Learner", path: Path) -> None:
    """Restore an adapted learner.

    Args:
        learner: a learner on the same model.
        path: the file.

    Raises:
        InnerloopError: for any other file, and for a file of another model.
    """
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    lacks = [name for name in ("support", "losses") if name not in arrays]
    if lacks or "learner" not in metadata:
        raise InnerloopError(str(path), f"holds no adapted learner (no {(lacks or ['learner'])[0]} in it)")
    support, losses, text = arrays.pop("support"), arrays.pop("losses"), metadata["learner"]
    classes, target_shape = _facts_of(text, str(path))
    if (classes is not None) != learner.classification:
        raise InnerloopError(
            str(path), "does not match the learner: one is a classifier, the other a regressor"
        )
    found = {name.removeprefix("params/"): array for name, array in arrays.items()}
    params = weights.into(learner.algorithm.initialisation(learner.params), found, str(path))
    support = validation.as_inputs(support, learner.shape, str(path))
    learner.params_, learner.support, learner.losses_ = params, support, losses
    if classes is not None:
        learner.classes_ = validation.as_array(classes)
    else:
        learner.target_shape = target_shape


def _facts_of(text: str, who: str) -> tuple[list[Any] | None, tuple[int, ...]]:
    """Classes (None: a regressor) and the shape of a target."""
    facts = parse_json(text, who)
    facts = facts if isinstance(facts, dict) else {}
    classes, shape = facts.get("classes"), facts.get("target_shape") or []
    shaped = isinstance(shape, list) and all(isinstance(side, int) and 0 <= side < 2**31 for side in shape)
    labels = [_hashable(label) for label in classes] if isinstance(classes, list) else None
    complete = "classes" in facts and (classes is None or labels)
    if not shaped or not complete or not all(isinstance(label, Hashable) for label in labels or ()):
        raise InnerloopError(
            who, "holds no adapted learner: its classes are missing or malformed", got=text[:80]
        )
    return labels, tuple(shape)


def _hashable(label: Any) -> Any:
    """A label with tuples in place of the lists that JSON makes of them."""
    return tuple(_hashable(part) for part in label) if isinstance(label, list) else label
