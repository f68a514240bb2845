"""A trained initialisation adapted to the user's examples, as `innerloop adapt` and `innerloop export` need it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from innerloop.cli.user_examples import Ink, PictureShape, UserData, ink_of, read_pictures, read_points
from innerloop.config.schema import Config, Normalization
from innerloop.errors import InnerloopError
from innerloop.io.files import expanded
from innerloop.learner.learner import Learner
from innerloop.learner.validation import Shape
from innerloop.tasks.io.images import peek
from innerloop.training.experiments.build import load_splits
from innerloop.training.storage.sources import load_weights
from innerloop.training.trained import with_data


class Start(NamedTuple):
    """A trained initialisation.

    Attributes:
        learner: not fitted yet.
        config: the config of its run.
        source: the run's folder, a weights file or a preset.
        data_folder: where the training images or the training table are (empty: as in training).
    """

    learner: Learner
    config: Config
    source: str
    data_folder: str


def start_from(
    source: str, data_folder: str, steps: int | None, normalization: Normalization | None
) -> Start:
    """The learner of a source.

    Args:
        source: a trained initialisation.
        data_folder: where the training data are (empty: as in training).
        steps: inner steps (None: as the run is evaluated).
        normalization: which batch normalises a new example (None: the example with the support set).

    Raises:
        InnerloopError: if there is no such source, it is an RL policy, its data have no folder to replace, or its
            network has no normalisation.
    """
    learner = Learner.from_pretrained(source, steps=steps, normalization=normalization or "inductive")
    config = load_weights(source).config
    if normalization is not None and not config.model.normalizes:
        wrong = "the network has no batch normalisation"
        raise InnerloopError("--normalization", wrong, got=normalization, hint="leave it out")
    with_data(config, data_folder)  # raises if the data set has none
    return Start(learner, config, source, data_folder)


class PictureFormat(NamedTuple):
    """How to read the user's pictures, labelled and new ones alike.

    Attributes:
        shape: height, width and channels.
        ink: whether drawings are dark or light (None: photographs).
        background: the colour behind transparent parts.
    """

    shape: PictureShape
    ink: Ink | None
    background: str

    def read(self, files: Sequence[Path]) -> np.ndarray:
        """The pictures as the model takes them, `[pictures, height, width, channels]` uint8."""
        pictures = read_pictures(files, self.shape, self.background)
        return 255 - pictures if self.ink == "dark" else pictures


def fit_pictures(
    start: Start, files: dict[str, list[Path]], ink: Ink | None, new: Sequence[Path] = ()
) -> PictureFormat:
    """Fit to labelled pictures.

    Args:
        start: the initialisation; its learner is fitted.
        files: the labelled pictures by class.
        ink: whether drawings are dark or light (None: derived from the pictures).
        new: pictures to predict; their size and channels count if the model takes any.

    Raises:
        InnerloopError: if a picture cannot be read or does not fit the model.
    """
    learner, config = start.learner, start.config
    known = [path for paths in files.values() for path in paths]
    shape = _fixed_shape(learner.shape) or _trained_shape(start) or _own_shape(learner, [*known, *new])
    plain = PictureFormat(shape, None, config.data.background)
    support = plain.read(known)
    picture_format = plain._replace(ink=_resolve_ink(config, ink, support))
    support = 255 - support if picture_format.ink == "dark" else support
    learner.fit(support, [name for name, paths in files.items() for _ in paths])
    return picture_format


def _fixed_shape(shape: Shape | None) -> PictureShape | None:
    """The shape of a picture, if config and weights fully determine it."""
    height, width, channels = shape or (None, None, None)
    return None if height is None or width is None or channels is None else (height, width, channels)


def _trained_shape(start: Start) -> PictureShape | None:
    """The shape of the training pictures; None if they are gone."""
    config, data_folder = start.config, start.data_folder
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
        wrong = "is only for drawings, and this model was trained on photographs"
        raise InnerloopError("--ink", wrong, got=given, hint="leave it out")
    return None


def fit_points(start: Start, own: UserData, *, require_queries: bool) -> np.ndarray:
    """Fit to the points of a sinusoid.

    Args:
        start: the initialisation; its learner is fitted.
        own: a CSV file with the header x,y.
        require_queries: whether rows with an empty y are required.

    Returns:
        x of the rows with an empty y, `[rows, 1]`.

    Raises:
        InnerloopError: if the file holds no points, or the model needs more than x.
    """
    if start.config.data.oracle:
        raise InnerloopError(
            own.command, "the oracle needs each wave's amplitude and phase", hint="use another run"
        )
    refuse_pictures(own, "sinusoids", "give a CSV file with the header x,y")
    points = read_points(own.data, require_queries=require_queries)
    start.learner.fit(points.known_x, points.known_y)
    return points.asked_x


def refuse_pictures(own: UserData, tasks: str, hint: str) -> None:
    """Raise InnerloopError unless the user's examples are a file of rows and nothing else."""
    if not own.data.exists():
        raise InnerloopError(own.command, "there is no such file", got=repr(str(own.data)), hint=hint)
    if not own.data.is_file():
        verb = "needs a file of rows" if tasks == "a table" else "need a file of points"
        raise InnerloopError(own.command, f"{tasks} {verb}", got=repr(str(own.data)), hint=hint)
    for name, given in (("--query", own.query), ("--ink", own.ink)):
        if given:
            hint = "leave it out" + ("; rows with an empty y are predicted" if own.command == "adapt" else "")
            verb = "has" if tasks == "a table" else "have"
            raise InnerloopError(name, f"is for pictures, and {tasks} {verb} none", hint=hint)
