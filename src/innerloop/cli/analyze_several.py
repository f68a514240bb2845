"""`innerloop analyze A B ...`: the analyses of several runs on one page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from innerloop.cli.common import console, print_json
from innerloop.cli.tables import new_table
from innerloop.errors import InnerloopError
from innerloop.io.folders import OutputFolder

if TYPE_CHECKING:
    from innerloop.analysis.progress import ProgressFor
    from innerloop.analysis.run_all import ExperimentRunner
    from innerloop.io.untrusted import JsonObject

COMPARED = ("freeze", "similarity", "nil", "weights")
"""The experiments that can be shown side by side for several runs."""


def experiments(runners: "Sequence[ExperimentRunner]", only: Sequence[str]) -> list[str]:
    """The requested experiments, or else all that every run supports.

    Raises InnerloopError for experiments that cannot be shown side by side or that a run does not support, and for
    runs with different scores.
    """
    if len({lab.regression for lab in runners}) > 1:
        hint = "analyze regression and classification runs separately"
        raise InnerloopError("analyze", "the runs have different scores, loss and accuracy", hint=hint)
    for name in only:
        if name not in COMPARED:
            hint = "give one run, or choose among: " + ", ".join(COMPARED)
            raise InnerloopError("analyze", f"`{name}` cannot be shown for several runs", hint=hint)
    allowed = [lab.default() for lab in runners]
    chosen = list(only) or [name for name in COMPARED if all(name in names for names in allowed)]
    for lab in runners:
        lab.check(chosen)
    return [name for name in COMPARED if name in chosen]


def run(
    runners: "Sequence[ExperimentRunner]",
    names: Sequence[str],
    folder: OutputFolder | None,
    progress_for: "ProgressFor",
    *,
    fresh: Sequence[str],
    as_json: bool,
) -> None:
    """Run the experiments on every run, write all results into `folder` (None: nowhere), and print them.

    Those in `fresh` are rerun even if their results are cached.
    """
    from innerloop.report.measurements import labels_of

    watching = lambda label: lambda title: progress_for(f"{label}, {title}")
    analyses = {
        label: runner.run(names, progress_for=watching(label), fresh=fresh)
        for label, runner in zip(labels_of(runners), runners, strict=True)
    }
    if folder is not None:
        from innerloop.report import analysis_comparison

        analysis_comparison.write(analyses, folder)
    if as_json:
        print_json({"runs": [{"label": label, **results} for label, results in analyses.items()]})
    else:
        _show(analyses)


def _show(analyses: "dict[str, JsonObject]") -> None:
    """Print one row per run."""
    from innerloop.report.analysis_comparison import summary
    from innerloop.report.analysis_page import tasks_in_words

    found = summary(analyses)
    console().print(new_table(*found.heads, left=1, rows=found.rows))
    console().print(
        f"Mean ± 95 % interval; {tasks_in_words(next(iter(analyses.values())))}. Head alone: the body is frozen, as in "
        "ANIL. CKA of the body, and what moves most: of the layer that changes most."
    )
