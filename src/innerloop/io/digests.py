"""SHA-256 digests."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any


def sha256(blocks: Iterable[bytes | memoryview]) -> bytes:
    """The digest of the concatenated blocks; the caller converts text and arrays to bytes."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.digest()


def sha256_of_arrays(arrays: Mapping[str, Any]) -> bytes:
    """The digest of names, dtypes, shapes and bytes of NumPy arrays, whatever their order."""
    return sha256(
        f"{name}\0{x.dtype}\0{x.shape}\0".encode() + x.tobytes() for name, x in sorted(arrays.items())
    )
