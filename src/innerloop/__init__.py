"""innerloop: gradient-based meta-learning in JAX.

Every public name is here, as `innerloop.maml`. Each is imported when it is first used, so that `import innerloop`
costs next to nothing and starts no device.
"""

import sys
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop.algorithms import anil as anil
    from innerloop.algorithms import boil as boil
    from innerloop.algorithms import fomaml as fomaml
    from innerloop.algorithms import joint as joint
    from innerloop.algorithms import maml as maml
    from innerloop.algorithms import reptile as reptile
    from innerloop.algorithms.algorithm import Algorithm as Algorithm
    from innerloop.algorithms.algorithm import MetaInfo as MetaInfo
    from innerloop.check import check_meta_gradient as check_meta_gradient
    from innerloop.cores import use_cores as use_cores
    from innerloop.datasets import ClassArrays as ClassArrays
    from innerloop.errors import InnerloopError as InnerloopError
    from innerloop.evaluate import evaluate as evaluate
    from innerloop.inner import InnerLoop as InnerLoop
    from innerloop.inner import unroll as unroll
    from innerloop.learner import Learner as Learner
    from innerloop.losses import BatchLoss as BatchLoss
    from innerloop.losses import binary_cross_entropy as binary_cross_entropy
    from innerloop.losses import cross_entropy as cross_entropy
    from innerloop.losses import mean_squared_error as mean_squared_error
    from innerloop.models import MLP as MLP
    from innerloop.models import Conv4 as Conv4
    from innerloop.outer import OuterLoop as OuterLoop
    from innerloop.presets import preset as preset
    from innerloop.task import Batch as Batch
    from innerloop.task import Task as Task
    from innerloop.tasks import Episodes as Episodes
    from innerloop.tasks import Sinusoid as Sinusoid
    from innerloop.tasks import StreamedEpisodes as StreamedEpisodes
    from innerloop.tasks import StreamedOuterLoop as StreamedOuterLoop
    from innerloop.train import train as train
    from innerloop.trained import load_trained as load_trained
    from innerloop.trained import measure as measure

PUBLIC = {
    "algorithms": ("anil", "boil", "fomaml", "joint", "maml", "reptile"),
    "algorithms.algorithm": ("Algorithm", "MetaInfo"),
    "check": ("check_meta_gradient",),
    "cores": ("use_cores",),
    "datasets": ("ClassArrays",),
    "errors": ("InnerloopError",),
    "evaluate": ("evaluate",),
    "inner": ("InnerLoop", "unroll"),
    "learner": ("Learner",),
    "losses": ("BatchLoss", "binary_cross_entropy", "cross_entropy", "mean_squared_error"),
    "models": ("MLP", "Conv4"),
    "outer": ("OuterLoop",),
    "presets": ("preset",),
    "task": ("Batch", "Task"),
    "tasks": ("Episodes", "Sinusoid", "StreamedEpisodes", "StreamedOuterLoop"),
    "train": ("train",),
    "trained": ("load_trained", "measure"),
}
"""Where each public name lives; the imports above tell the same to type checkers, and a test compares the two."""

__all__ = [name for names in PUBLIC.values() for name in names]  # pyright: ignore[reportUnsupportedDunderAll]

HOMES = {name: home for home, names in PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        return metadata.version(__name__)
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES, "__version__"])


class Package(ModuleType):
    """This module. `train` and `evaluate` are functions in modules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule sets it as an attribute here, which would hide the function from then on.
        if name not in HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
