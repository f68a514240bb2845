"""Examples of held-out tasks: episodes with the predictions after each inner step, waves with the fitted
curves, groups of a table with their predictions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

from innerloop.engine.evaluation.evaluate import steps_to_record
from innerloop.engine.types import Batch, Params, Task
from innerloop.io.text import printable
from innerloop.nn.losses import call
from innerloop.nn.normalization import predict
from innerloop.report.comparison import Result
from innerloop.report.plots import tasks as drawings
from innerloop.report.plots.style import draw_figure
from innerloop.tasks.episodes import Episodes
from innerloop.tasks.tables.group_tasks import GroupTasks
from innerloop.training.experiments.supervised import supervised
from innerloop.training.experiments.table import table_of
from innerloop.training.trained import Trained

SEED = 2
"""Seed for the examples; measurement and validation use 0 and 1."""


@dataclass(frozen=True)
class Episode:
    """One episode.

    Attributes:
        support: pictures of the support set, `[examples, height, width, channels]`.
        support_labels: their classes.
        query: one picture per class.
        labels: their classes.
        answers: the predicted classes after each recorded inner step.
        names: the names of the classes.
    """

    support: np.ndarray
    support_labels: np.ndarray
    query: np.ndarray
    labels: np.ndarray
    answers: dict[int, np.ndarray]
    names: tuple[str, ...]


Answers = Callable[[Task], Float[np.ndarray, "steps1 query outputs"]]
"""Outputs on a task's queries after 0, 1, ... inner steps."""


def _answers_of(trained: Trained) -> Answers:
    """The answers of a run, with the settings of its evaluation; compiled once for all tasks."""
    algorithm = supervised(trained.experiment).test_algorithm
    normalization = trained.config.evaluation.normalization

    def answers(params: Params, support: Batch, inputs: object) -> Array:
        observe = lambda adapted, i: predict(call, adapted, support.inputs, inputs, normalization)
        return algorithm.trajectory(params, support, observe).observed

    compiled = jax.jit(answers)
    return lambda task: np.asarray(compiled(trained.params, task.support, task.query.inputs))


def _shown_steps(steps: int, maximum: int) -> list[int]:
    """At most `maximum` step numbers in 0..steps, including 0, 1 and the last."""
    recorded = list(steps_to_record(steps))
    if len(recorded) <= maximum:
        return recorded
    middle = np.linspace(1, len(recorded) - 1, maximum - 1).round().astype(int)
    return [0, *(recorded[i] for i in middle)]


def episodes(result: Result, count: int = 2) -> list[Episode]:
    """Test episodes with the predictions of one run; all runs on a problem get the same ones."""
    trained = result.trained
    tasks, answers = trained.experiment.held_out_tasks(), _answers_of(trained)
    return [_episode(trained, answers, tasks, key) for key in jax.random.split(jax.random.key(SEED), count)]


def _episode(trained: Trained, answers: Answers, tasks: Episodes, key: PRNGKeyArray) -> Episode:
    """One task with the predictions on the first query of each class."""
    task, names = tasks.sample(key), supervised(trained.experiment).class_names()
    chosen = np.arange(trained.config.data.ways) * trained.config.evaluation.queries
    outputs = answers(task).argmax(-1)[:, chosen]
    order = np.argsort(np.asarray(task.support.targets), kind="stable")
    return Episode(
        support=np.asarray(task.support.inputs)[order],
        support_labels=np.asarray(task.support.targets)[order],
        query=np.asarray(task.query.inputs)[chosen],
        labels=np.asarray(task.query.targets)[chosen],
        answers={step: outputs[step] for step in _shown_steps(trained.config.evaluation.steps, 5)},
        names=tuple(names[int(i)] for i in tasks.rows.classes(key)),
    )


def waves(result: Result, count: int = 3) -> list[Figure]:
    """Sinusoids with the predictions before adaptation, after one step and after the last."""
    trained = result.trained
    tasks, answers = supervised(trained.experiment).held_out_tasks(queries=300), _answers_of(trained)
    keys = jax.random.split(jax.random.key(SEED), count)
    return [_wave(trained, answers, tasks.sample(key)) for key in keys]


def _wave(trained: Trained, answers: Answers, task: Task) -> Figure:
    """One sinusoid; its many queries, sorted by x, make the curves."""
    x = np.asarray(task.query.inputs)[:, 0]
    order = np.argsort(x)
    outputs = answers(task)[..., 0]
    support = (np.asarray(task.support.inputs)[:, 0], np.asarray(task.support.targets)[:, 0])
    truth = np.asarray(task.query.targets)[order, 0]
    shown = {step: outputs[step][order] for step in _shown_steps(trained.config.evaluation.steps, 3)}
    return draw_figure(drawings.TASK, drawings.wave, x[order], truth, support, shown)


def fits(result: Result, count: int = 3) -> list[Figure]:
    """True and predicted y of a few groups of a table, in its units, before adaptation, after one step and the last."""
    trained = result.trained
    tasks, answers = table_of(trained.experiment).draws(trained.config.data.shots).test, _answers_of(trained)
    keys = jax.random.split(jax.random.key(SEED), min(count, len(tasks)))
    return [_fit(trained, answers, tasks, number, key) for number, key in enumerate(keys)]


def _fit(trained: Trained, answers: Answers, tasks: GroupTasks, number: int, key: PRNGKeyArray) -> Figure:
    """One group; the first column of y if there are several."""
    task = tasks.task(number, key)
    counts = (
        np.ones(len(task.query.targets), bool) if task.query.mask is None else np.asarray(task.query.mask)
    )
    table = table_of(trained.experiment)
    units = lambda outputs: table.restore(outputs)[counts, 0]
    outputs = answers(task)
    shown = {step: units(outputs[step]) for step in _shown_steps(trained.config.evaluation.steps, 3)}
    title = f"{trained.config.data.task} {printable(tasks.names[number], 24)}"
    name = table.preparation.y[0].name
    return draw_figure(drawings.TASK, drawings.predictions, units(task.query.targets), shown, title, name)


def walks(result: Result, count: int = 4) -> Figure:
    """Navigation towards a few held-out goals before and after each update; all runs get the same goals."""
    from innerloop.rl.evaluate import example_rollouts
    from innerloop.training.experiments.reinforcement import reinforcement

    trained = result.trained
    collector = replace(reinforcement(trained.experiment).test_sampler, trajectories=10)
    goals, rolled = example_rollouts(collector, trained.params, jax.random.key(SEED), count)
    positions = [np.asarray(t.observations)[..., :2] for t in rolled]
    masks = [np.asarray(t.mask) for t in rolled]
    grid = drawings.walks_grid(len(goals), len(positions))
    return draw_figure(grid, drawings.walks, np.asarray(goals), positions, masks)
