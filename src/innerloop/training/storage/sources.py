"""Finds and loads the weights of a run, a path or a preset's name."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from innerloop.config.presets.registry import all_presets, nearest
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.files import as_path, expanded
from innerloop.io.text import shell_command
from innerloop.io.untrusted import JsonObject, refuse_link
from innerloop.training.storage import shipped, weights
from innerloop.training.storage.run_directory import RunFile, RunFolder


class LoadedWeights(NamedTuple):
    """The content of a weights file, and its path."""

    path: Path
    arrays: dict[str, np.ndarray]
    config: Config
    facts: JsonObject


def load_weights(source: str | Path) -> LoadedWeights:
    """Load the weights of a source. Raises InnerloopError if there are none, or if they belong to another run."""
    if as_path(source).is_dir():
        return _weights_of_run(Path(source))
    path = weights_path(source)
    return LoadedWeights(path, *weights.load(path))


def _weights_of_run(path: Path) -> LoadedWeights:
    """Load the weights of the run in a folder, and compare their config with the run's."""
    run = RunFolder(path)
    config = run.config()
    if not run.weights.is_file():
        again = shell_command("train", "--resume", path)
        hint = f"wait until it ends or, if it was stopped, continue it with `{again}`"
        raise InnerloopError(str(path), "the run has not ended", hint=hint)
    refuse_link(run.weights)
    found = LoadedWeights(run.weights, *weights.load(run.weights))
    weights.check_config(run.weights, config, found.config)
    return found


def weights_path(source: str | Path, who: str = "source") -> Path:
    """The weights file of a source. Raises InnerloopError if there is none, or if it belongs to another run.

    `who` names the argument in a message about a name that is unknown.
    """
    path = Path(source)
    if path.is_dir():
        return _weights_of_run(path).path
    if path.is_file():
        return path
    if str(source) in shipped.names():
        return shipped.path(str(source))
    if "/" in str(source) or os.sep in str(source) or str(source).startswith((".", "~")):
        hint = "give a run's folder, a weights file, or a preset with shipped weights"
        raise InnerloopError(str(path), "there is no such folder or file", hint=hint)
    name = str(source)
    if name not in all_presets():
        wrong = "there is no such preset, folder or file"
        raise InnerloopError(who, wrong, got=repr(name), hint=nearest(name))
    raise InnerloopError(
        name,
        "the package ships no trained weights of this preset",
        hint=f"train it: `innerloop train {name}`; weights ship for "
        + (", ".join(shipped.names()) or "none"),
    )


def inputs_of(source: str | Path, data_folder: str = "") -> list[Path]:
    """The paths that are read for a source: the run's files, its weights, and the images or table of its training."""
    found = load_weights(source)
    data = found.config.data
    own = data_folder or data.file or data.folder
    return [*files_of_run(source), found.path, *([expanded(own, "data")] if own else [])]


def files_of_run(source: str | Path) -> list[Path]:
    """The paths of what a run writes into its folder, whether it exists or not; none for another source."""
    return [Path(source) / name for name in RunFile] if Path(source).is_dir() else []
