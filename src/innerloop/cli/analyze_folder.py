"""The folder of an analysis: which files an analysis may replace, and which earlier experiments it shows again.

A folder holds results of one set of runs, with one set of settings. A later analysis of the same runs with the same
weights, settings and code shows the experiments that are there as well, from the cache. With other settings it replaces
the earlier one if it repeats all experiments; otherwise it is refused, unless `overwrite` is set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from innerloop.errors import InnerloopError
from innerloop.io.files import OVERWRITE, resolved
from innerloop.io.folders import OutputFolder
from innerloop.io.untrusted import JsonObject, read_object

if TYPE_CHECKING:
    from innerloop.analysis.run_all import ExperimentRunner


def default_out(runs: Sequence[str]) -> Path:
    """`analysis` in the folder of a single run, else a folder in the working directory."""
    first = Path(runs[0])
    if len(runs) == 1 and first.is_dir():
        return first / "analysis"
    # Drop only the suffix of a weights file: `lr0.1` is a whole name.
    names = "-".join(resolved(run).name.removesuffix(".safetensors") for run in runs)
    return Path(f"analysis-{names}" if len(names) < 100 else f"analysis-of-{len(runs)}-runs")


def opened(
    out: Path, runs: Sequence[str], against: str | None, data_folder: str, *, overwrite: bool, default: bool
) -> OutputFolder:
    """Make the output folder of an analysis of these runs; their files are read, and so must not be replaced.

    With `overwrite`, files of others may be replaced; `default`: whether `out` was not chosen by the user. Raises
    InnerloopError if the folder cannot be made, or holds the analysis of other runs, or files that no analysis wrote.
    """
    from innerloop.analysis.experiments import EXPERIMENTS
    from innerloop.training.storage.sources import inputs_of

    inputs = [path for run in filter(None, (*runs, against)) for path in inputs_of(run, data_folder)]
    folder = OutputFolder(out, overwrite=overwrite, inputs=inputs)
    folder.make("figures")
    for name in ("index.html", "results.json", *(f"{name}.csv" for name in EXPERIMENTS)):
        folder.check(name)
    known = [str(record["source"]) for record in _records(folder) if "source" in record]
    # The default folder inside a run holds that run's analysis, even if the run has been moved since.
    moved = default and len(runs) == len(known) == 1
    if not overwrite and not moved and known and sorted(map(resolved, known)) != sorted(map(resolved, runs)):
        wrong = "holds the analysis of other runs"
        raise InnerloopError(str(folder.path), wrong, got=", ".join(known), hint=OVERWRITE)
    return folder


def _records(folder: OutputFolder) -> list[JsonObject]:
    """The records of an earlier analysis, one per run; none with `overwrite`, which begins anew."""
    path = folder.path_of("results.json")
    if folder.overwrite or not path.is_file():
        return []
    found = read_object(path, 1 << 30, follow=False)
    return found.get("runs", [found])


def earlier_experiments(
    folder: OutputFolder, runners: "Sequence[ExperimentRunner]", names: Sequence[str]
) -> list[str]:
    """The experiments besides `names` that the folder holds.

    Raises InnerloopError if the runners would measure one with other weights, settings or code.
    """
    from innerloop.analysis.experiments import EXPERIMENTS

    records = _records(folder)
    others = [name for name in EXPERIMENTS if name not in names and any(name in record for record in records)]
    known = {mark for record in records for mark in record.get("fingerprints", {}).items()}
    same = lambda name: all((name, runner.fingerprint(name)) in known for runner in runners)
    if stale := [name for name in others if not same(name)]:
        wrong = "holds an analysis with other weights, settings or code, whose results would be lost"
        hint = "repeat its options, add these experiments to --only, give another --out, or `overwrite` to replace them"
        raise InnerloopError(str(folder.path), wrong, got=", ".join(stale), hint=hint)
    return others


def remove_stale(folder: OutputFolder) -> None:
    """Remove files that an earlier analysis wrote and this one did not."""
    from innerloop.analysis.experiments import EXPERIMENTS
    from innerloop.report.analysis_page import FIGURES

    tables = [f"{name}.csv" for name in EXPERIMENTS]
    figures = [f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    for name in (*tables, *figures):
        if folder.path_of(name) not in folder.written:
            folder.discard(name)
