"""Write the scripts with the weights and drawings for the page of `innerloop demo`: `python -m tools.demo_assets`.

Needs Omniglot (INNERLOOP_DATA). The weights are the shipped ones in float16. Second moments span thirty orders of
magnitude; their square roots, by which the inner rule divides, fit into float16.
"""

import base64
import json
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool

from innerloop.engine.pytree import paths
from innerloop.engine.types import Params
from innerloop.io.files import write_text
from innerloop.learner.pretrained import load_initialisation
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.datasets import omniglot
from innerloop.tasks.episodes import Episodes
from innerloop.training.experiments.supervised import SupervisedExperiment

PAGE = Path(__file__).resolve().parents[1] / "src" / "innerloop" / "report" / "demo"
ALGORITHMS = ("maml", "fomaml", "reptile", "anil")
TASKS = 6


def load(algorithm: str) -> tuple[Params, SupervisedExperiment]:
    """An algorithm's shipped meta-parameters and their experiment."""
    params, experiment, _ = load_initialisation(f"omniglot-5way-1shot-{algorithm}")
    return params, experiment


def halves(params: Params) -> dict[str, np.ndarray]:
    """The meta-parameters by path in float16, with the square roots of the moments."""
    named = zip(paths(params), jax.tree.leaves(params), strict=True)
    stored = {name: np.asarray(x) for name, x in named}
    roots = {name: np.sqrt(x) if name.startswith("moments/") else x for name, x in stored.items()}
    return {name.removeprefix("model/"): x.astype(np.float16) for name, x in roots.items()}


def model(algorithm: str) -> dict[str, object]:
    """An algorithm in the page's format."""
    params, experiment = load(algorithm)
    arrays, config = halves(params), experiment.config
    return {
        "name": algorithm,
        "title": config.spec.title,
        "features": config.model.features,
        "rule": config.inner.optimizer,
        "rate": config.inner.learning_rate,
        "headOnly": experiment.algorithm.inner.select is not None,
        "trainedSteps": config.inner.steps,
        "sizes": {name: x.size for name, x in arrays.items()},
        "float16": _text(b"".join(x.astype("<f2").tobytes() for x in arrays.values())),
    }


def task(classes: ClassArrays, seed: int) -> dict[str, object]:
    """A held-out task in the page's format: one example and one query from each of five classes, as bits."""
    episodes, key = Episodes(classes, 5, 1, 1), jax.random.key(seed)
    drawn = episodes.sample(key)
    order = np.argsort(np.asarray(drawn.support.targets))
    return {
        "classes": [classes.names[number] for number in np.asarray(episodes.rows.classes(key))],
        "examples": _text(np.packbits(_ink(drawn.support.inputs)[order]).tobytes()),
        "queries": _text(np.packbits(_ink(drawn.query.inputs)).tobytes()),
    }


def _ink(inputs: jax.Array) -> Bool[np.ndarray, "examples 105 105 1"]:
    """Where there is ink."""
    return np.asarray(inputs) > 0.5


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def script(name: str, value: object) -> str:
    """A JavaScript file that defines one constant."""
    return (
        f'"use strict"; // written by tools/demo_assets.py\nconst {name} = {json.dumps(value, indent=1)};\n'
    )


def models() -> str:
    """The script with the weights."""
    return script("MODELS", [model(algorithm) for algorithm in ALGORITHMS])


def tasks(held_out: ClassArrays) -> str:
    """The script with the drawings: the first held-out tasks, without rotations."""
    return script("TASKS", [task(held_out, seed) for seed in range(TASKS)])


if __name__ == "__main__":
    write_text(PAGE / "models.js", models())
    write_text(PAGE / "tasks.js", tasks(omniglot.load(size=omniglot.SIDE).test))
