"""The experiments on a trained run, by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

from innerloop.analysis.analyzed_model import AnalyzedModel
from innerloop.analysis.analyzed_run import AnalyzedRun
from innerloop.analysis.freezing import contiguous, freezing
from innerloop.analysis.inner_paths import inner_paths
from innerloop.analysis.inner_steps import inner_step_curves
from innerloop.analysis.loss_landscape import loss_line, loss_plane
from innerloop.analysis.nil import nil
from innerloop.analysis.similarity import similarity_across_models, similarity_before_and_after
from innerloop.analysis.training_dynamics import along_training
from innerloop.analysis.weight_movement import layer_movement
from innerloop.training.trained import load_trained

CLOSE = 60
"""The most tasks of an experiment on activations or parameters."""

MOST_COMPARED = 20
"""The most tasks whose activations are compared at every snapshot."""

Options = dict[str, Any]
"""The arguments `num_tasks`, `key` and `on_progress` of an experiment."""


class Experiment(NamedTuple):
    """The title of its progress bar, what runs it, and the most held-out tasks that it uses (None: all asked for)."""

    title: str
    run: Callable[[AnalyzedRun, Options], object]
    most: int | None = None

    def tasks_of(self, asked: int) -> int:
        """The number of held-out tasks if `asked` were asked for."""
        return asked if self.most is None else min(asked, self.most)


def _freeze(run: AnalyzedRun, options: Options) -> object:
    return freezing(run.model, [*contiguous(run.model.layers.names), *run.request.frozen], **options)


def _nil(run: AnalyzedRun, options: Options) -> object:
    return nil(run.model, {"trained": run.model.params, "random": run.model.initial}, **options)


def _landscape(run: AnalyzedRun, options: Options) -> object:
    return {"line": loss_line(run.model, **options), "plane": loss_plane(run.model, key=run.key)}


def _paths(run: AnalyzedRun, options: Options) -> object:
    outer = [run.restored(path) for path in run.snapshots.values()]
    return inner_paths(run.model, outer=outer, **options)


def _early(run: AnalyzedRun, options: Options) -> object:
    kept = {step: run.restored(path) for step, path in run.snapshots.items()}
    close = min(run.request.num_tasks, MOST_COMPARED)
    return along_training(run.model, kept, num_close_tasks=close, **options)


def _against(run: AnalyzedRun, options: Options) -> object:
    request = run.request
    assert request.against is not None, "checked before"
    other = load_trained(request.against, data_folder=request.data_folder)
    other_model = AnalyzedModel.from_trained(other, shots=request.shots, steps=request.steps)
    return similarity_across_models(run.model, other_model, **options)


EXPERIMENTS = {
    "freeze": Experiment("freezing", _freeze),
    "similarity": Experiment(
        "similarity before and after", lambda run, o: similarity_before_and_after(run.model, **o), CLOSE
    ),
    "nil": Experiment("no inner loop (NIL)", _nil),
    "weights": Experiment("movement of weights", lambda run, o: layer_movement(run.model, **o), CLOSE),
    "steps": Experiment("inner steps", lambda run, o: inner_step_curves(run.model, **o), CLOSE),
    "landscape": Experiment("loss landscape", _landscape, CLOSE),
    "paths": Experiment("inner-loop paths", _paths, 8),
    "early": Experiment("snapshots along training", _early, 300),
    "against": Experiment("similarity across runs", _against, CLOSE),
}
