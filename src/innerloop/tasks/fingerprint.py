"""Hashes of the data that tasks are drawn from."""

import json
from itertools import chain

import numpy as np

from innerloop.io.digests import sha256
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.tasks.tables.group_splits import PARTS
from innerloop.tasks.tables.group_tasks import GroupTasks
from innerloop.tasks.tables.table import Table


def data_hashes(splits: Splits | None) -> dict[str, str]:
    """SHA-256 of the examples and classes of each split, by name; empty for tasks that come from formulas."""
    return {} if splits is None else {name: _hash_of(part) for name, part in splits._asdict().items()}


def table_hashes(table: Table) -> dict[str, str]:
    """SHA-256 of the prepared rows, sizes and names of the groups of each set, by the set's name."""
    return {part: _hash_of_groups(getattr(table, part)) for part in PARTS}


def _hash_of_groups(groups: GroupTasks) -> str:
    about = json.dumps([groups.names, groups.sizes, groups.inputs.shape, groups.targets.shape]).encode()
    return sha256([about, np.asarray(groups.inputs).tobytes(), np.asarray(groups.targets).tobytes()]).hex()


def _hash_of(arrays: ClassArrays) -> str:
    """SHA-256 of the examples, and of the names and rows of the classes."""
    about = json.dumps([arrays.names, arrays.shape, str(arrays.examples.dtype)]).encode()
    # Class by class: a memory map is never read whole.
    rows = (arrays.rows(index).tobytes() for index in range(arrays.classes))
    return sha256(chain([about], rows)).hex()
