"""What there is to choose from: one table of algorithms, one of data sets.

All that the package knows of an algorithm or a data set by its name stands in its row here; everything else asks the
row. This module loads no JAX, so that the command can list what there is at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Moves = Literal["all", "head", "body"]


@dataclass(frozen=True)
class AlgorithmSpec:
    """One algorithm.

    Attributes:
        name: what a config calls it; `innerloop/algorithms/NAME.py` holds a constructor of the same name.
        title: what people call it.
        moves: which parameters its inner loop moves.
        second_order: whether its meta-gradient goes through the inner loop.
        reads_query: whether its meta-gradient reads the query set, and so may have a loss of its own for it.
        adapts_in_training: whether its training runs the inner loop; otherwise only its test does.
        persistent_moments: whether its inner optimiser may hand its moments on from task to task.
    """

    name: str
    title: str
    moves: Moves = "all"
    second_order: bool = False
    reads_query: bool = True
    adapts_in_training: bool = True
    persistent_moments: bool = False

    @property
    def constructor(self) -> Callable[..., Any]:
        """`constructor(loss_fn, inner) -> Algorithm`."""
        return getattr(import_module(f"innerloop.algorithms.{self.name}"), self.name)

    def make(self, loss_fn: Any, inner: Any, *, outer_loss_fn: Any = None, head: Any = "head") -> Any:
        """The algorithm; the outer loss and the name of the head go to those that have a use for them."""
        options = {"outer_loss_fn": outer_loss_fn} if self.reads_query else {}
        options |= {} if self.moves == "all" else {"head": head}
        return self.constructor(loss_fn, inner, **options)


ALGORITHMS = {
    spec.name: spec
    for spec in (
        AlgorithmSpec("maml", "MAML", second_order=True),
        AlgorithmSpec("fomaml", "FOMAML"),
        AlgorithmSpec("reptile", "Reptile", reads_query=False, persistent_moments=True),
        AlgorithmSpec("anil", "ANIL", moves="head", second_order=True),
        AlgorithmSpec("boil", "BOIL", moves="body", second_order=True),
        AlgorithmSpec("joint", "joint training", adapts_in_training=False),
    )
}
"""Every algorithm by its name."""


@dataclass(frozen=True)
class DatasetSpec:
    """One source of tasks.

    Attributes:
        name: what a config calls it.
        title: what people call it.
        kind: values to predict, images to tell apart, or an environment to act in.
        image_shape: height, width and channels of every image (None: those of the files).
        module: the module of `innerloop.tasks.datasets` that reads it.
        read: `read(module, data)` gives the splits that a `DataConfig` asks for.
        needs_folder: whether it is read from a folder that the user names.
        drawings: whether images are light ink on a dark ground, which calls for the settings of Omniglot.
        rotations: whether its published protocol makes four classes of one by quarter turns.
        body, goal: of a simulated body, what it is called and what it is rewarded for.
    """

    name: str
    title: str
    kind: Literal["regression", "images", "reinforcement"] = "images"
    image_shape: tuple[int, int, int] | None = None
    module: str = ""
    read: Callable[[Any, Any], Any] = lambda module, data: module.load()
    needs_folder: bool = False
    drawings: bool = False
    rotations: bool = False
    body: str = ""
    goal: str = ""

    def load(self, data: Any) -> Any:
        """The classes of training, validation and test, as a `DataConfig` asks for them."""
        return self.read(import_module(f"innerloop.tasks.datasets.{self.module}"), data)


def _body(body: str, goal: str) -> DatasetSpec:
    name = f"{body.replace('-', '_')}_{goal}"
    return DatasetSpec(name, f"{body.capitalize()}, {goal}", "reinforcement", body=body, goal=goal)


DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec("sinusoid", "Sinusoid regression", "regression"),
        DatasetSpec("glyphs", "Glyphs", image_shape=(28, 28, 1), module="glyphs", drawings=True),
        DatasetSpec(
            "omniglot",
            "Omniglot",
            image_shape=(28, 28, 1),
            module="omniglot",
            read=lambda module, data: module.load(data.split or "maml"),
            drawings=True,
            rotations=True,
        ),
        DatasetSpec(
            "cifar_fs",
            "CIFAR-FS",
            image_shape=(32, 32, 3),
            module="cifar",
            read=lambda module, data: module.load("cifar_fs"),
        ),
        DatasetSpec(
            "fc100",
            "FC100",
            image_shape=(32, 32, 3),
            module="cifar",
            read=lambda module, data: module.load("fc100"),
        ),
        DatasetSpec(
            "mini_imagenet",
            "mini-ImageNet",
            image_shape=(84, 84, 3),
            module="mini_imagenet",
            read=lambda module, data: module.load(data.folder),
            needs_folder=True,
        ),
        DatasetSpec(
            "folder",
            "Images",
            module="image_folder",
            read=lambda module, data: module.load(data.folder, size=data.size or None),
            needs_folder=True,
        ),
        DatasetSpec("navigation", "2D navigation", "reinforcement"),
        _body("half-cheetah", "direction"),
        _body("half-cheetah", "velocity"),
        _body("ant", "direction"),
        _body("ant", "velocity"),
    )
}
"""Every source of tasks by its name."""
