"""What a report tells: every run measured on the same held-out tasks, and grouped by the problem that it solves."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innerloop.training.measure import measure
from innerloop.training.measurement import Measurement
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import Trained, load_trained

OnProgress = Callable[[int, int], None]
ProgressFor = Callable[[str], AbstractContextManager[OnProgress]]
"""`watching(title)` gives a `watch(done, total)` for one measurement."""


def unwatched(title: str) -> AbstractContextManager[OnProgress]:
    """No progress at all."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Result:
    """One initialisation with its measurement; `label` names it in figures."""

    label: str
    trained: Trained
    measurement: Measurement
    metrics: list[dict[str, Any]]
    environment: dict[str, Any]
    folder: Path | None
    baseline: bool = False

    @property
    def score(self) -> str:
        """What counts: `accuracy`, `loss` for regression, or `return` in reinforcement learning."""
        return self.measurement.score

    @property
    def value(self) -> float:
        """The score after the last inner step."""
        return self.measurement.value

    @property
    def ci95(self) -> float:
        """The interval of `value`."""
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
    """All sources, as `load_trained` takes them. Raises InnerloopError for what is no run, unfinished or broken."""
    return [load_trained(source) for source in sources]


def gather(loaded: Sequence[Trained], tasks: int, watching: ProgressFor = unwatched) -> list[Group]:
    """Measure what was loaded, and the untrained networks."""
    together: dict[str, list[Trained]] = {}
    for trained in loaded:
        together.setdefault(_problem(trained), []).append(trained)
    return [_group(title, members, tasks, watching) for title, members in together.items()]


def _problem(trained: Trained) -> str:
    """What is to be learnt, in words: runs with the same words are compared."""
    data, rl, spec = trained.config.data, trained.config.rl, trained.config.data.spec
    if spec.kind == "reinforcement":
        reward = "" if spec.goal else f", reward {rl.reward}"
        return f"{spec.title}{reward}, {rl.horizon} steps"
    if spec.kind == "regression":
        whose = "" if data.protocol == "maml" else ", Reptile's protocol"
        return f"{spec.title}, {data.shots} points{whose}"
    own = "" if spec.image_shape else f" of {Path(data.folder).name}"
    turned = " with rotations" if data.rotations else ""
    return f"{spec.title}{own}{turned}, {data.ways}-way {data.shots}-shot"


def _group(title: str, members: list[Trained], tasks: int, watching: ProgressFor) -> Group:
    """Measure runs on one problem, and the first one's network untrained."""
    labels = _labels_of(members)
    runs = [_measured(label, t, tasks, watching) for label, t in zip(labels, members, strict=True)]
    first = members[0]
    blank = replace(first, params=first.experiment.init_params(), source="untrained", facts={"meta_steps": 0})
    # The members' own untrained network: only what moves and how fast differs between algorithms.
    baseline = _measured("untrained", blank, tasks, watching)
    return Group(title, runs, [replace(baseline, baseline=True, metrics=[], folder=None)])


def _labels_of(members: Sequence[Trained]) -> list[str]:
    """Short names that differ: the algorithm, else the folder's name, else the whole source."""
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


def _measured(label: str, trained: Trained, tasks: int, watching: ProgressFor) -> Result:
    """One measurement, with what the run's folder tells besides."""
    with watching(f"measuring {label}") as watch:
        found = measure(trained, tasks=tasks, watch=watch)
    path = Path(trained.source)
    if not path.is_dir():
        return Result(label, trained, found, [], {}, None)
    run = RunFolder(path)
    return Result(label, trained, found, run.metrics(), run.known(), path)
