"""A fitted learner's task as one safetensors file: adapted parameters, examples, classes. It holds no pickle."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from innerloop.engine.pytree import paths
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.files import cannot_write, new_output, output
from innerloop.io.untrusted import parse_json
from innerloop.learner import validation
from innerloop.training.storage import weights

if TYPE_CHECKING:
    from innerloop.learner.learner import Learner


def save(learner: "Learner", path: Path, *, overwrite: bool = False) -> None:
    """Write the task.

    Raises InnerloopError for labels that JSON does not hold, a file that exists without `overwrite`, and a path that
    cannot be written.
    """
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
    do = "give a path in a folder that is there"
    target = output(path, overwrite=overwrite)
    with cannot_write(target, do), new_output(target, overwrite=overwrite) as draft:
        safetensors_writer.write_draft(draft, arrays, {"learner": text}, path=path, do=do)


def load(learner: "Learner", path: Path) -> None:
    """Give the learner the saved task. Raises InnerloopError for a file that is none, or of another model."""
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    lacks = [name for name in ("support", "losses") if name not in arrays]
    if lacks or "learner" not in metadata:
        raise InnerloopError(str(path), f"holds no adapted learner (no {(lacks or ['learner'])[0]} in it)")
    support, losses, text = arrays.pop("support"), arrays.pop("losses"), metadata["learner"]
    classes, target_shape = _facts_of(text, str(path))
    if (classes is not None) != learner.classification:
        raise InnerloopError(str(path), "one of the two is a classifier and the other a regressor")
    found = {name.removeprefix("params/"): array for name, array in arrays.items()}
    params = weights.into(learner.algorithm.initialisation(learner.params), found, str(path))
    support = validation.as_inputs(support, learner.shape, str(path))
    learner.params_, learner.support, learner.losses_ = params, support, losses
    if classes is not None:
        learner.classes_ = validation.as_array(classes)
    else:
        learner.target_shape = target_shape


def _facts_of(text: str, who: str) -> tuple[list[Any] | None, tuple[int, ...]]:
    """Classes (None: a regressor) and shape of a target. Raises InnerloopError for anything else."""
    facts = parse_json(text, who)
    facts = facts if isinstance(facts, dict) else {}
    classes, shape = facts.get("classes"), facts.get("target_shape") or []
    shaped = isinstance(shape, list) and all(isinstance(side, int) and 0 <= side < 2**31 for side in shape)
    labels = [_hashable(label) for label in classes] if isinstance(classes, list) else None
    told = "classes" in facts and (classes is None or labels)
    if not shaped or not told or not all(isinstance(label, Hashable) for label in labels or ()):
        raise InnerloopError(who, "holds no adapted learner: its classes are not told", got=text[:80])
    return labels, tuple(shape)


def _hashable(label: Any) -> Any:
    """Tuples, which JSON gives back as lists."""
    return tuple(_hashable(part) for part in label) if isinstance(label, list) else label
