"""What `innerloop adapt` computes: a trained initialisation, adapted to a person's examples, answers for new ones."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from innerloop import weights
from innerloop.cli.own_data import Ink, Own, ink_of, query_files, read_pictures, read_points, support_files
from innerloop.config import Normalization
from innerloop.datasets.arrays import ClassArrays, Splits
from innerloop.errors import InnerloopError
from innerloop.experiment import Experiment
from innerloop.pretrained import refuse_policies
from innerloop.report.trace import outputs_by_step, probabilities
from innerloop.task import Batch
from innerloop.tasks.resident import unit_scale
from innerloop.trained import Trained, load_trained, weights_path

SHAPES = {
    "omniglot": (28, 28, 1),
    "glyphs": (28, 28, 1),
    "cifar_fs": (32, 32, 3),
    "fc100": (32, 32, 3),
    "mini_imagenet": (84, 84, 3),
}
"""Shapes of the pictures of the data sets that have one."""

DRAWINGS = ("omniglot", "glyphs")
"""Data sets whose ink is 1 and whose background is 0."""


def answer(
    source: str, data_folder: str, own: Own, steps: int | None, normalization: Normalization
) -> dict[str, Any]:
    """Adapt, and answer for the new examples, as a plain record."""
    trained = load_without_data(source, data_folder)
    steps = trained.config.evaluation.steps if steps is None else steps
    answers = classify if trained.experiment.classification else regress
    return answers(trained, own, steps, normalization)


def load_without_data(source: str, data_folder: str) -> Trained:
    """A trained initialisation, without reading the data set that it was trained on where its shape is known."""
    path = weights_path(source)
    arrays, config, facts = weights.load(path)
    refuse_policies(config)
    if config.data.dataset not in SHAPES:
        return load_trained(source, data_folder=data_folder)
    blank = ClassArrays.from_lists([np.zeros((1, *SHAPES[config.data.dataset]), np.uint8)], ["blank"])
    experiment = Experiment(config, Splits(blank, blank, blank))
    return Trained(weights.into(experiment.init_params(), arrays, str(path)), experiment, source, facts)


def classify(trained: Trained, own: Own, steps: int, normalization: Normalization) -> dict[str, Any]:
    """Labels and probabilities of the new pictures."""
    files = support_files(own.data, trained.config.data.ways)
    new = query_files(own.data, own.query)
    shape = trained.experiment.splits.train.shape  # pyright: ignore[reportOptionalMemberAccess]
    support = read_pictures([path for paths in files.values() for path in paths], shape)
    query = read_pictures(new, shape)
    ink = ink_taken(trained, own.ink, support)
    if ink == "dark":
        support, query = 255 - support, 255 - query
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
    order = np.random.default_rng(0).permutation(len(labels))  # runs of it serve as random minibatches
    outputs = outputs_by_step(
        trained.experiment,
        trained.params,
        Batch(unit_scale(jnp.asarray(support[order])), jnp.asarray(labels[order])),
        unit_scale(jnp.asarray(query)),
        steps=steps,
        normalization=normalization,
        classes=len(files),
    )
    facts = {"normalization": normalization, "ink": ink, "classes": list(files)}
    predictions = [
        label_of(path, p, list(files)) for path, p in zip(new, probabilities(outputs[-1]), strict=True)
    ]
    return about(trained, steps, len(labels)) | facts | {"predictions": predictions}


def ink_taken(trained: Trained, given: Ink | None, support: Any) -> Ink | None:
    """Whether drawings are dark or light; None for data sets of photographs."""
    if trained.config.data.dataset in DRAWINGS:
        return given or ink_of(support)
    if given is not None:
        do = "leave it out"
        raise InnerloopError("--ink", f"{trained.config.data.dataset} holds no drawings", got=given, do=do)
    return None


def label_of(path: Path, chances: Any, classes: list[str]) -> dict[str, Any]:
    """One new picture's answer."""
    best = int(chances.argmax())
    by_class = {name: round(float(p), 6) for name, p in zip(classes, chances, strict=True)}
    return {
        "file": str(path),
        "label": classes[best],
        "probability": by_class[classes[best]],
        "probabilities": by_class,
    }


def regress(trained: Trained, own: Own, steps: int, normalization: Normalization) -> dict[str, Any]:
    """Predicted y of the new points."""
    if trained.config.data.oracle:
        raise InnerloopError(
            "adapt", "the oracle needs each wave's amplitude and phase", do="use another run"
        )
    if not own.data.is_file():
        do = "give a CSV file with the header x,y"
        raise InnerloopError("adapt", "sinusoids need a file of points", got=repr(str(own.data)), do=do)
    points = read_points(own.data)
    support = Batch(points.known_x, points.known_y)
    outputs = outputs_by_step(
        trained.experiment,
        trained.params,
        support,
        points.asked_x,
        steps=steps,
        normalization=normalization,
    )
    predictions = [
        {"x": float(x), "y": float(y)} for x, y in zip(points.asked_x[:, 0], outputs[-1, :, 0], strict=True)
    ]
    return about(trained, steps, len(points.known_x)) | {"predictions": predictions}


def about(trained: Trained, steps: int, examples: int) -> dict[str, Any]:
    """What answered."""
    return {"source": trained.source, "preset": trained.config.name, "steps": steps, "examples": examples}
