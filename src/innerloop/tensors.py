"""Writing safetensors files whole or not at all."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from innerloop.errors import InnerloopError


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], do: str) -> None:
    """Write the arrays by name, in place of what is there. Raises InnerloopError, with `do`, where it cannot be."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.touch()
        mode = draft.stat().st_mode  # as any new file's; safetensors gives its own to the owner alone
        save_file(arrays, draft, metadata=metadata)
        draft.chmod(mode)
        draft.replace(path)
    except (SafetensorError, OSError) as error:
        with suppress(OSError):
            draft.unlink()
        raise InnerloopError(str(path), f"cannot be written ({error})", do=do) from None
