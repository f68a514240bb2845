"""Test pictures while a latent is fitted to them."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import PyTree

import innerloop as il

from .pictures import Pictures
from .siren import colours

ROWS = ("start", "1 step", "2 steps", "3 steps", "picture")


def draw(path: Path, algorithm: il.Algorithm, params: PyTree, pictures: Pictures, side: int) -> None:
    """Draw six test pictures after 0, 1, 2 and 3 inner steps, and the originals."""
    figure, axes = plt.subplots(len(ROWS), 6, figsize=(6, 5.4), layout="constrained")
    at_every_place = lambda params, i: colours(params, pictures.places)
    for column in range(6):
        task = pictures.task(column * len(pictures.pictures) // 6)
        seen = algorithm.trajectory(params, task.support, at_every_place).observed
        for row, picture in enumerate([*seen[:4], task.query.targets]):
            shown = np.clip(picture, 0, 1).reshape(side, side, -1)
            axes[row, column].imshow(shown, cmap="gray", vmin=0, vmax=1)
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(ROWS):
        axes[row, 0].set_ylabel(name)
    figure.savefig(path, dpi=150)
    print(f"pictures: {path}")
