"""The sizes of the tiles that `pallas_conv` multiplies: the fastest ones measured by `benchmarks.gpu.tiles`."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MEASURED = Path(__file__).with_name("pallas_tiles.json")

EXACT = "highest"
"""The precision of products that has its own tiles; all other precisions round, and share the tiles of TF32."""

FLAT = 64
"""The largest window, in elements, computed as one product; a larger one takes one or more products per position."""


@dataclass(frozen=True)
class Tiles:
    """The maximum size of one product (places, elements of a window, filters), and how it is compiled.

    warps: per program. stages: of its pipelined loads. products: float32 as `ieee`, which is slow on a GPU, or as `x3`,
    three products of TensorFloat32 that keep 22 bits.
    """

    rows: int = 64
    channels: int = 32
    filters: int = 64
    warps: int = 4
    stages: int = 3
    products: str = "ieee"


def kind(window: int, filters: int) -> str:
    """The kind of shape that a tile is chosen for: whether the window is one product, and how wide the result is."""
    return ("flat" if window <= FLAT else "deep") + ("-narrow" if filters <= 32 else "-wide")


def tiles_for(name: str, precision: str, window: int, filters: int) -> Tiles:
    """The tiles of a map (`conv`, `kernel_gradient`, `input_gradient`) for a window of this many elements."""
    chosen = _measured().get(f"{name} {'float32' if precision == EXACT else 'tf32'} {kind(window, filters)}")
    return Tiles(**chosen) if chosen else Tiles()


@cache
def _measured() -> dict[str, dict]:
    """The contents of the file."""
    return json.loads(MEASURED.read_text("utf-8"))
