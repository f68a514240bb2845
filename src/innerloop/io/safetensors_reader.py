"""Reads untrusted safetensors files: the whole header is checked before any array is created.

A file consists of eight bytes with the length of the header, a JSON object with the dtype, shape and position of every
tensor, and the tensors one after the other, without gaps (https://huggingface.co/docs/safetensors). So a file cannot
ask for more memory than its own size.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256_of_arrays
from innerloop.io.untrusted import JsonObject, open_regular, parse_json

HEADER = 1 << 22
"""The largest size of a header in bytes."""

TENSORS = 10_000
"""The largest number of tensors."""

SHA256 = "innerloop_sha256"
"""The name of the digest of all arrays and of the other metadata, among the metadata."""

DTYPES: dict[str, DTypeLike] = {
    "F16": np.float16, "BF16": jnp.bfloat16, "F32": np.float32, "F64": np.float64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_,
}  # fmt: skip


class _Tensor(NamedTuple):
    """The description of one tensor; offsets count from the end of the header."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def largest() -> int:
    """The largest file size in bytes: half of the machine's memory, since the arrays are copied to a device."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # not on Windows
        return 1 << 33


def read(path: Path, what: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and the metadata. Raises InnerloopError ("PATH: holds no WHAT") for any other file."""
    try:
        with open_regular(path, largest()) as file:
            size, header = _header(file)
            metadata = header.pop("__metadata__", {})
            tensors = _tensors(header, size)
            content = file.read(size)
        arrays = {tensor.name: _array(content, tensor) for tensor in tensors}
    except (OSError, ValueError) as trouble:  # or if it is not a regular file
        said = str(trouble).removeprefix(f"{path}: ").rstrip(".")
        raise InnerloopError(str(path), f"holds no {what} ({said})") from None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InnerloopError(str(path), f"holds no {what} (its metadata are not strings)")
    kept = metadata.pop(SHA256, None)  # files of other programs have none, nor those of version 0.1.0
    if kept is not None and kept != digest(arrays, metadata):
        wrong = "is not what innerloop wrote: it is damaged, or was changed by another program"
        hint = f"put back a copy, or remove `{SHA256}` from its metadata"
        raise InnerloopError(str(path), wrong, hint=hint)
    return arrays, metadata


def digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The sha256 of arrays and metadata, in hexadecimal digits."""
    texts = {
        f"__metadata__/{name}": np.frombuffer(text.encode(), np.uint8) for name, text in metadata.items()
    }
    return sha256_of_arrays({**arrays, **texts}).hex()


def _header(file: BinaryIO) -> tuple[int, JsonObject]:
    """The number of bytes of tensor data, and the header."""
    whole = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(HEADER, whole - 8):
        raise ValueError("it is not a safetensors file, or it was cut short")
    header = parse_json(file.read(length).decode("utf-8"), "the header")
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return whole - 8 - length, header


def _tensors(header: JsonObject, size: int) -> list[_Tensor]:
    """The tensors in the order of their offsets, which must fill the file."""
    if len(header) > TENSORS:
        raise ValueError(f"more than {TENSORS} tensors")
    found = sorted((_tensor(name, about) for name, about in header.items()), key=lambda t: (t.begin, t.end))
    at = 0
    for tensor in found:
        if tensor.begin != at:
            raise ValueError(f"`{tensor.name[:80]}` does not start where the previous one ends")
        at = tensor.end
    if at != size:
        raise ValueError(f"tensors of {at} bytes, where there are {size}")
    return found


def _tensor(name: str, about: object) -> _Tensor:
    shown = name[:80]
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"`{shown}` is not described by its dtype, shape and offsets")
    if not isinstance(about["dtype"], str) or about["dtype"] not in DTYPES:
        raise ValueError(f"`{shown}` has the dtype {str(about['dtype'])[:20]!r}, which is not supported")
    shape, place, dtype = about["shape"], about["data_offsets"], np.dtype(DTYPES[about["dtype"]])
    if not _whole(shape) or len(shape) > 32 or not _whole(place) or len(place) != 2:
        raise ValueError(f"`{shown}` has no valid shape or offsets")
    if math.prod(shape) * dtype.itemsize != place[1] - place[0]:
        raise ValueError(f"`{shown}` has a different number of bytes than its shape")
    return _Tensor(name, dtype, tuple(shape), *place)


def _whole(values: object) -> bool:
    """Whether this is a list of whole numbers that fit an index."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _array(content: bytes, tensor: _Tensor) -> np.ndarray:
    """The array of one tensor. Raises ValueError if the content was truncated meanwhile."""
    count = math.prod(tensor.shape)
    if not count:
        return np.empty(tensor.shape, tensor.dtype)
    return np.frombuffer(content, tensor.dtype, count, tensor.begin).reshape(tensor.shape)
