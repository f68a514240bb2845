"""SHA-256, in one place."""

import hashlib
from collections.abc import Iterable


def sha256(blocks: Iterable[bytes | memoryview]) -> bytes:
    """The digest of the blocks, one after the other; of text and arrays the caller makes bytes."""
    total = hashlib.sha256()
    for block in blocks:
        total.update(block)
    return total.digest()
