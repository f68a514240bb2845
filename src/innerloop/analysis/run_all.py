"""All experiments on one trained run, as one plain record; each is made once and then read from the store."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import jax

from innerloop.analysis import result_cache
from innerloop.analysis.analyzed_model import Subject, Watch, subject_of
from innerloop.analysis.freezing import contiguous, freezing
from innerloop.analysis.inner_paths import inner_paths
from innerloop.analysis.inner_steps import by_step
from innerloop.analysis.loss_landscape import line, plane
from innerloop.analysis.nil import nil
from innerloop.analysis.similarity import across, before_and_after
from innerloop.analysis.training_dynamics import along_training
from innerloop.analysis.verdict import judge
from innerloop.analysis.weight_movement import movement
from innerloop.config.bounds import MEMBERS, STEPS, TASKS, TEST_SEED, Bounds, check_bounds
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.nn.named_layers import named_layers
from innerloop.training.models import fresh_model
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.sources import weights_path
from innerloop.training.trained import Trained, load_trained

Watching = Callable[[str], AbstractContextManager[Watch]]
"""`watching(title)` gives a `watch(done, total)` for one experiment."""


def unwatched(title: str) -> AbstractContextManager[Watch]:
    """No progress at all."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Request:
    """What is asked of a trained run.

    source: as `load_trained` takes it. tasks: held-out tasks of the experiments that measure scores; those that look
    at activations and parameters take fewer. frozen: further sets of layers to freeze. against: a second run to be
    compared with. shots, steps: support examples of each class and inner steps (None: as the run is evaluated).
    """

    source: str
    tasks: Annotated[int, TASKS] = 1000
    seed: Annotated[int, TEST_SEED] = 0
    shots: Annotated[int | None, MEMBERS] = None
    steps: Annotated[int | None, Bounds(1, STEPS.high)] = None
    frozen: tuple[tuple[str, ...], ...] = ()
    against: str | None = None
    data_folder: str = ""

    def __post_init__(self) -> None:
        check_bounds(self, lambda name: f"analyze.{name}")

    @property
    def close(self) -> int:
        """Tasks of experiments that look closely."""
        return min(self.tasks, 60)


class Laboratory:
    """One request, with what its experiments share; models and images are loaded when the first one needs them."""

    def __init__(self, request: Request):
        """Raises InnerloopError for a source of which there are no weights, and unknown layers."""
        self.request = request
        self.path = weights_path(request.source)
        _, config, self.facts = weights.load(self.path)
        if request.data_folder:
            config = replace(config, data=replace(config.data, folder=request.data_folder))
        self.config = config
        if request.against is not None:
            weights_path(request.against)

    @cached_property
    def trained(self) -> Trained:
        """The run."""
        return load_trained(self.request.source, data_folder=self.request.data_folder)

    @cached_property
    def subject(self) -> Subject:
        """What experiments are made on."""
        return subject_of(self.trained, shots=self.request.shots, steps=self.request.steps)

    @property
    def key(self) -> Any:
        """The key of the tasks."""
        return jax.random.key(self.request.seed)

    @cached_property
    def layers(self) -> list[str]:
        """The layers' names, known without any data."""
        side = (64, 64, 1) if self.config.model.kind == "conv4" else (1,)
        blank = jax.eval_shape(lambda: fresh_model(self.config, side, jax.random.key(0)))
        return list(named_layers(blank).names)

    @property
    def regression(self) -> bool:
        """Whether tasks have no classes."""
        return self.config.data.spec.kind == "regression"

    @property
    def moves(self) -> str:
        """What the algorithm's inner loop moves: `all`, `head` or `body`."""
        return self.config.spec.moves

    @cached_property
    def snapshots(self) -> dict[int, Path]:
        """What training kept."""
        source = Path(self.request.source)
        return RunFolder(source).snapshots() if source.is_dir() else {}

    def restored(self, path: Path) -> Params:
        """A snapshot's parameters, as they meet tasks."""
        experiment = self.trained.experiment
        params = weights.into(experiment.init_params(), weights.load(path)[0], str(path))
        return experiment.for_tasks(params)

    def identity(self) -> dict[str, Any]:
        """What every result depends on."""
        shown = {"source": result_cache.of_file(self.path), "images": result_cache.of_images(self.config)}
        return shown | {"seed": self.request.seed, "shots": self.request.shots, "steps": self.request.steps}

    # --- the experiments --------------------------------------------------------------------------------------

    def freeze(self, watch: Watch) -> Any:
        """Scores with the inner loop switched off for some layers."""
        sets = [*contiguous(self.subject.layers.names), *self.request.frozen]
        return freezing(self.subject, sets, tasks=self.request.tasks, key=self.key, watch=watch)

    def similarity(self, watch: Watch) -> Any:
        """Layers before and after adaptation."""
        return before_and_after(self.subject, tasks=self.request.close, key=self.key, watch=watch)

    def nil(self, watch: Watch) -> Any:
        """No inner loop, on the trained body and on the same network before training."""
        bodies = {"trained": self.subject.params, "random": self.subject.initial}
        return nil(self.subject, bodies, tasks=self.request.tasks, key=self.key, watch=watch)

    def weights(self, watch: Watch) -> Any:
        """How far each layer moves."""
        return movement(self.subject, tasks=self.request.close, key=self.key, watch=watch)

    def steps(self, watch: Watch) -> Any:
        """Learning over inner steps."""
        return by_step(self.subject, tasks=self.request.close, key=self.key, watch=watch)

    def landscape(self, watch: Watch) -> Any:
        """Slices of the loss."""
        along = line(self.subject, tasks=self.request.close, key=self.key, watch=watch)
        return {"line": along, "plane": plane(self.subject, key=self.key)}

    def paths(self, watch: Watch) -> Any:
        """Inner-loop paths in one picture."""
        outer = [self.restored(path) for path in self.snapshots.values()]
        return inner_paths(
            self.subject, tasks=min(8, self.request.tasks), key=self.key, outer=outer, watch=watch
        )

    def early(self, watch: Watch) -> Any:
        """Freezing and similarity at the run's snapshots."""
        kept = {step: self.restored(path) for step, path in self.snapshots.items()}
        tasks, close = min(self.request.tasks, 300), min(self.request.tasks, 20)
        return along_training(self.subject, kept, tasks=tasks, close_tasks=close, key=self.key, watch=watch)

    def against(self, watch: Watch) -> Any:
        """Layers of this model and another one."""
        assert self.request.against is not None, "checked before"
        other = load_trained(self.request.against, data_folder=self.request.data_folder)
        other_subject = subject_of(other, shots=self.request.shots, steps=self.request.steps)
        return across(self.subject, other_subject, tasks=self.request.close, key=self.key, watch=watch)

    # --- one after the other ----------------------------------------------------------------------------------

    def depends(self, name: str) -> dict[str, Any]:
        """What an experiment's result depends on, for the store."""
        r = self.request
        found = self.identity() | {"tasks": r.close if name in CLOSE else r.tasks}
        if name == "freeze":
            found["frozen"] = r.frozen
        if name in ("early", "paths"):
            found["snapshots"] = {step: result_cache.of_file(path) for step, path in self.snapshots.items()}
        if name == "against" and r.against is not None:
            found["against"] = result_cache.of_file(weights_path(r.against))
        return found

    def default(self) -> list[str]:
        """The experiments that can be made on this run."""
        left_out = {"nil"} if self.regression else set()
        left_out |= set() if self.snapshots else {"early"}
        left_out |= set() if self.request.against else {"against"}
        return [name for name in EXPERIMENTS if name not in left_out]

    def check(self, chosen: Sequence[str]) -> None:
        """Raise InnerloopError for experiments that cannot be made, before any is."""
        for name in chosen:
            if name not in EXPERIMENTS:
                do = "choose among: " + ", ".join(EXPERIMENTS)
                raise InnerloopError("analyze", "there is no such experiment", got=repr(name), do=do)
        for layer in {layer for names in self.request.frozen for layer in names} - set(self.layers):
            do = "choose among: " + ", ".join(self.layers)
            raise InnerloopError("layers", "there is none of this name", got=repr(layer), do=do)
        if "nil" in chosen and self.regression:
            raise InnerloopError("nil", "needs classes: there is no NIL for regression", do="leave it out")
        if "early" in chosen and not self.snapshots:
            do = "train with --outer.snapshots 10 and analyze the run's folder"
            raise InnerloopError("early", f"{self.request.source} has no snapshots", do=do)
        if "against" in chosen and self.request.against is None:
            raise InnerloopError("against", "needs a second run", do="give --against RUN")

    def result(self, name: str, watching: Watching, fresh: bool) -> Any:
        """One experiment, from the store if it was made before."""
        kept = result_cache.key(name, self.depends(name))
        found = None if fresh else result_cache.load(kept)
        if found is None:
            with watching(EXPERIMENTS[name]) as watch:
                found = getattr(self, name)(watch)
            result_cache.save(kept, found)
        return found


EXPERIMENTS = {
    "freeze": "freezing",
    "similarity": "similarity before and after",
    "nil": "no inner loop (NIL)",
    "weights": "movement of weights",
    "steps": "inner steps",
    "landscape": "loss landscape",
    "paths": "inner-loop paths",
    "early": "snapshots along training",
    "against": "similarity across runs",
}
"""Every experiment by the name that chooses it, with the title of its progress."""

CLOSE = ("similarity", "weights", "steps", "landscape", "paths", "against")
"""Experiments that take few tasks."""


def analyze(
    request: Request,
    only: Sequence[str] = (),
    *,
    watching: Watching = unwatched,
    fresh: bool = False,
) -> dict[str, Any]:
    """All experiments that `only` names (none named: all that can be made), and the verdict, as one plain record.

    fresh: make them again even if they are in the store. Raises InnerloopError for unknown experiments, and for those
    named that this run does not allow: NIL of a regression, `early` without snapshots, `against` without a second run.
    """
    lab = Laboratory(request)
    chosen = list(only) or lab.default()
    lab.check(chosen)
    data = lab.config.data
    results: dict[str, Any] = {
        "source": request.source,
        "preset": lab.config.name,
        "algorithm": lab.config.algorithm,
        "metric": "loss" if lab.regression else "accuracy",
        "moves": lab.moves,
        "layers": lab.layers,
        "ways": data.ways,
        "shots": data.shots if request.shots is None else request.shots,
        "inner_steps": lab.config.evaluation.steps if request.steps is None else request.steps,
        "inner_learning_rate": lab.config.inner.learning_rate,
        "normalization": lab.config.evaluation.normalization,
        "trained_meta_steps": lab.facts.get("meta_steps"),
        "training_seed": lab.config.seed,
        "tasks": request.tasks,
        "tasks_looked_at_closely": request.close,
        "seed": request.seed,
        "against_source": request.against,
    }
    for name in chosen:
        results[name] = lab.result(name, watching, fresh)
    found = judge(results)
    if found is not None:
        results["verdict"] = {"kind": found.kind, "measures": found.measures, "sentences": found.sentences}
    return results
