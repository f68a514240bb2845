"""Hashes of the data that tasks are drawn from."""

import json
from itertools import chain

from innerloop.io.digests import sha256
from innerloop.tasks.class_arrays import ClassArrays, Splits


def data_hashes(splits: Splits | None) -> dict[str, str]:
    """SHA-256 of the examples and classes of each split, by name; empty for tasks that come from formulas."""
    return {} if splits is None else {name: _hash_of(part) for name, part in splits._asdict().items()}


def _hash_of(arrays: ClassArrays) -> str:
    """SHA-256 of the examples, and of the names and rows of the classes."""
    about = json.dumps([arrays.names, arrays.shape, str(arrays.examples.dtype)]).encode()
    # Class by class: a memory map is never read whole.
    rows = (arrays.rows(index).tobytes() for index in range(arrays.classes))
    return sha256(chain([about], rows)).hex()
