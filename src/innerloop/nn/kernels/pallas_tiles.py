"""The sizes of the tiles that `pallas_conv` multiplies: the fastest that `benchmarks.gpu.tiles` measured."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MEASURED = Path(__file__).with_name("pallas_tiles.json")

EXACT = "highest"
"""The precision of products that has tiles of its own; all others are rounded, and share theirs with TF32."""

FLAT = 64
"""The largest window, in elements, that is one product; of a larger one each position is one or more."""


@dataclass(frozen=True)
class Tiles:
    """Of one product at most: places, elements of a window, and filters; and how it is compiled.

    warps, stages: of a program, and of its loads ahead. products: float32 as `ieee`, in which a GPU multiplies slowly,
    or as `x3`, three products of TensorFloat32 that keep 22 bits.
    """

    rows: int = 64
    channels: int = 32
    filters: int = 64
    warps: int = 4
    stages: int = 3
    products: str = "ieee"


def kind(window: int, filters: int) -> str:
    """What decides besides the map and the precision: whether the window is one product, and how wide the result is."""
    return ("flat" if window <= FLAT else "deep") + ("-narrow" if filters <= 32 else "-wide")


def tiles_for(name: str, precision: str, window: int, filters: int) -> Tiles:
    """The tiles of a map (`conv`, `kernel_gradient`, `input_gradient`) for a window of so many elements."""
    chosen = _measured().get(f"{name} {'float32' if precision == EXACT else 'tf32'} {kind(window, filters)}")
    return Tiles(**chosen) if chosen else Tiles()


@cache
def _measured() -> dict[str, dict]:
    """What the file holds."""
    return json.loads(MEASURED.read_text("utf-8"))
