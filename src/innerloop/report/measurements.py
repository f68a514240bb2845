"""The measurements of a report: runs on the same held-out tasks, grouped by problem."""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.analysis.progress import ProgressFor, no_progress_for
from innerloop.analysis.run_all import ExperimentRunner
from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.report.comparison import Result, average_over_seeds, group_by_seed
from innerloop.training.measure import measure
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import Trained, started_from, untrained_of

SEED = re.compile(r"seed-\d+")


@dataclass(frozen=True)
class Group:
    """Runs on one problem, with what their training started from as baselines."""

    title: str
    runs: list[Result]
    baselines: list[Result]

    @property
    def results(self) -> list[Result]:
        """The runs, best first and diverged ones last, then the baselines."""
        sign = 1 if self.runs[0].score == "loss" else -1
        return sorted(self.runs, key=lambda run: (math.isnan(run.value), sign * run.value)) + self.baselines

    @property
    def members(self) -> list[Result]:
        """The individual runs."""
        return [member for run in self.runs for member in run.members]

    @property
    def rows(self) -> list[Result]:
        """All results as in `results`; individual seeds follow their mean."""
        return [row for result in self.results for row in (result, *result.seeds)]

    @property
    def normalizes(self) -> bool:
        """Whether any model has batch normalisation."""
        return any(run.trained.config.model.normalizes for run in self.members)

    def baseline_of(self, run: Result) -> Result | None:
        """What the training of a run started from: the untrained network, or the model of `model.start`."""
        start = run.trained.config.model.start
        own = [b for b in self.baselines if start and b.trained.source == start]
        return (own or self.baselines or [None])[0]


def gather(
    loaded: Sequence[Trained],
    tasks: int,
    progress_for: ProgressFor = no_progress_for,
    *,
    baselines: bool = True,
) -> list[Group]:
    """Measure runs, and (`baselines`) what their training started from, on this number of held-out tasks each.

    Returns the runs grouped by problem, those that differ only in their seed as one, each group with its baselines.
    """
    together: dict[str, list[Trained]] = {}
    for trained in loaded:
        together.setdefault(_problem(trained), []).append(trained)
    starts = lambda members: _beginnings(members) if baselines else []
    return [
        _group(title, members, starts(members), tasks, progress_for) for title, members in together.items()
    ]


def _problem(trained: Trained) -> str:
    """The problem in words; runs with the same words are compared."""
    data, rl, spec = trained.config.data, trained.config.rl, trained.config.data.spec
    if spec.kind == "reinforcement":
        reward = "" if spec.goal else f", reward {rl.reward}"
        return f"{spec.title}{reward}, {counted(rl.horizon, 'step')}"
    if spec.needs_file:
        return f"{spec.title} {data.own}, {data.y} from at most {counted(data.shots, 'row')}"
    if spec.kind == "regression":
        whose = "" if data.protocol == "maml" else ", Reptile's protocol"
        return f"{spec.title}, {counted(data.shots, 'point')}{whose}"
    own = f" of {data.own}" if data.own and not spec.image_shape else ""
    turned = " with rotations" if data.rotations and trained.config.evaluation.rotations else ""
    return f"{spec.title}{own}{turned}, {data.ways}-way {data.shots}-shot"


def _group(
    title: str,
    members: list[Trained],
    starts: list[tuple[str, Trained]],
    tasks: int,
    progress_for: ProgressFor,
) -> Group:
    """Measure runs on one problem, and what their training started from."""
    shown = lambda what: progress_for(f"{what} on {title}")
    found = group_by_seed(members)
    runs = []
    for label, family in zip(labels_of([family[0] for family in found]), found, strict=True):
        names = [f"{label}, seed {t.config.seed}" for t in family] if len(family) > 1 else [label]
        single = [_measured(name, t, tasks, shown) for name, t in zip(names, family, strict=True)]
        runs.append(average_over_seeds(label, single))
    baselines = [_measured(label, t, tasks, shown) for label, t in starts]
    return Group(title, runs, [replace(baseline, baseline=True) for baseline in baselines])


def _beginnings(members: Sequence[Trained]) -> list[tuple[str, Trained]]:
    """The baselines with their labels: the untrained network of the first run, and every model training started from.

    One untrained network serves all runs: algorithms differ only in what they adapt and how fast.
    """
    found = [("untrained", untrained_of(members[0]))]
    starts = {trained.config.model.start: trained for trained in reversed(members)}
    for start, trained in reversed(starts.items()):
        if start:
            try:
                found.append((f"start: {Path(start).name}", started_from(trained)))
            except InnerloopError as trouble:
                text = f"innerloop: the report omits the model that training started from ({trouble})"
                warnings.warn(text, stacklevel=2)
    return found


def labels_of(members: Sequence[Trained | ExperimentRunner]) -> list[str]:
    """Distinct short names: the algorithm, else the folder's name, else the whole source.

    For a folder `seed-N`, the parent folder's name is the meaningful one.
    """
    paths = [Path(member.source) for member in members]
    places = [path.parent if SEED.fullmatch(path.name) else path for path in paths]
    titles = [member.config.spec.title for member in members]
    names = [place.name for place in places]
    return first_distinct([member.source for member in members], titles, names, list(map(str, places)))


def first_distinct(sources: list[str], *choices: list[str]) -> list[str]:
    """The first choice of labels that are all different; else the sources, numbered if some are equal."""
    numbered = [f"{source} ({i})" for i, source in enumerate(sources, 1)]
    return next(labels for labels in (*choices, sources, numbered) if len(set(labels)) == len(labels))


def _measured(label: str, trained: Trained, tasks: int, progress_for: ProgressFor) -> Result:
    """One measurement, with the records in the run's folder."""
    with progress_for(f"measuring {label}") as on_progress:
        found = measure(trained, num_tasks=tasks, on_progress=on_progress)
    if trained.folder is None:
        return Result(label, trained, found, [], {})
    run = RunFolder(trained.folder)
    return Result(label, trained, found, run.metrics(), run.known())
