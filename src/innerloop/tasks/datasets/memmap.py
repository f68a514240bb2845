"""Class arrays that stay on disk, as a memory map, for data larger than memory.

The files are a plain `.npy` and a JSON file next to it, described in `innerloop.tasks.io.array_files`. They contain no
pickle, and any version of NumPy can read them.
"""

from pathlib import Path

import numpy as np

from innerloop.errors import InnerloopError
from innerloop.io.files import AnyPath, cannot_write, check_output_path, expanded
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.io import array_files, class_folders, pixels


def save(data: ClassArrays, path: AnyPath, *, overwrite: bool = False) -> None:
    """Write class arrays to `path` (a name ending in `.npy`) and a JSON file next to it, class by class.

    Raises:
        InnerloopError: if the name has another ending, one of the two files exists and `overwrite` is false, or the
            disk is full or cannot be written to; nothing half-written is left behind.
    """
    target = _new(path, overwrite)
    with cannot_write(target):
        array_files.write(data, target, "saved class arrays")


def open(path: AnyPath, *, verify: bool = False) -> ClassArrays:
    """Open saved class arrays; `examples` is a read-only `np.memmap`, read from disk as needed.

    Args:
        path: the `.npy` file.
        verify: whether to read the whole file once to check its sha256.

    Raises:
        InnerloopError: if a file is missing, truncated or in another format, or the JSON file does not match it.
    """
    return array_files.read(_npy(path), verify=verify)


def build(
    root: AnyPath,
    path: AnyPath,
    *,
    size: int | None = None,
    channels: int | None = None,
    background: str = "white",
    overwrite: bool = False,
) -> ClassArrays:
    """Stream images `root/CLASS/image` into a memory map, with one image in memory at a time.

    Args:
        root: the folder with one subfolder per class.
        path: the `.npy` file to write; a `.json` file is written beside it.
        size: as in `image_folder.load`, like `channels` and `background`.
        channels: 1 for grey, 3 for colour (None: as the images have).
        background: the colour behind transparent pixels.
        overwrite: whether to replace existing files.

    Returns:
        The class arrays, as returned by `open`: `[examples, height, width, channels]` uint8.

    Raises:
        InnerloopError: as for `image_folder.read_classes`, `save` and `open`.
    """
    target, behind = _new(path, overwrite), pixels.colour(background, "background")
    files = class_folders.list_classes(expanded(root, "memmap.build"), "memmap.build")
    shape = class_folders.common_shape(files, size, channels)
    counts = np.array([len(paths) for paths in files.values()], np.int32)
    layout = array_files.Layout((int(counts.sum()), *shape), np.dtype(np.uint8), counts, tuple(files))
    with cannot_write(target):
        array_files.write_blocks(
            class_folders.blocks(files, size, shape[2], behind), target, layout, "a folder of pictures"
        )
    return open(target)


def _npy(path: AnyPath) -> Path:
    target = expanded(path, "memmap")
    if target.suffix != ".npy":
        raise InnerloopError("memmap", "the file name must end in .npy", got=repr(str(path)))
    return target


def _new(path: AnyPath, overwrite: bool) -> Path:
    target = _npy(path)
    for file in (target, array_files.sidecar(target)):
        check_output_path(file, overwrite=overwrite, new_folder=True)
    return target
