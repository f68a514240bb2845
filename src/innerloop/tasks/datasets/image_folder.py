"""The user's own images, in one folder per class, as class arrays."""

from pathlib import Path

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath, expanded
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.fractions import check_fractions, split_by_fractions
from innerloop.tasks.io import class_folders, pixels

WHO = "image_folder.load"
VALIDATION = ("validation", "val")


def load(
    root: AnyPath,
    *,
    size: int | None = None,
    channels: int | None = None,
    background: str = "white",
    min_examples: int = 0,
    split: tuple[float, float, float] = (0.64, 0.16, 0.20),
    seed: int = 0,
) -> Splits:
    """Load images `root/CLASS/image` as class arrays `[examples, height, width, channels]` uint8, split by class.

    If `root` contains the folders `train`, `validation` (or `val`) and `test`, each with class folders, they are
    used as they are, and `split` and `seed` are ignored.

    Args:
        root: the folder.
        size: resize every image to `size` x `size` (Lanczos); required if their sizes differ.
        channels: 1 for greyscale, 3 for colour, by default 3 if any image has colour.
        background: the colour on which transparent parts are composited: a CSS name, or `#rrggbb`.
        min_examples: classes with fewer images are left out, with a warning.
        split: fractions of the classes for training, validation and test; each gets at least one class.
        seed: seed for shuffling the sorted class names.

    Raises:
        InnerloopError: if the folder or colour does not exist, there are fewer than three classes, a class has no
            images or is in two sets, an image is unreadable, or sizes differ without `size`.
    """
    check_fractions(split, WHO)
    behind = pixels.colour(background, "background")
    parts = _parts(expanded(root, WHO), split, seed, min_examples)
    class_folders.check_disjoint(parts, WHO)
    files = {name: paths for part in parts for name, paths in part.items()}
    data = class_folders.read(files, size, channels, behind)
    return class_folders.split_classes(data, parts)


def read_classes(
    root: AnyPath, *, size: int | None = None, channels: int | None = None, background: str = "white"
) -> ClassArrays:
    """All class folders of `root` as one set of class arrays, without a split; arguments and errors as in `load`."""
    who, behind = "image_folder.read_classes", pixels.colour(background, "background")
    files = class_folders.list_classes(expanded(root, who), who)
    return class_folders.read(files, size, channels, behind)


def _parts(
    root: Path, split: tuple[float, float, float], seed: int, min_examples: int
) -> list[class_folders.Files]:
    validation = next((root / name for name in VALIDATION if (root / name).is_dir()), root / VALIDATION[0])
    folders = (root / "train", validation, root / "test")
    present = [folder for folder in folders if folder.is_dir()]
    if len(present) == 3:
        return [_classes(folder, min_examples) for folder in folders]
    if root / "train" in present and len(present) == 2:
        missing = next(folder for folder in folders if folder not in present)
        raise InnerloopError(WHO, f"{root} has only two of the three sets", got=f"no folder {missing}")
    files = _classes(root, min_examples)
    if len(files) < 3:
        raise InnerloopError(WHO, "a split needs at least three classes", got=len(files))
    parts = split_by_fractions(list(files), split, seed, minimum=1)
    return [{name: files[name] for name in sorted(part)} for part in parts]


def _classes(folder: Path, min_examples: int) -> class_folders.Files:
    """The class folders that have enough images."""
    return class_folders.drop_small_classes(class_folders.list_classes(folder, WHO), min_examples, WHO)
