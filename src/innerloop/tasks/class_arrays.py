"""Class arrays: the in-memory form of every data set, from which all samplers draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from innerloop.errors import InnerloopError, check_count, check_names
from innerloop.io.text import counted, first_repeated

WHO = "ClassArrays"


@dataclass(frozen=True, eq=False)
class ClassArrays:
    """Examples of many classes in one array, with the rows of each class contiguous.

    Attributes:
        examples: `[examples, height, width, channels]`, uint8 or float32; may be an `np.memmap`.
        starts: `[classes]` int32, the first row of each class.
        counts: `[classes]` int32, the number of rows of each class.
        names: the class names, in the order of `starts`.

    Raises:
        InnerloopError: if a dtype or shape is wrong, a class is empty or repeated, classes overlap or exceed the array,
            or a value is not finite (a memory map is not checked for that, since it would have to be read as a whole).
    """

    examples: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]

    def __repr__(self) -> str:
        classes = counted(self.classes, "class", "classes")
        return f"<ClassArrays: {classes}, examples {self.examples.dtype}{list(self.examples.shape)}>"

    def __post_init__(self) -> None:
        _check_examples(self.examples)
        _check_names(self.names)
        _check_index("starts", self.starts, len(self.names))
        _check_index("counts", self.counts, len(self.names))
        _check_rows(self)
        _check_finite(self.examples)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: `(height, width, channels)`."""
        return tuple(self.examples.shape[1:])

    def rows(self, index: int) -> np.ndarray:
        """A view of all examples of class number `index`: `[counts[index], height, width, channels]`."""
        index = check_count(WHO, "index", index, 0, self.classes - 1)
        start = int(self.starts[index])
        return self.examples[start : start + int(self.counts[index])]

    def select(self, names: Sequence[str]) -> "ClassArrays":
        """Keep these classes, in this order.

        The rows are copied, except from a memory map, which is shared: only `starts` and `counts` change.

        Raises:
            InnerloopError: if a name is unknown, or no name is given.
        """
        names = check_names(WHO, "names", names)
        index = _indices(self.names, names)
        if isinstance(self.examples, np.memmap):
            return ClassArrays(self.examples, self.starts[index], self.counts[index], tuple(names))
        return self.gather(names)

    def gather(self, names: Sequence[str]) -> "ClassArrays":
        """Copy these classes into memory, in this order; unlike `select`, this also copies from a memory map.

        Raises:
            InnerloopError: as for `select`.
        """
        names = check_names(WHO, "names", names)
        index = _indices(self.names, names)
        return ClassArrays.from_lists([np.asarray(self.rows(i)) for i in index], names)

    @classmethod
    def from_lists(cls, per_class: Sequence[np.ndarray], names: Sequence[str]) -> "ClassArrays":
        """Join one array `[examples, height, width, channels]` per class.

        Raises:
            InnerloopError: if the numbers of arrays and names differ, there is no class, a class is empty, or shapes
                differ.
        """
        names = check_names(WHO, "names", names)
        if not isinstance(per_class, Sequence) or not all(hasattr(rows, "shape") for rows in per_class):
            got = type(per_class).__name__
            raise InnerloopError(WHO, "`per_class` must be a list of NumPy arrays", got=got)
        if not per_class or len(per_class) != len(names):
            got = f"{counted(len(per_class), 'array')} and {counted(len(names), 'name')}"
            raise InnerloopError(WHO, "every class needs one array and one name", got=got)
        kinds = {(rows.shape[1:], rows.dtype) for rows in per_class}
        if len(kinds) > 1:
            raise InnerloopError(WHO, "all classes must share one example shape and dtype", got=kinds)
        counts = np.array([len(rows) for rows in per_class], np.int32)
        return cls(np.concatenate(per_class), starts_of(counts), counts, tuple(names))


class Splits(NamedTuple):
    """The disjoint classes for training, validation and test."""

    train: ClassArrays
    validation: ClassArrays
    test: ClassArrays


def starts_of(counts: np.ndarray) -> np.ndarray:
    """The first row of each class, for classes that follow one another without gaps: `[classes]` int32."""
    return (np.cumsum(counts) - counts).astype(np.int32)


def _indices(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    where = {name: i for i, name in enumerate(known)}
    missing = [name for name in wanted if name not in where]
    if missing:
        raise InnerloopError(
            WHO, f"{len(missing)} of the selected classes do not exist", got=repr(missing[0])
        )
    return [where[name] for name in wanted]


def _check_examples(examples: np.ndarray) -> None:
    if not isinstance(examples, np.ndarray) or examples.dtype not in (np.uint8, np.float32):
        got = getattr(examples, "dtype", type(examples).__name__)
        raise InnerloopError(WHO, "examples must be a NumPy array of uint8 or float32", got=got)
    if examples.ndim != 4:
        wanted = "[examples, height, width, channels]"
        raise InnerloopError(WHO, f"examples must have the axes {wanted}", got=f"shape {examples.shape}")


def _check_index(field: str, value: np.ndarray, classes: int) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != np.int32:
        got = getattr(value, "dtype", type(value).__name__)
        raise InnerloopError(WHO, f"{field} must be a NumPy array of int32", got=got)
    if value.shape != (classes,):
        raise InnerloopError(
            WHO, f"{field} must have one entry per name ({classes})", got=f"shape {value.shape}"
        )


def _check_names(names: tuple[str, ...]) -> None:
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise InnerloopError(WHO, "names must be a tuple of strings", got=type(names).__name__)
    if not names:
        raise InnerloopError(WHO, "there must be at least one class", got=0)
    if (twice := first_repeated(names)) is not None:
        raise InnerloopError(WHO, "class names must differ", got=f"{twice!r} twice")


def _check_rows(data: ClassArrays) -> None:
    if data.counts.min() < 1:
        name = data.names[int(data.counts.argmin())]
        raise InnerloopError(WHO, f"class {name!r} must have examples", got=int(data.counts.min()))
    order = np.argsort(data.starts, kind="stable")
    starts = data.starts[order].astype(np.int64)
    ends = starts + data.counts[order]
    if starts[0] < 0 or ends[-1] > len(data.examples) or (starts[1:] < ends[:-1]).any():
        got = f"rows {starts[0]} to {ends[-1]} of {len(data.examples)}"
        raise InnerloopError(
            WHO, "starts and counts must mark disjoint ranges of rows within examples", got=got
        )


def _check_finite(examples: np.ndarray) -> None:
    if examples.dtype == np.uint8 or isinstance(examples, np.memmap):
        return
    bad = int(examples.size - np.isfinite(examples).sum())
    if bad:
        raise InnerloopError(
            WHO, "values must be finite", got=f"{bad} NaN or infinite", hint="clean the examples"
        )
