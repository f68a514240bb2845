"""Which settings belong to which data set, and which of them it needs."""

import os
from dataclasses import fields, replace
from typing import Literal

from innerloop.config.schema import DataConfig
from innerloop.config.specs import DATASETS
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.files import expanded

SORT = "sort the classes into the folders train, validation and test"


def _foreign(data: DataConfig) -> dict[str, object]:
    """The settings that differ from their defaults and that the data set does not read, by name."""
    known = ("dataset", *data.spec.settings)
    given = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in known}
    neutral = {"ways": 1}  # tasks without classes
    plain = lambda name: (getattr(DataConfig(), name), neutral.get(name))
    return {name: value for name, value in given.items() if value not in plain(name)}


def check_read(data: DataConfig) -> None:
    """Raise InnerloopError for a setting that is given although the data set does not read it, or an unknown split."""
    if data.split and data.spec.splits:
        check_choice("data.split", "split", data.split, data.spec.splits)
    for name in _foreign(data):
        raise unread_error(data, name)


def unread_error(data: DataConfig, name: str) -> InnerloopError:
    """The error about a setting of the data that the data set does not read."""
    readers = [spec.name for spec in DATASETS.values() if name in spec.settings]
    hint = "leave it out" + (f", or give `data.dataset` {' or '.join(readers)}" if len(readers) < 3 else "")
    if name == "split" and data.spec.divided:
        hint = f"leave it out, or {SORT}"
    wrong = f"the data set `{data.dataset}` does not read it"
    return InnerloopError(f"data.{name}", wrong, got=repr(getattr(data, name)), hint=hint)


def check_places(data: DataConfig, hint: str = "") -> None:
    """Raise InnerloopError unless the image folder or the table that the data set needs is named and exists.

    `hint` says what to do if it does not exist.
    """
    if data.spec.needs_folder:
        if not data.folder:
            wrong = f"the data set `{data.dataset}` needs a folder of images"
            raise InnerloopError("data.folder", wrong, hint="give `data.folder` PATH")
        check_exists("data.folder", data.folder, "folder", hint)
    if data.spec.needs_file:
        for name in ("file", "task", "y"):
            if not getattr(data, name):
                wrong = "a table needs a file, a group column and a column to predict"
                raise InnerloopError(f"data.{name}", wrong, hint=f"give `data.{name}`")
        check_exists("data.file", data.file, "file", hint)


def check_exists(who: str, path: str, kind: Literal["file", "folder"], hint: str = "") -> None:
    """Raise InnerloopError, on behalf of `who`, unless there is such a file or folder."""
    place = expanded(path, who)
    # `Path.is_dir` raises PermissionError below a private folder.
    if not (os.path.isfile(place) if kind == "file" else os.path.isdir(place)):
        raise InnerloopError(who, f"must name an existing {kind}", got=repr(path), hint=hint)


def for_dataset(data: DataConfig, dataset: str) -> DataConfig:
    """The settings for another data set, without those that belong to the former one.

    Settings that the new data set does not read take their defaults, and classes are rotated only if its published
    protocol rotates them. The number of ways is kept only among data sets of one kind.
    """
    new = replace(data, dataset=dataset)
    if new.spec.kind != data.spec.kind:
        new = replace(new, ways=1 if new.spec.kind == "regression" else DataConfig().ways)
    kept = replace(new, **{name: getattr(DataConfig(), name) for name in _foreign(new)})
    return replace(kept, rotations=kept.rotations and kept.spec.rotations)
