"""SHA-256 digests."""

import hashlib
from collections.abc import Iterable


def sha256(blocks: Iterable[bytes | memoryview]) -> bytes:
    """The digest of the concatenated blocks; the caller converts text and arrays to bytes."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.digest()
