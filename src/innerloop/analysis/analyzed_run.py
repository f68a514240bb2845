"""A trained run to analyse, and with what settings."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import jax
from jaxtyping import PRNGKeyArray

from innerloop.analysis.analyzed_model import AnalyzedModel
from innerloop.config.bounds import COUNTS, STEPS, TASKS, TEST_SEED, Bounds, check_bounds
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.nn.named_layers import named_layers
from innerloop.training.experiments.models import fresh_model
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.sources import load_weights, weights_path
from innerloop.training.trained import Trained, load_trained, with_data


@dataclass(frozen=True)
class Request:
    """What to analyse, and how.

    Attributes:
        source: a trained run, as in `innerloop.load_trained`.
        num_tasks: held-out tasks for scores; experiments on activations and parameters use fewer.
        seed: seed for drawing the tasks.
        shots: support examples per class (None: as in the run's evaluation).
        steps: inner steps (None: as in the run's evaluation).
        frozen: additional sets of layers to freeze.
        against: a second run to compare with.
        data_folder: the folder of images (empty: as in training).

    Raises:
        InnerloopError: if a number is out of bounds.
    """

    source: str
    num_tasks: Annotated[int, TASKS] = 1000
    seed: Annotated[int, TEST_SEED] = 0
    shots: Annotated[int | None, COUNTS] = None
    steps: Annotated[int | None, Bounds(1, STEPS.high)] = None
    frozen: tuple[tuple[str, ...], ...] = ()
    against: str | None = None
    data_folder: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"analyze.{name}")


class AnalyzedRun:
    """The run of a request; its model and images are loaded when they are first needed.

    Raises:
        InnerloopError: if the source has no weights.
    """

    def __init__(self, request: Request):
        self.request = request
        self.path, _, config, self.facts = load_weights(request.source)
        self.config = config = with_data(config, request.data_folder)
        if config.spec.adapts == "context":
            hint = "use `innerloop evaluate`"
            wrong = f"{config.spec.title} adapts neither body nor head, so there is nothing to compare"
            raise InnerloopError("analyze", wrong, got=request.source, hint=hint)
        if request.against is not None:
            weights_path(request.against)

    @property
    def source(self) -> str:
        """The run, as given in the request."""
        return self.request.source

    @cached_property
    def trained(self) -> Trained:
        """The trained run."""
        return load_trained(self.request.source, data_folder=self.request.data_folder)

    @cached_property
    def model(self) -> AnalyzedModel:
        """The model of the experiments."""
        return AnalyzedModel.from_trained(self.trained, shots=self.request.shots, steps=self.request.steps)

    @property
    def key(self) -> PRNGKeyArray:
        """The key for drawing tasks."""
        return jax.random.key(self.request.seed)

    @cached_property
    def layers(self) -> list[str]:
        """The names of the layers, found without loading data."""
        side = (64, 64, 1) if self.config.model.kind == "conv4" else (1,)
        blank = jax.eval_shape(lambda: fresh_model(self.config, side, jax.random.key(0)))
        return list(named_layers(blank).names)

    @property
    def regression(self) -> bool:
        """Whether tasks have no classes."""
        return self.config.data.spec.kind == "regression"

    @cached_property
    def snapshots(self) -> dict[int, Path]:
        """The snapshots saved during training, by meta-step."""
        source = Path(self.request.source)
        return RunFolder(source).snapshots() if source.is_dir() else weights.shipped_snapshots(str(source))

    def restored(self, path: Path) -> Params:
        """A snapshot's parameters, in the form used for evaluation."""
        experiment = self.trained.experiment
        like = jax.eval_shape(experiment.init_params)  # shapes need no compilation
        params = weights.into(like, weights.load(path)[0], str(path))
        return experiment.for_tasks(params)
