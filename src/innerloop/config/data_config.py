"""The settings of the tasks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from innerloop.config.bounds import COUNTS, Bounds, Section
from innerloop.config.specs import DATASETS, DatasetSpec

if TYPE_CHECKING:
    Dataset = str
else:
    Dataset = Literal[tuple(DATASETS)]


def _listed(text: str) -> tuple[str, ...]:
    """The names in a comma-separated text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class DataConfig(Section):
    """The tasks."""

    SECTION = "data."

    dataset: Dataset = "glyphs"
    """The source of tasks."""
    ways: Annotated[int, COUNTS] = 5
    """Classes per episode."""
    shots: Annotated[int, COUNTS] = 1
    """Support examples per class at test (sinusoids and tables: per task)."""
    train_shots: Annotated[int | None, COUNTS] = None
    """Support examples per class in training; None: as at test (Reptile trains with more)."""
    queries: Annotated[int, COUNTS] = 1
    """Query examples per class in training (sinusoids: per task; tables: the maximum per task)."""
    rotations: bool = False
    """Turn each class into four, with images rotated by 0, 90, 180 and 270 degrees (Omniglot); see also
    `evaluation.rotations`."""
    flip: bool = False
    """Mirror images at random in training."""
    crop: Annotated[int, Bounds(0, 4096)] = 0
    """Shift images at random by up to this many pixels in training."""
    rotate: Annotated[float, Bounds(0, 180)] = 0.0
    """Rotate images at random by up to this many degrees in training."""
    split: str = ""
    """Published split of the classes; empty: the usual one of the data set."""
    folder: str = ""
    """Folder of the images (data sets `folder` and `mini_imagenet`)."""
    size: Annotated[int, Bounds(0, 4096)] = 0
    """Side length in pixels to which the images of `folder` are resized; 0: not resized."""
    background: str = "white"
    """Background colour for transparent parts of the images of `folder`: a CSS name, or #rrggbb."""
    min_examples: Annotated[int, Bounds(0, 1_000_000)] = 0
    """Leave out classes of `folder` with fewer images; 0: keep all."""
    file: str = ""
    """Table (data set `table`): a CSV or Parquet file with one row per example."""
    task: str = ""
    """Column of `file` with the group of each row; every group is a task."""
    x: str = ""
    """Input columns of `file`, separated by commas; empty: all except `task` and `y`."""
    y: str = ""
    """Column of `file` to predict, or several separated by commas."""
    categories: str = ""
    """Numeric columns of `file` to treat as categories, separated by commas."""
    missing: Literal["drop", "refuse"] = "drop"
    """Whether to leave out rows of `file` with a missing value, or to refuse the file."""
    protocol: Literal["maml", "reptile"] = "maml"
    """The paper whose sinusoids are used."""
    oracle: bool = False
    """Add the task to the input: the amplitude and phase of the sinusoid, the goal of navigation, or the direction or
    speed of a body."""

    @property
    def own(self) -> str:
        """The name of the image folder or of the table; empty for other data."""
        if self.spec.needs_file:
            return Path(self.file).name
        return Path(self.folder).name if self.spec.needs_folder else ""

    @property
    def training_shots(self) -> int:
        """Support examples per class in training."""
        return self.train_shots or self.shots

    @property
    def augmented(self) -> bool:
        """Whether images are augmented in training."""
        return bool(self.flip or self.crop or self.rotate)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of a table by the setting that names them."""
        listed = {name: _listed(getattr(self, name)) for name in ("x", "y", "categories")}
        return {"task": (self.task,) if self.task else ()} | listed

    @property
    def outputs(self) -> int:
        """The number of outputs of a model for these tasks."""
        return self.ways if self.spec.kind == "images" else max(1, len(self.columns["y"]))

    @property
    def spec(self) -> DatasetSpec:
        """The data set's row in the table of data sets."""
        return DATASETS[self.dataset]
