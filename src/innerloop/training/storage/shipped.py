"""The trained weights that ship with the package; without JAX, for the command's lists."""

from importlib import resources
from pathlib import Path

FOLDER = resources.files("innerloop.training.storage") / "bundled"


def names() -> list[str]:
    """The presets with shipped weights."""
    files = FOLDER.iterdir() if FOLDER.is_dir() else ()
    return sorted(f.name.removesuffix(".safetensors") for f in files if f.name.endswith(".safetensors"))


def path(name: str) -> Path:
    """The path of a preset's shipped weights."""
    return Path(str(FOLDER / f"{name}.safetensors"))
