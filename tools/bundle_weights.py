"""Add a finished run's weights to the package, with the facts of its training.

python -m tools.bundle_weights RUN [RUN ...]
"""

import sys
from pathlib import Path

from innerloop.training.storage import shipped, weights
from innerloop.training.storage.run_directory import RunFolder


def ship(folder: Path) -> None:
    """Copy one run's weights into the package under its preset's name."""
    run = RunFolder(folder)
    arrays, config, facts = weights.load(run.weights)
    shipped.path(config.name).parent.mkdir(exist_ok=True)
    weights.save(shipped.path(config.name), arrays, config, facts)
    print(config.name, facts)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        ship(Path(name))
