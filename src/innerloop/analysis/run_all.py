"""All experiments on one trained run, as one plain record; results are cached."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
from jaxtyping import PRNGKeyArray

from innerloop.analysis import result_cache
from innerloop.analysis.analyzed_model import AnalyzedModel
from innerloop.analysis.freezing import contiguous, freezing
from innerloop.analysis.inner_paths import inner_paths
from innerloop.analysis.inner_steps import inner_step_curves
from innerloop.analysis.loss_landscape import loss_line, loss_plane
from innerloop.analysis.nil import nil
from innerloop.analysis.progress import ProgressFor, no_progress_for
from innerloop.analysis.similarity import similarity_across_models, similarity_before_and_after
from innerloop.analysis.training_dynamics import along_training
from innerloop.analysis.verdict import judge
from innerloop.analysis.weight_movement import layer_movement
from innerloop.config.bounds import COUNTS, STEPS, TASKS, TEST_SEED, Bounds, check_bounds
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_choice
from innerloop.io.untrusted import JsonObject
from innerloop.nn.named_layers import named_layers
from innerloop.training.models import fresh_model
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.sources import load_weights, weights_path
from innerloop.training.trained import Trained, load_trained, with_data

CLOSE = 60
"""The most tasks of an experiment on activations or parameters."""

MOST_COMPARED = 20
"""The most tasks whose activations are compared at every snapshot."""

Options = dict[str, Any]
"""The arguments `tasks`, `key` and `on_progress` of an experiment."""


@dataclass(frozen=True)
class Request:
    """What to analyse, and how.

    Attributes:
        source: a trained run, as in `innerloop.load_trained`.
        tasks: held-out tasks for scores; experiments on activations and parameters use fewer.
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
    tasks: Annotated[int, TASKS] = 1000
    seed: Annotated[int, TEST_SEED] = 0
    shots: Annotated[int | None, COUNTS] = None
    steps: Annotated[int | None, Bounds(1, STEPS.high)] = None
    frozen: tuple[tuple[str, ...], ...] = ()
    against: str | None = None
    data_folder: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"analyze.{name}")


class ExperimentRunner:
    """The experiments of one request; models and images are loaded when an experiment first needs them.

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

    def _restored(self, path: Path) -> Params:
        """A snapshot's parameters, in the form used for evaluation."""
        experiment = self.trained.experiment
        like = jax.eval_shape(experiment.init_params)  # shapes need no compilation
        params = weights.into(like, weights.load(path)[0], str(path))
        return experiment.for_tasks(params)

    def paths(self, options: Options) -> object:
        """Inner-loop paths in one projection; see `inner_paths`."""
        outer = [self._restored(path) for path in self.snapshots.values()]
        return inner_paths(self.model, outer=outer, **options)

    def early(self, options: Options) -> object:
        """Freezing and similarity at the run's snapshots; see `along_training`."""
        kept = {step: self._restored(path) for step, path in self.snapshots.items()}
        close = min(self.request.tasks, MOST_COMPARED)
        return along_training(self.model, kept, close_tasks=close, **options)

    def against(self, options: Options) -> object:
        """Similarity of the layers of this model and another; see `similarity_across_models`."""
        assert self.request.against is not None, "checked before"
        other = load_trained(self.request.against, data_folder=self.request.data_folder)
        other_model = AnalyzedModel.from_trained(other, shots=self.request.shots, steps=self.request.steps)
        return similarity_across_models(self.model, other_model, **options)

    @cached_property
    def _hash_of_weights(self) -> str:
        return result_cache.of_file(self.path)

    @cached_property
    def _hash_of_images(self) -> str:
        return result_cache.of_images(self.config)

    def _depends(self, name: str) -> JsonObject:
        """What one experiment's result depends on, besides the code."""
        r = self.request
        found: JsonObject = {"source": self._hash_of_weights, "images": self._hash_of_images}
        found |= {
            "tasks": EXPERIMENTS[name].tasks_of(r.tasks),
            "seed": r.seed,
            "shots": r.shots,
            "steps": r.steps,
        }
        if name == "freeze":
            found["frozen"] = r.frozen
        if name in ("early", "paths"):
            found["snapshots"] = {step: result_cache.of_file(path) for step, path in self.snapshots.items()}
        if name == "against" and r.against is not None:
            found["against"] = result_cache.of_file(weights_path(r.against))
        return found

    def fingerprint(self, name: str) -> str:
        """A hash of all that an experiment's result depends on; its name in the cache."""
        return result_cache.key(name, self._depends(name))

    def default(self) -> list[str]:
        """The names of all experiments that this run supports."""
        left_out = {"nil"} if self.regression else set()
        left_out |= set() if self.snapshots else {"early"}
        left_out |= set() if self.request.against else {"against"}
        return [name for name in EXPERIMENTS if name not in left_out]

    def check(self, chosen: Sequence[str]) -> None:
        """Check a choice of experiments before running any.

        Raises:
            InnerloopError: if an experiment or a layer is unknown, or the run does not support an experiment.
        """
        if self.config.data.spec.needs_file:
            wrong = "the experiments read all queries of a task, but those of a table's groups are padded"
            raise InnerloopError(
                "analyze", wrong, got=self.config.data.own, hint="use `evaluate` and `report`"
            )
        for name in chosen:
            check_choice("analyze", "experiment", name, EXPERIMENTS)
        for layer in (layer for names in self.request.frozen for layer in names):
            check_choice("layers", "layer", layer, self.layers)
        if "nil" in chosen and self.regression:
            raise InnerloopError("nil", "there is no NIL for regression", hint="leave it out")
        if "early" in chosen and not self.snapshots:
            hint = "train with `outer.snapshots` 10 and analyze the run's folder"
            raise InnerloopError("early", f"{self.request.source} has no snapshots", hint=hint)
        if "against" in chosen and self.request.against is None:
            raise InnerloopError("against", "needs a second run", hint="give --against RUN")

    def _result(self, name: str, progress_for: ProgressFor, fresh: bool) -> object:
        """The result of one experiment, from the cache unless `fresh`."""
        kept = self.fingerprint(name)
        found = None if fresh else result_cache.load(kept)
        if found is None:
            experiment = EXPERIMENTS[name]
            with progress_for(experiment.title) as on_progress:
                tasks = experiment.tasks_of(self.request.tasks)
                found = experiment.run(self, {"tasks": tasks, "key": self.key, "on_progress": on_progress})
            result_cache.save(kept, found)
        return found

    def run(self, only: Sequence[str], *, progress_for: ProgressFor, fresh: Collection[str]) -> JsonObject:
        """Run experiments and give the verdict, as `analyze` does; those in `fresh` are rerun even if cached."""
        chosen = list(only) or self.default()
        self.check(chosen)
        r, config = self.request, self.config
        results: JsonObject = {
            "source": r.source,
            "preset": config.name,
            "algorithm": config.algorithm,
            "metric": "loss" if self.regression else "accuracy",
            "moves": config.spec.adapts,
            "layers": self.layers,
            "ways": None if self.regression else config.data.ways,
            "shots": config.data.shots if r.shots is None else r.shots,
            "inner_steps": config.evaluation.steps if r.steps is None else r.steps,
            "inner_learning_rate": config.inner.learning_rate,
            "normalization": config.evaluation.normalization if config.model.normalizes else None,
            "trained_meta_steps": self.facts.get("meta_steps"),
            "training_seed": config.seed,
            "tasks": r.tasks,
            "tasks_looked_at_closely": min(r.tasks, CLOSE),
            "seed": r.seed,
        }
        if "against" in chosen:
            results["against_source"] = r.against
        for name in chosen:
            results[name] = self._result(name, progress_for, name in fresh)
        results["fingerprints"] = {name: self.fingerprint(name) for name in chosen}
        found = judge(results)
        if found is not None:
            results["verdict"] = asdict(found)
        return results


class Experiment(NamedTuple):
    """The title of its progress bar, what runs it, and the most held-out tasks that it uses (None: all asked for)."""

    title: str
    run: Callable[[ExperimentRunner, Options], object]
    most: int | None = None

    def tasks_of(self, asked: int) -> int:
        """The number of held-out tasks if `asked` were asked for."""
        return asked if self.most is None else min(asked, self.most)


def _freeze(e: ExperimentRunner, options: Options) -> object:
    return freezing(e.model, [*contiguous(e.model.layers.names), *e.request.frozen], **options)


EXPERIMENTS = {
    "freeze": Experiment("freezing", _freeze),
    "similarity": Experiment(
        "similarity before and after", lambda e, o: similarity_before_and_after(e.model, **o), CLOSE
    ),
    "nil": Experiment(
        "no inner loop (NIL)",
        lambda e, o: nil(e.model, {"trained": e.model.params, "random": e.model.initial}, **o),
    ),
    "weights": Experiment("movement of weights", lambda e, o: layer_movement(e.model, **o), CLOSE),
    "steps": Experiment("inner steps", lambda e, o: inner_step_curves(e.model, **o), CLOSE),
    "landscape": Experiment(
        "loss landscape",
        lambda e, o: {"line": loss_line(e.model, **o), "plane": loss_plane(e.model, key=e.key)},
        CLOSE,
    ),
    "paths": Experiment("inner-loop paths", ExperimentRunner.paths, 8),
    "early": Experiment("snapshots along training", ExperimentRunner.early, 300),
    "against": Experiment("similarity across runs", ExperimentRunner.against, CLOSE),
}


def analyze(
    request: Request,
    only: Sequence[str] = (),
    *,
    progress_for: ProgressFor = no_progress_for,
    fresh: bool = False,
) -> JsonObject:
    """Run experiments on a trained model, and give the verdict.

    Args:
        request: what to analyse.
        only: names of experiments in `EXPERIMENTS` (empty: all that the run supports).
        progress_for: progress callbacks.
        fresh: whether to rerun experiments whose results are cached.

    Returns:
        One plain record: the settings, the result of each experiment by its name, hashes of what each was measured with
        (`fingerprints`), and the verdict, if freezing is among them.

    Raises:
        InnerloopError: if an experiment is unknown, or the run does not support it: NIL for regression, `early` without
            snapshots, `against` without a second run.
    """
    return ExperimentRunner(request).run(only, progress_for=progress_for, fresh=EXPERIMENTS if fresh else ())
