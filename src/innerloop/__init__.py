"""innerloop: gradient-based meta-learning in JAX.

All public names are available here, for example `innerloop.maml`. Each is imported on first use, so `import innerloop`
is cheap and does not initialise a device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innerloop.algorithms import anil as anil
    from innerloop.algorithms import boil as boil
    from innerloop.algorithms import cavia as cavia
    from innerloop.algorithms import fomaml as fomaml
    from innerloop.algorithms import imaml as imaml
    from innerloop.algorithms import joint as joint
    from innerloop.algorithms import maml as maml
    from innerloop.algorithms import maml_plus_plus as maml_plus_plus
    from innerloop.algorithms import meta_sgd as meta_sgd
    from innerloop.algorithms import online_maml as online_maml
    from innerloop.algorithms import protomaml as protomaml
    from innerloop.algorithms import reptile as reptile
    from innerloop.algorithms.testing.meta_gradient import check_meta_gradient as check_meta_gradient
    from innerloop.config.presets.registry import preset as preset
    from innerloop.engine.algorithm import Algorithm as Algorithm
    from innerloop.engine.algorithm import MetaInfo as MetaInfo
    from innerloop.engine.diagnosis import Diverged as Diverged
    from innerloop.engine.evaluation.curve import Curve as Curve
    from innerloop.engine.evaluation.evaluate import Score as Score
    from innerloop.engine.evaluation.evaluate import evaluate as evaluate
    from innerloop.engine.inner.inner_loop import InnerLoop as InnerLoop
    from innerloop.engine.inner.unroll import InnerState as InnerState
    from innerloop.engine.inner.unroll import Trajectory as Trajectory
    from innerloop.engine.inner.unroll import unroll as unroll
    from innerloop.engine.keys import MaybeKey as MaybeKey
    from innerloop.engine.losses.loss import Adapted as Adapted
    from innerloop.engine.losses.loss import Loss as Loss
    from innerloop.engine.losses.loss import params_of as params_of
    from innerloop.engine.losses.loss import with_params as with_params
    from innerloop.engine.meta_state import MetaState as MetaState
    from innerloop.engine.outer.outer_loop import OuterLoop as OuterLoop
    from innerloop.engine.outer.outer_loop import StepInfo as StepInfo
    from innerloop.engine.outer.persistent_adam import persistent_adam as persistent_adam
    from innerloop.engine.pytree import Except as Except
    from innerloop.engine.pytree import Selection as Selection
    from innerloop.engine.pytree import cast as cast
    from innerloop.engine.pytree import combine as combine
    from innerloop.engine.pytree import partition as partition
    from innerloop.engine.pytree import paths as paths
    from innerloop.engine.task_list import TaskList as TaskList
    from innerloop.engine.types import Batch as Batch
    from innerloop.engine.types import FiniteTasks as FiniteTasks
    from innerloop.engine.types import LossFn as LossFn
    from innerloop.engine.types import Params as Params
    from innerloop.engine.types import Task as Task
    from innerloop.engine.types import TaskDistribution as TaskDistribution
    from innerloop.engine.types import TwoStageSampler as TwoStageSampler
    from innerloop.errors import InnerloopError as InnerloopError
    from innerloop.learner.learner import Learner as Learner
    from innerloop.nn import MLP as MLP
    from innerloop.nn import Conv4 as Conv4
    from innerloop.nn.losses import BatchLoss as BatchLoss
    from innerloop.nn.losses import binary_cross_entropy as binary_cross_entropy
    from innerloop.nn.losses import cross_entropy as cross_entropy
    from innerloop.nn.losses import mean_squared_error as mean_squared_error
    from innerloop.parallel.cpu_devices import use_cores as use_cores
    from innerloop.tasks import Augmented as Augmented
    from innerloop.tasks import Episodes as Episodes
    from innerloop.tasks import IteratorOuterLoop as IteratorOuterLoop
    from innerloop.tasks import Sinusoid as Sinusoid
    from innerloop.tasks import StreamedEpisodes as StreamedEpisodes
    from innerloop.tasks import StreamedOuterLoop as StreamedOuterLoop
    from innerloop.tasks import tables as tables
    from innerloop.tasks.datasets import ClassArrays as ClassArrays
    from innerloop.training.custom.fit import fit as fit
    from innerloop.training.custom.fit_policy import fit_policy as fit_policy
    from innerloop.training.custom.run_in_folder import Fitted as Fitted
    from innerloop.training.experiments.experiment import Experiment as Experiment
    from innerloop.training.experiments.experiment import Trainable as Trainable
    from innerloop.training.interruption.signals import Stopped as Stopped
    from innerloop.training.measure import measure as measure
    from innerloop.training.measurement import Measurement as Measurement
    from innerloop.training.measurement import ReturnMeasurement as ReturnMeasurement
    from innerloop.training.measurement import ScoreMeasurement as ScoreMeasurement
    from innerloop.training.progress.callbacks import Callback as Callback
    from innerloop.training.progress.progress import Progress as Progress
    from innerloop.training.reproduce import Reproduction as Reproduction
    from innerloop.training.reproduce import reproduce as reproduce
    from innerloop.training.storage.own_weights import load_params as load_params
    from innerloop.training.train import train as train
    from innerloop.training.trained import Trained as Trained
    from innerloop.training.trained import load_trained as load_trained

PUBLIC = {
    "algorithms": (
        "anil",
        "boil",
        "cavia",
        "fomaml",
        "imaml",
        "joint",
        "maml",
        "maml_plus_plus",
        "meta_sgd",
        "online_maml",
        "protomaml",
        "reptile",
    ),
    "algorithms.testing.meta_gradient": ("check_meta_gradient",),
    "config.presets.registry": ("preset",),
    "engine.algorithm": ("Algorithm", "MetaInfo"),
    "engine.evaluation.curve": ("Curve",),
    "engine.diagnosis": ("Diverged",),
    "engine.evaluation.evaluate": ("evaluate", "Score"),
    "engine.inner.inner_loop": ("InnerLoop",),
    "engine.keys": ("MaybeKey",),
    "engine.losses.loss": ("Adapted", "Loss", "params_of", "with_params"),
    "engine.meta_state": ("MetaState",),
    "engine.outer.outer_loop": ("OuterLoop", "StepInfo"),
    "engine.outer.persistent_adam": ("persistent_adam",),
    "engine.pytree": ("cast", "combine", "Except", "partition", "paths", "Selection"),
    "engine.task_list": ("TaskList",),
    "engine.types": (
        "Batch",
        "FiniteTasks",
        "LossFn",
        "Params",
        "Task",
        "TaskDistribution",
        "TwoStageSampler",
    ),
    "engine.inner.unroll": ("InnerState", "Trajectory", "unroll"),
    "errors": ("InnerloopError",),
    "learner.learner": ("Learner",),
    "nn": ("Conv4", "MLP"),
    "nn.losses": ("BatchLoss", "binary_cross_entropy", "cross_entropy", "mean_squared_error"),
    "parallel.cpu_devices": ("use_cores",),
    "tasks": (
        "Augmented",
        "Episodes",
        "IteratorOuterLoop",
        "Sinusoid",
        "StreamedEpisodes",
        "StreamedOuterLoop",
        "tables",
    ),
    "tasks.datasets": ("ClassArrays",),
    "training.progress.callbacks": ("Callback",),
    "training.experiments.experiment": ("Experiment", "Trainable"),
    "training.custom.fit": ("fit",),
    "training.custom.fit_policy": ("fit_policy",),
    "training.custom.run_in_folder": ("Fitted",),
    "training.progress.progress": ("Progress",),
    "training.measure": ("measure",),
    "training.measurement": ("Measurement", "ReturnMeasurement", "ScoreMeasurement"),
    "training.reproduce": ("Reproduction", "reproduce"),
    "training.interruption.signals": ("Stopped",),
    "training.storage.own_weights": ("load_params",),
    "training.train": ("train",),
    "training.trained": ("load_trained", "Trained"),
}
"""The module of each public name. The imports above repeat this for type checkers; a test compares the two."""

__all__ = [name for names in PUBLIC.values() for name in names]  # pyright: ignore[reportUnsupportedDunderAll]

PACKAGES = (
    "algorithms",
    "analysis",
    "config",
    "engine",
    "errors",
    "learner",
    "nn",
    "parallel",
    "report",
    "rl",
    "tasks",
    "training",
)
"""What else `import innerloop` gives access to, for example `innerloop.rl`."""

HOMES = {name: home for home, names in PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name or a package on first use."""
    if name == "__version__":
        return import_module(f"{__name__}.io.versions").version(__name__)
    if name in PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, *PACKAGES, "__version__"})
