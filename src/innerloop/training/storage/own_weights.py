"""Weights of the user's own models, which have no config: arrays by path, and facts about the training."""

import json
from pathlib import Path
from typing import Literal

import numpy as np

from innerloop.engine.pytree import by_path
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.files import as_path
from innerloop.io.untrusted import JsonObject, parse_json, refuse_link
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import FIT, RunFolder

WHO = "load_params"
LIKE = "pass as `like` the parameters that training started from, or `algorithm.init(params)` of them"


def save(path: Path, params: Params, facts: JsonObject) -> None:
    """Write parameters by path, with `facts` as metadata."""
    arrays = {name: np.asarray(x) for name, x in by_path(params).items()}
    safetensors_writer.write(path, arrays, {"fit": json.dumps(facts)}, hint="free some room")


def facts(path: Path) -> JsonObject:
    """The facts that training stored with weights; none for a preset's. Raises InnerloopError if it is damaged."""
    _, metadata = safetensors_reader.read(path, "trained weights")
    found = parse_json(metadata.get("fit", "{}"), str(path))
    return found if isinstance(found, dict) else {}


def load_params(source: str | Path, like: Params, which: Literal["final", "best"] = "final") -> Params:
    """Load the meta-parameters that `innerloop.fit` or `fit_policy` learned.

    Args:
        source: a run's folder, or one of its weights files.
        like: meta-parameters of the same structure, of which only shapes and types are used: those that training
            started from, or `algorithm.init(params)` if the algorithm learns more than the model.
        which: for a folder, the weights from the end of the run, or those of its best validation.

    Raises:
        InnerloopError: if there are no such weights, or they belong to another model or to a preset.
    """
    check_choice(WHO, "which", which, ("final", "best"))
    check_trainable(like, WHO)
    source = as_path(source)
    path = _file_of(RunFolder(source), which) if source.is_dir() else source
    arrays, metadata = safetensors_reader.read(path, "trained weights")
    if "config" in metadata:
        wrong = "holds weights of a preset, with its config"
        raise InnerloopError(str(path), wrong, hint="load them with `innerloop.load_trained`")
    return weights.into(like, arrays, str(path), LIKE)


def _file_of(run: RunFolder, which: Literal["final", "best"]) -> Path:
    """The weights file of a run. Raises InnerloopError if there is none."""
    if not run.is_fit:
        wrong = f"is not a run of {FIT} (it has no fit.json)"
        raise InnerloopError(str(run.path), wrong, hint="load other runs with `innerloop.load_trained`")
    path = run.weights if which == "final" else run.best
    if not path.is_file():
        final = "the run has not ended", "continue it with `resume=True`"
        best = "the run has had no validation", "give `validation`, or load the final weights"
        wrong, hint = final if which == "final" else best
        raise InnerloopError(str(run.path), wrong, hint=hint)
    refuse_link(path)
    return path
