"""An adapted learner as one safetensors file: adapted parameters and classes, without any pickle.

The file contains the examples only if predictions need them: if the model normalises with batch statistics that they
are part of (`normalization` inductive or support). Without batch normalisation, or with transductive, it does not.
"""

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from innerloop.engine.pytree import paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.files import check_output_path
from innerloop.io.text import as_json
from innerloop.io.untrusted import JsonObject, parse_json
from innerloop.learner import validation
from innerloop.learner.labels import as_array
from innerloop.learner.programs import unadapted
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
        InnerloopError: for labels that JSON cannot represent, an existing file without `overwrite`, or a path that
            cannot be written.
    """
    leaves = zip(paths(learner.params_), jax.tree.leaves(learner.params_), strict=True)
    arrays = {f"params/{name}": np.asarray(leaf) for name, leaf in leaves}
    arrays["losses"] = learner.losses_
    if learner._programs.needs_examples(learner.params_, learner.support_):
        arrays["support"] = learner.support_
    example = {"shape": learner.support_.shape[1:], "dtype": str(learner.support_.dtype)}
    labels = learner.classes_.tolist() if learner.classification else None
    target_shape = None if learner.classification else list(learner.target_shape_)
    check_labels(labels or [], "Learner.save_adapted")
    text = json.dumps(
        {"classes": labels, "target_shape": target_shape, "example": example, "numbers": learner.numbers_}
    )
    hint = "give a path in a folder that exists"
    target = check_output_path(path, overwrite=overwrite)
    safetensors_writer.write(target, arrays, {"learner": text}, hint, overwrite=overwrite)


def check_labels(labels: list[object], who: str) -> None:
    """Raise InnerloopError for labels that JSON cannot represent."""
    try:
        json.dumps(labels)
    except TypeError as error:
        hint = "use strings, numbers or tuples of them as labels"
        raise InnerloopError(who, f"the labels cannot be saved ({error})", hint=hint) from None


def load(learner: "Learner", path: Path) -> None:
    """Restore an adapted learner.

    Args:
        learner: a learner for the same model.
        path: the file.

    Raises:
        InnerloopError: for a file that is not an adapted learner, or one of another model.
    """
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    lacks = "learner" if "learner" not in metadata else "losses" if "losses" not in arrays else ""
    if lacks:
        raise InnerloopError(str(path), f"holds no adapted learner (no {lacks} in it)")
    losses, support = arrays.pop("losses"), arrays.pop("support", None)
    facts = parse_json(metadata["learner"], str(path))
    facts = facts if isinstance(facts, dict) else {}
    held = support is not None
    support = support if held else _no_examples(facts, str(path))
    classes, target_shape = _targets_of(facts, str(path))
    numbers = _numbers_of(facts, support, str(path))
    if (classes is not None) != learner.classification:
        raise InnerloopError(
            str(path), "does not match the learner: one is a classifier, the other a regressor"
        )
    found = {name.removeprefix("params/"): array for name, array in arrays.items()}
    params = weights.into(unadapted(learner.algorithm, learner.params), found, str(path))
    if held:
        support = validation.as_inputs(support, learner.shape, learner._dtype, str(path))
    elif _needs_examples_of(learner, params, support, str(path)):
        wrong = f"holds no examples, which normalization `{learner.normalization}` needs for this model"
        raise InnerloopError(str(path), wrong, hint="load it into a learner like the one that saved it")
    learner.params_, learner.support_, learner.losses_ = params, support, losses
    learner.numbers_ = numbers
    if classes is not None:
        learner.classes_ = as_array(classes)
    else:
        learner.target_shape_ = target_shape


def _needs_examples_of(learner: "Learner", params: Params, like: np.ndarray, who: str) -> bool:
    """`Programs.needs_examples` for a file. Raises InnerloopError if the model does not take examples of its shape."""
    validation.check_example_shape(like.shape[1:], learner.shape, who)
    one = jax.ShapeDtypeStruct((1, *like.shape[1:]), like.dtype)
    try:
        apply, inner = learner.loss.predictor(params)
        jax.eval_shape(apply, inner, one)
    except (TypeError, ValueError):
        wrong = "holds an adapted learner of another model: it takes other examples"
        raise InnerloopError(who, wrong, got=f"shape {like.shape[1:]}") from None
    return learner._programs.needs_examples(params, like)


def _no_examples(facts: JsonObject, who: str) -> np.ndarray:
    """An empty array of the shape and type of the examples that a file leaves out."""
    about = facts.get("example")
    about = about if isinstance(about, dict) else {}
    shape, dtype = about.get("shape"), about.get("dtype")
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and 0 < n < 2**31 for n in shape)
        or dtype not in ("float32", "float64", "int32")
        or 100 * math.prod(shape) > safetensors_reader.largest()
    ):
        wrong = "holds no adapted learner (neither examples nor their shape in it)"
        raise InnerloopError(who, wrong, got=str(about)[:80])
    return np.zeros((0, *shape), dtype)


def _targets_of(facts: JsonObject, who: str) -> tuple[list[Hashable] | None, tuple[int, ...]]:
    """The classes (None: a regressor) and the shape of a target."""
    classes, shape = facts.get("classes"), facts.get("target_shape") or []
    shaped = isinstance(shape, list) and all(isinstance(side, int) and 0 <= side < 2**31 for side in shape)
    labels = [_hashable(label) for label in classes] if isinstance(classes, list) else None
    complete = "classes" in facts and (classes is None or labels)
    if not shaped or not complete or not all(isinstance(label, Hashable) for label in labels or ()):
        wrong = "holds no adapted learner: its classes are missing or malformed"
        raise InnerloopError(who, wrong, got=as_json(facts)[:80])
    return labels, tuple(shape)


def _numbers_of(facts: JsonObject, like: np.ndarray, who: str) -> validation.Numbers | None:
    """What `fit` was given; None in a file of an earlier version, which does not record it."""
    found = facts.get("numbers")
    of_type = ("whole numbers",) if like.dtype.kind in "iu" else ("bytes", "floats")
    if found is not None and found not in of_type:
        hint = "save it again"
        raise InnerloopError(
            who, f"does not say what {like.dtype} examples are", got=str(found)[:80], hint=hint
        )
    return found


def _hashable(label: object) -> Hashable:
    """A label with its tuples restored, which JSON stores as lists."""
    return tuple(_hashable(part) for part in label) if isinstance(label, list) else label
