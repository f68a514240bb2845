"""Splitting the groups of a table into training, validation and test groups."""

from collections.abc import Iterable, Mapping, Sequence

from innerloop.errors import InnerloopError
from innerloop.io.text import first_repeated
from innerloop.tasks.fractions import check_fractions, split_by_fractions
from innerloop.tasks.tables.columns import as_name

PARTS = ("train", "validation", "test")
MIN_GROUPS = 2
"""Minimum number of groups in each part: a confidence interval over groups needs two."""

Split = tuple[float, float, float] | Mapping[str, Iterable[object]]
"""Fractions of the groups for training, validation and test, or a dict of groups for `train`, `validation`, `test`."""


def split_names(names: Sequence[str], split: Split, seed: int, who: str) -> dict[str, list[str]]:
    """The groups of each part, by the part's name.

    Args:
        names: the groups, in the order of the table.
        split: fractions, or the groups of each part.
        seed: seed for shuffling the sorted names, if `split` holds fractions.
        who: the called function, for messages.

    Raises:
        InnerloopError: if fractions or names are wrong, there are too few groups, or a group is in two parts.
    """
    if isinstance(split, Mapping):
        return _as_named(names, split, who)
    check_fractions(split, who)
    if len(names) < 3 * MIN_GROUPS:
        hint = "choose another column as `task`"
        raise InnerloopError(
            who, f"a split needs at least {3 * MIN_GROUPS} groups", got=len(names), hint=hint
        )
    return dict(zip(PARTS, split_by_fractions(sorted(names), split, seed, MIN_GROUPS), strict=True))


def _as_named(names: Sequence[str], split: Mapping[str, Iterable[object]], who: str) -> dict[str, list[str]]:
    """The given parts, checked."""
    lists = all(isinstance(groups, Iterable) and not isinstance(groups, str) for groups in split.values())
    parts = {part: [as_name(name) for name in groups] for part, groups in split.items()} if lists else {}
    if set(parts) != set(PARTS) or not all(parts.values()):
        hint = "pass a dict with a list of groups for each of " + ", ".join(PARTS)
        raise InnerloopError(
            who, "`split` must name the groups of each part", got=sorted(map(str, split)), hint=hint
        )
    chosen = [name for part in parts.values() for name in part]
    if (twice := first_repeated(chosen)) is not None:
        raise InnerloopError(who, "a group must be in only one part of `split`", got=f"{twice!r} twice")
    if unknown := sorted(set(chosen) - set(names)):
        raise InnerloopError(who, "`split` names a group that the table does not have", got=repr(unknown[0]))
    return parts
