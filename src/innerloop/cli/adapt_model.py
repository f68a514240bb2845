"""The computation of `innerloop adapt`: adapt a trained initialisation to the user's examples, and predict new ones."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from innerloop.cli.adapt_table import predicted_rows
from innerloop.cli.user_examples import (
    Ink,
    PictureShape,
    UserData,
    ink_of,
    query_files,
    read_pictures,
    read_points,
    support_files,
)
from innerloop.config.schema import Config, Normalization
from innerloop.errors import InnerloopError
from innerloop.io.home import expanded
from innerloop.io.untrusted import JsonObject
from innerloop.learner.learner import Learner
from innerloop.learner.validation import Shape
from innerloop.tasks.io.images import peek
from innerloop.training.build import load_splits
from innerloop.training.storage import weights
from innerloop.training.storage.sources import weights_path


def adapt_and_predict(
    source: str, data_folder: str, own: UserData, steps: int | None, normalization: Normalization
) -> JsonObject:
    """Adapt to the user's examples, and predict new ones.

    Args:
        source: a trained initialisation.
        data_folder: where the training images are (empty: as in training).
        own: the user's examples.
        steps: inner steps (None: as the run is evaluated).
        normalization: which batch normalises a new example.

    Returns:
        A plain record with the predictions.

    Raises:
        InnerloopError: for sources and examples that do not fit.
    """
    learner = Learner.from_pretrained(source, steps=steps, normalization=normalization)
    config = weights.load(weights_path(source))[1]
    images = learner.classification
    if config.data.spec.needs_file:
        refuse_pictures(own, "a table", "give a CSV or Parquet file with the columns of the table")
        found = {"predictions": predicted_rows(learner, config, source, data_folder, own.data)}
    else:
        found = _classify(learner, config, own, data_folder) if images else _regress(learner, config, own)
    about = {"source": source, "preset": config.name, "steps": learner.n_steps}
    return about | {"examples": len(learner.support)} | found


def _classify(learner: Learner, config: Config, own: UserData, data_folder: str) -> JsonObject:
    """Labels and probabilities of the new pictures."""
    files = support_files(own.data, config.data.ways)
    known, new = [path for paths in files.values() for path in paths], query_files(own.data, own.query)
    shape = (
        _fixed_shape(learner.shape)
        or _trained_shape(config, data_folder)
        or _own_shape(learner, [*known, *new])
    )
    support, query = (read_pictures(files, shape, config.data.background) for files in (known, new))
    ink = _resolve_ink(config, own.ink, support)
    if ink == "dark":
        support, query = 255 - support, 255 - query
    labels = [name for name, paths in files.items() for _ in paths]
    chances = learner.fit(support, labels).predict_proba(query)
    classes = learner.classes_.tolist()
    predictions = [_label_of(path, p, classes) for path, p in zip(new, chances, strict=True)]
    facts = {"normalization": learner.normalization, "ink": ink, "classes": classes}
    return facts | {"predictions": predictions}


def _fixed_shape(shape: Shape | None) -> PictureShape | None:
    """The shape of a picture, if config and weights determine all of it."""
    height, width, channels = shape or (None, None, None)
    return None if height is None or width is None or channels is None else (height, width, channels)


def _trained_shape(config: Config, data_folder: str) -> PictureShape | None:
    """The shape of the training pictures; None if they are gone."""
    folder = data_folder or config.data.folder
    if not data_folder and not expanded(folder, "data.folder").is_dir():
        return None
    splits = load_splits(replace(config, data=replace(config.data, folder=folder)))
    height, width, channels = splits.train.shape  # pyright: ignore[reportOptionalMemberAccess]
    return height, width, channels


def _own_shape(learner: Learner, files: Sequence[Path]) -> PictureShape:
    """The size of the user's first picture, and the channels of the model, or of the pictures."""
    heads = [peek(path) for path in files]
    channels = learner.shape[2] if learner.shape else None
    return heads[0][1], heads[0][0], channels or max(head[2] for head in heads)


def _resolve_ink(config: Config, given: Ink | None, support: np.ndarray) -> Ink | None:
    """Whether drawings are dark or light; None for photographs."""
    if config.data.spec.drawings:
        return given or ink_of(support)
    if given is not None:
        do = "leave it out"
        raise InnerloopError("--ink", f"{config.data.dataset} holds no drawings", got=given, do=do)
    return None


def _label_of(path: Path, chances: np.ndarray, classes: list[str]) -> JsonObject:
    """The prediction for one new picture."""
    best = int(chances.argmax())
    by_class = {name: round(float(p), 6) for name, p in zip(classes, chances, strict=True)}
    return {
        "file": str(path),
        "label": classes[best],
        "probability": by_class[classes[best]],
        "probabilities": by_class,
    }


def _regress(learner: Learner, config: Config, own: UserData) -> JsonObject:
    """Predicted y of the new points."""
    if config.data.oracle:
        raise InnerloopError(
            "adapt", "the oracle needs each wave's amplitude and phase", do="use another run"
        )
    refuse_pictures(own, "sinusoids", "give a CSV file with the header x,y")
    points = read_points(own.data)
    found = learner.fit(points.known_x, points.known_y).predict(points.asked_x)
    pairs = zip(points.asked_x[:, 0], found[:, 0], strict=True)
    return {"predictions": [{"x": float(x), "y": float(y)} for x, y in pairs]}


def refuse_pictures(own: UserData, tasks: str, do: str) -> None:
    """Raise InnerloopError unless the user's examples are a file of rows and nothing else."""
    if not own.data.is_file():
        verb = "needs a file of rows" if tasks == "a table" else "need a file of points"
        raise InnerloopError("adapt", f"{tasks} {verb}", got=repr(str(own.data)), do=do)
    for name, given in (("--query", own.query), ("--ink", own.ink)):
        if given:
            do = "leave it out; rows with an empty y are predicted"
            verb = "has" if tasks == "a table" else "have"
            raise InnerloopError(name, f"is for pictures, and {tasks} {verb} none", do=do)
