"""Writes safetensors files atomically."""

import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from innerloop.errors import InnerloopError
from innerloop.io.files import cannot_write, replacing
from innerloop.io.safetensors_reader import SHA256, digest


def write(
    path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], hint: str, *, overwrite: bool = True
) -> None:
    """Write arrays by name and their digest, replacing any existing file.

    Raises:
        InnerloopError: with `hint`, if that fails.
    """
    # `save_file` writes the memory as it is; `ascontiguousarray` would give scalars an axis.
    arrays = {n: np.asarray(x, dtype=x.dtype.newbyteorder("="), order="C") for n, x in arrays.items()}
    metadata = metadata | {SHA256: digest(arrays, metadata)}
    with cannot_write(path, hint), replacing(path, overwrite=overwrite) as draft:
        try:
            save_file(arrays, draft, metadata=metadata)
        except SafetensorError as error:
            said = re.sub(r"^.*Error: ", "", str(error)).partition(" (os error")[0]
            raise InnerloopError(str(path), f"cannot be written ({said})", hint=hint) from None
