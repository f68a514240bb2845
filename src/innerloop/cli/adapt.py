"""`innerloop adapt`: adapt a trained initialisation to a person's own examples, and answer for new ones."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import arg

from innerloop.cli.own_data import Ink, ink_of, query_files, read_pictures, read_points, support_files
from innerloop.cli.shared import Count, console, counted, parse, start_jax
from innerloop.config import Normalization
from innerloop.errors import InnerloopError

if TYPE_CHECKING:
    from innerloop.trained import Trained

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


@dataclass(frozen=True)
class Adapt:
    """Adapt a trained initialisation to your own few examples, and predict new ones.

    Pictures: DATA/support/CLASS/*.png are the labelled examples, DATA/query/*.png the new ones.
    Sinusoids: DATA is a CSV file with the header x,y; rows with an empty y are predicted.

    Example: innerloop adapt runs/omniglot-5way-1shot-maml my-letters
    """

    source: Annotated[str, tyro.conf.Positional, arg(metavar="SOURCE")]
    """A run's folder, a weights file, or a preset whose weights ship."""
    data: Annotated[Path, tyro.conf.Positional, arg(metavar="DATA")]
    """Your examples."""
    query: Annotated[
        tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="(default: DATA/query)")
    ] = ()
    """New pictures."""
    steps: Count = None
    """Inner steps."""
    normalization: Normalization = "inductive"
    """Which batch gives a new picture's normalisation statistics: itself with the support set (inductive), the
    support set (support), or all new pictures together (transductive)."""
    ink: Annotated[
        Ink | None, arg(metavar="{dark,light}", help_behavior_hint="(default: told from the pictures)")
    ] = None
    """Whether drawings are dark on light or light on dark."""
    data_folder: Annotated[str, arg(metavar="DIR", help_behavior_hint="(default: as trained)")] = ""
    """Where the training images are (data set `folder`)."""
    json: bool = False
    """Print one JSON object and nothing else."""
    csv: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the predictions to this file too."""


def run(argv: Sequence[str]) -> int:
    """Adapt, predict, print."""
    arguments = parse(Adapt, argv)
    if arguments.steps is not None and arguments.steps < 0:
        raise InnerloopError("--steps", "must be 0 or more", got=arguments.steps)
    start_jax()
    trained = load_without_data(arguments.source, arguments.data_folder)
    answer = classify if trained.experiment.classification else regress
    result = answer(trained, arguments)
    if arguments.csv is not None:
        write_csv(arguments.csv, result["predictions"])
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


def load_without_data(source: str, data_folder: str) -> "Trained":
    """A trained initialisation, without reading the data set that it was trained on where its shape is known."""
    import numpy as np

    from innerloop import weights
    from innerloop.datasets.arrays import ClassArrays, Splits
    from innerloop.experiment import Experiment
    from innerloop.trained import Trained, load_trained, weights_path

    path = weights_path(source)
    arrays, config, facts = weights.load(path)
    if config.data.dataset not in SHAPES:
        return load_trained(source, data_folder=data_folder)
    blank = ClassArrays.from_lists([np.zeros((1, *SHAPES[config.data.dataset]), np.uint8)], ["blank"])
    experiment = Experiment(config, Splits(blank, blank, blank))
    return Trained(weights.into(experiment.init_params(), arrays, str(path)), experiment, source, facts)


def classify(trained: "Trained", arguments: Adapt) -> dict[str, Any]:
    """Labels and probabilities of the new pictures."""
    import numpy as np

    from innerloop.report.trace import outputs_by_step, probabilities
    from innerloop.task import Batch
    from innerloop.tasks.episodes import unit_scale

    files = support_files(arguments.data, trained.config.data.ways)
    new = query_files(arguments.data, arguments.query)
    shape = trained.experiment.splits.train.shape  # pyright: ignore[reportOptionalMemberAccess]
    support = read_pictures([path for paths in files.values() for path in paths], shape)
    query = read_pictures(new, shape)
    ink = ink_taken(trained, arguments.ink, support)
    if ink == "dark":
        support, query = 255 - support, 255 - query
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
    order = np.random.default_rng(0).permutation(len(labels))  # runs of it serve as random minibatches
    steps = trained.config.evaluation.steps if arguments.steps is None else arguments.steps
    outputs = outputs_by_step(
        trained.experiment,
        trained.params,
        Batch(unit_scale(support[order]), labels[order]),  # pyright: ignore[reportArgumentType]
        unit_scale(query),  # pyright: ignore[reportArgumentType]
        steps=steps,
        normalization=arguments.normalization,
        classes=len(files),
    )
    facts = {"normalization": arguments.normalization, "ink": ink, "classes": list(files)}
    predictions = [
        label_of(path, p, list(files)) for path, p in zip(new, probabilities(outputs[-1]), strict=True)
    ]
    return about(trained, steps, len(labels)) | facts | {"predictions": predictions}


def ink_taken(trained: "Trained", given: Ink | None, support: Any) -> Ink | None:
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


def regress(trained: "Trained", arguments: Adapt) -> dict[str, Any]:
    """Predicted y of the new points."""
    from innerloop.report.trace import outputs_by_step
    from innerloop.task import Batch

    if trained.config.data.oracle:
        raise InnerloopError(
            "adapt", "the oracle needs each wave's amplitude and phase", do="use another run"
        )
    if not arguments.data.is_file():
        do = "give a CSV file with the header x,y"
        raise InnerloopError("adapt", "sinusoids need a file of points", got=repr(str(arguments.data)), do=do)
    points = read_points(arguments.data)
    steps = trained.config.evaluation.steps if arguments.steps is None else arguments.steps
    support = Batch(points.known_x, points.known_y)
    outputs = outputs_by_step(
        trained.experiment,
        trained.params,
        support,
        points.asked_x,
        steps=steps,
        normalization=arguments.normalization,
    )
    predictions = [
        {"x": float(x), "y": float(y)} for x, y in zip(points.asked_x[:, 0], outputs[-1, :, 0], strict=True)
    ]
    return about(trained, steps, len(points.known_x)) | {"predictions": predictions}


def about(trained: "Trained", steps: int, examples: int) -> dict[str, Any]:
    """What answered."""
    return {"source": trained.source, "preset": trained.config.name, "steps": steps, "examples": examples}


def write_csv(path: Path, predictions: list[dict[str, Any]]) -> None:
    """The predictions as a CSV file."""
    names = [name for name in predictions[0] if name != "probabilities"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(predictions)


def show(result: dict[str, Any]) -> None:
    """The predictions as a table, and how they were made."""
    from rich import box
    from rich.table import Table

    out, table = console(), Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = [name for name in result["predictions"][0] if name != "probabilities"]
    for name in names:
        table.add_column(name, justify="left" if name in ("file", "label") else "right")
    for prediction in result["predictions"]:
        cells = (prediction[name] for name in names)
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in cells))
    out.print(table)
    how = f"{result['preset']}, {counted(result['steps'], 'inner step')} on {counted(result['examples'], 'example')}"
    if "classes" in result:
        how += f" of {len(result['classes'])} classes; normalisation {result['normalization']}"
    out.print(f"Adapted by {how}.")
    if result.get("ink"):
        other = {"dark": "light", "light": "dark"}[result["ink"]]
        out.print(f"Took the drawings as {result['ink']} on {other}; --ink {other} would say otherwise.")
