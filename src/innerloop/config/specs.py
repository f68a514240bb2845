"""The tables of algorithms and data sets.

Everything that depends on the name of an algorithm or data set is in its row here; other modules look it up. This
module does not import JAX, so that the command can list the choices quickly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Adapts = Literal["all", "head", "body", "context"]


@dataclass(frozen=True)
class AlgorithmSpec:
    """One row of the table of algorithms.

    Attributes:
        name: the name in a config; `innerloop/algorithms/NAME.py` holds a constructor of the same name.
        title: the name in text.
        adapts: the parameters that the inner loop adapts.
        second_order: whether the meta-gradient differentiates through the inner loop.
        reads_query: whether the meta-gradient reads the query set, so that it may have a separate loss.
        adapts_in_training: whether training runs the inner loop; otherwise only the test does.
        persistent_moments: whether the moments of the inner optimiser may persist from task to task.
        learns_rates: whether step sizes are meta-parameters; `inner.learning_rate` is then their initial value.
        classes: whether tasks must be episodes of classes.
        settings: settings of the inner loop that the constructor takes as arguments of the same names.
    """

    name: str
    title: str
    adapts: Adapts = "all"
    second_order: bool = False
    reads_query: bool = True
    adapts_in_training: bool = True
    persistent_moments: bool = False
    learns_rates: bool = False
    classes: bool = False
    settings: tuple[str, ...] = ()

    @property
    def policies(self) -> bool:
        """Whether it can adapt policies, which support only the plain `InnerLoop`."""
        return not (self.learns_rates or self.classes or self.settings or self.adapts == "context")

    @property
    def constructor(self) -> Callable[..., object]:
        """`constructor(loss_fn, inner) -> Algorithm`."""
        return getattr(import_module(f"innerloop.algorithms.{self.name}"), self.name)

    def make(
        self, loss_fn: Any, inner: Any, *, outer_loss_fn: Any = None, head: Any = "head", settings: Any = None
    ) -> Any:
        """Make the algorithm; arguments that its constructor does not take are ignored.

        Args:
            loss_fn: the loss on the support set.
            inner: the `InnerLoop`; its rule has a step size of 1 if step sizes are learned.
            outer_loss_fn: the loss on the query set (None: `loss_fn`).
            head: the parameters of the head.
            settings: an `InnerConfig` (None: the constructor's defaults).
        """
        options = {"outer_loss_fn": outer_loss_fn} if self.reads_query else {}
        options |= {"head": head} if self.adapts in ("head", "body") else {}
        if settings is not None:
            options |= {name: getattr(settings, name) for name in self.settings}
            options |= {"rates": settings.learning_rate} if self.learns_rates else {}
        return self.constructor(loss_fn, inner, **options)


ALGORITHMS = {
    spec.name: spec
    for spec in (
        AlgorithmSpec("maml", "MAML", second_order=True),
        AlgorithmSpec("fomaml", "FOMAML"),
        AlgorithmSpec("reptile", "Reptile", reads_query=False, persistent_moments=True),
        AlgorithmSpec("anil", "ANIL", adapts="head", second_order=True),
        AlgorithmSpec("boil", "BOIL", adapts="body", second_order=True),
        AlgorithmSpec("cavia", "CAVIA", adapts="context", second_order=True),
        AlgorithmSpec("meta_sgd", "Meta-SGD", second_order=True, learns_rates=True),
        AlgorithmSpec(
            "maml_plus_plus", "MAML++", second_order=True, learns_rates=True, settings=("multi_step_updates",)
        ),
        AlgorithmSpec("protomaml", "ProtoMAML", second_order=True, classes=True),
        AlgorithmSpec("imaml", "iMAML", settings=("proximal",)),
        AlgorithmSpec("joint", "joint training", adapts_in_training=False),
    )
}
"""All algorithms by name."""

SETTINGS = {name for spec in ALGORITHMS.values() for name in spec.settings}
"""The settings of the inner loop that only some algorithms read."""


EXAMPLES = ("shots", "train_shots", "queries")

NETWORKS: dict[str, tuple[str, ...]] = {
    "conv4": ("filters", "downsample", "features"),
    "mlp": ("hidden", "activation", "normalize", "context", "scale"),
}
"""The settings of `model` that only one kind of network reads."""

KINDS: dict[str, tuple[str, ...]] = {
    "regression": EXAMPLES,
    "images": ("ways", *EXAMPLES, "rotations", "flip", "crop", "rotate"),
    "reinforcement": ("oracle",),
}
"""The settings of `data` that every data set of a kind reads."""


@dataclass(frozen=True)
class DatasetSpec:
    """One row of the table of data sets.

    Attributes:
        name: the name in a config.
        title: the name in text.
        kind: regression, image classification, or reinforcement learning.
        image_shape: height, width and channels of every image (None: those of the files).
        module: the module of `innerloop.tasks.datasets` that reads it.
        read: `read(module, data)` returns the splits for a `DataConfig`; for a table, `preparation` is that of a run.
        reads: the settings of `data` that it reads in addition to those of its kind.
        splits: the names of its published splits, if there are several.
        needs_folder: whether it is read from a folder given by the user.
        needs_file: whether it is a table, read from a file given by the user, whose groups of rows are tasks.
        drawings: whether images are light strokes on a dark background, so that the settings of Omniglot apply.
        rotations: whether the published protocol turns each class into four by rotation.
        body: the name of the simulated body.
        goal: what the simulated body is rewarded for.
    """

    name: str
    title: str
    kind: Literal["regression", "images", "reinforcement"] = "images"
    image_shape: tuple[int, int, int] | None = None
    module: str = ""
    read: Callable[..., Any] = lambda module, data: module.load()
    reads: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    needs_folder: bool = False
    needs_file: bool = False
    drawings: bool = False
    rotations: bool = False
    body: str = ""
    goal: str = ""

    @property
    def divided(self) -> bool:
        """Whether it is a folder of images without a published split, whose classes are divided by ratios."""
        return "min_examples" in self.reads

    @property
    def settings(self) -> tuple[str, ...]:
        """All settings of `data` that it reads."""
        return KINDS[self.kind] + self.reads

    def load(self, data: object, **known: object) -> Any:
        """Load the classes (for a table, the groups) of training, validation and test for a `DataConfig`.

        `known` are further arguments of `read`.
        """
        return self.read(import_module(f"innerloop.tasks.datasets.{self.module}"), data, **known)


def _cifar(name: str, title: str) -> DatasetSpec:
    read = lambda module, data: module.load(name)
    return DatasetSpec(name, title, image_shape=(32, 32, 3), module="cifar", read=read)


def _body(body: str, goal: str) -> DatasetSpec:
    name = f"{body.replace('-', '_')}_{goal}"
    return DatasetSpec(name, f"{body.capitalize()}, {goal}", "reinforcement", body=body, goal=goal)


DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec("sinusoid", "Sinusoid regression", "regression", reads=("protocol", "oracle")),
        DatasetSpec("glyphs", "Glyphs", image_shape=(28, 28, 1), module="glyphs", drawings=True),
        DatasetSpec(
            "omniglot",
            "Omniglot",
            image_shape=(28, 28, 1),
            module="omniglot",
            read=lambda module, data: module.load(data.split or "maml"),
            reads=("split",),
            splits=("maml", "background"),
            drawings=True,
            rotations=True,
        ),
        _cifar("cifar_fs", "CIFAR-FS"),
        _cifar("fc100", "FC100"),
        DatasetSpec(
            "mini_imagenet",
            "mini-ImageNet",
            image_shape=(84, 84, 3),
            module="mini_imagenet",
            read=lambda module, data: module.load(data.folder),
            reads=("folder",),
            needs_folder=True,
        ),
        DatasetSpec(
            "folder",
            "Images",
            module="image_folder",
            read=lambda module, data: module.load(
                data.folder,
                size=data.size or None,
                background=data.background,
                min_examples=data.min_examples,
            ),
            reads=("folder", "size", "background", "min_examples"),
            needs_folder=True,
        ),
        DatasetSpec(
            "table",
            "Table",
            "regression",
            module="table",
            read=lambda module, data, preparation=None: module.load(
                data.file, missing=data.missing, preparation=preparation, **data.columns | {"task": data.task}
            ),
            reads=("file", "task", "x", "y", "categories", "missing"),
            needs_file=True,
        ),
        DatasetSpec("navigation", "2D navigation", "reinforcement"),
        _body("half-cheetah", "direction"),
        _body("half-cheetah", "velocity"),
        _body("ant", "direction"),
        _body("ant", "velocity"),
    )
}
"""All sources of tasks by name."""
