"""The measurements of a report: runs on the same held-out tasks, grouped by problem."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.analysis.progress import ProgressFor, no_progress_for
from innerloop.analysis.records import Record
from innerloop.training.measure import measure
from innerloop.training.measurement import Measurement
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import Trained, load_trained


@dataclass(frozen=True)
class Result:
    """One initialisation with its measurement.

    Attributes:
        label: its name in figures and tables.
        trained: the run.
        measurement: its scores on held-out tasks.
        metrics: what training logged.
        environment: what the run was made with.
        folder: the run's folder (None: weights without a run).
        baseline: whether it is the untrained network.
    """

    label: str
    trained: Trained
    measurement: Measurement
    metrics: list[Record]
    environment: Record
    folder: Path | None
    baseline: bool = False

    @property
    def score(self) -> str:
        """The name of the score: `accuracy`, `loss` for regression, or `return` in reinforcement learning."""
        return self.measurement.score

    @property
    def value(self) -> float:
        """The score after the last inner step."""
        return self.measurement.value

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of `value`."""
        return self.measurement.ci95

    def at(self, step: int) -> tuple[float, float] | None:
        """Mean and interval after `step` inner steps, if they were recorded."""
        return self.measurement.at(step)


@dataclass(frozen=True)
class Group:
    """Runs on one problem, and the untrained network as their baseline."""

    title: str
    runs: list[Result]
    baselines: list[Result]

    @property
    def results(self) -> list[Result]:
        """The runs, best first, then the baselines."""
        sign = 1 if self.runs[0].score == "loss" else -1
        return sorted(self.runs, key=lambda run: sign * run.value) + self.baselines


def load(sources: Sequence[str | Path]) -> list[Trained]:
    """Load trained runs.

    Args:
        sources: as `innerloop.load_trained` takes them.

    Raises:
        InnerloopError: for anything but a finished, intact run.
    """
    return [load_trained(source) for source in sources]


def gather(loaded: Sequence[Trained], tasks: int, progress_for: ProgressFor = no_progress_for) -> list[Group]:
    """Measure runs, and the untrained networks.

    Args:
        loaded: the runs.
        tasks: held-out tasks per measurement.
        progress_for: progress callbacks.

    Returns:
        The runs grouped by problem, each group with its untrained network.
    """
    together: dict[str, list[Trained]] = {}
    for trained in loaded:
        together.setdefault(_problem(trained), []).append(trained)
    return [_group(title, members, tasks, progress_for) for title, members in together.items()]


def _problem(trained: Trained) -> str:
    """The problem in words; runs with the same words are compared."""
    data, rl, spec = trained.config.data, trained.config.rl, trained.config.data.spec
    if spec.kind == "reinforcement":
        reward = "" if spec.goal else f", reward {rl.reward}"
        return f"{spec.title}{reward}, {rl.horizon} steps"
    if spec.kind == "regression":
        whose = "" if data.protocol == "maml" else ", Reptile's protocol"
        return f"{spec.title}, {data.shots} points{whose}"
    own = "" if spec.image_shape else f" of {Path(data.folder).name}"
    turned = " with rotations" if data.rotations and trained.config.evaluation.rotations else ""
    return f"{spec.title}{own}{turned}, {data.ways}-way {data.shots}-shot"


def _group(title: str, members: list[Trained], tasks: int, progress_for: ProgressFor) -> Group:
    """Measure runs on one problem, and the untrained network of the first."""
    labels = _labels_of(members)
    runs = [_measured(label, t, tasks, progress_for) for label, t in zip(labels, members, strict=True)]
    first = members[0]
    blank = replace(first, params=first.experiment.init_params(), source="untrained", facts={"meta_steps": 0})
    # One untrained network serves all members: algorithms differ only in what they adapt, and how fast.
    baseline = _measured("untrained", blank, tasks, progress_for)
    return Group(title, runs, [replace(baseline, baseline=True, metrics=[], folder=None)])


def _labels_of(members: Sequence[Trained]) -> list[str]:
    """Distinct short names: the algorithm, else the folder's name, else the whole source."""
    choices: list[Callable[[Trained], str]] = [
        lambda t: t.config.spec.title,
        lambda t: Path(t.source).name,
        lambda t: t.source,
    ]
    for name in choices:
        labels = [name(trained) for trained in members]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{trained.source} ({i})" for i, trained in enumerate(members, 1)]


def _measured(label: str, trained: Trained, tasks: int, progress_for: ProgressFor) -> Result:
    """One measurement, with the records in the run's folder."""
    with progress_for(f"measuring {label}") as on_progress:
        found = measure(trained, tasks=tasks, on_progress=on_progress)
    path = Path(trained.source)
    if not path.is_dir():
        return Result(label, trained, found, [], {}, None)
    run = RunFolder(path)
    return Result(label, trained, found, run.metrics(), run.known(), path)
