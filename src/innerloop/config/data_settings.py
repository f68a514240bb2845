"""Which settings of the data belong to which data set."""

from dataclasses import fields, replace

from innerloop.config.schema import DataConfig
from innerloop.config.specs import DATASETS
from innerloop.errors import InnerloopError


def _foreign(data: DataConfig) -> dict[str, object]:
    """The settings that differ from their defaults and that the data set does not read, by name."""
    known = ("dataset", *data.spec.settings)
    given = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in known}
    neutral = {"ways": 1}  # tasks without classes
    plain = lambda name: (getattr(DataConfig(), name), neutral.get(name))
    return {name: value for name, value in given.items() if value not in plain(name)}


def check_read(data: DataConfig) -> None:
    """Raise InnerloopError for a setting that is given although the data set does not read it."""
    for name, value in _foreign(data).items():
        readers = [spec.name for spec in DATASETS.values() if name in spec.settings]
        hint = "leave it out" + (
            f", or give `data.dataset` {' or '.join(readers)}" if len(readers) < 3 else ""
        )
        raise InnerloopError(
            f"data.{name}", f"the data set `{data.dataset}` does not read it", got=repr(value), hint=hint
        )


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
