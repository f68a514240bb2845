"""Hashes of the data that tasks are drawn from."""

import hashlib
import json

from innerloop.tasks.class_arrays import ClassArrays, Splits


def data_hashes(splits: Splits | None) -> dict[str, str]:
    """SHA-256 of each part's examples and classes; none for tasks that are drawn from formulas."""
    return {} if splits is None else {name: _hash_of(part) for name, part in splits._asdict().items()}


def _hash_of(arrays: ClassArrays) -> str:
    """SHA-256 of the examples and the classes' names and places."""
    found = hashlib.sha256(json.dumps([arrays.names, arrays.shape, str(arrays.examples.dtype)]).encode())
    for index in range(arrays.classes):  # class by class: a memory map is never read whole
        found.update(arrays.rows(index).tobytes())
    return found.hexdigest()
