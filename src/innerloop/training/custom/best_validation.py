"""The best validation of a run, and early stopping.

Both are functions of the lines of metrics alone, so a resumed run arrives at the same decisions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from innerloop.errors import InnerloopError, check_choice

Mode = Literal["min", "max"]

MODES: dict[str, Mode] = {"loss": "min", "accuracy": "max", "return": "max"}
"""Whether lower or higher is better, for scores known by name."""


class Best(NamedTuple):
    """The best validation so far.

    Attributes:
        step: its meta-step (None: no validation had a finite score).
        value: its score, a mean over tasks.
        since: the number of validations since then.
    """

    step: int | None = None
    value: float = math.nan
    since: int = 0


@dataclass(frozen=True)
class BestRule:
    """How validations are compared.

    Attributes:
        monitor: the name of the score.
        mode: whether a lower or a higher score is better.
        patience: the number of validations without improvement after which the run ends (None: never).
    """

    monitor: str
    mode: Mode
    patience: int | None = None

    def updated(self, best: Best, step: int, metrics: Mapping[str, Any]) -> Best:
        """The best validation, given the best so far and the metrics of this meta-step."""
        value = metrics.get(f"validation_{self.monitor}")
        if value is None:
            return best
        sign = 1.0 if self.mode == "max" else -1.0
        better = best.step is None or sign * value > sign * best.value
        return Best(step, value) if better and math.isfinite(value) else best._replace(since=best.since + 1)

    def best_of(self, records: Iterable[Mapping[str, Any]]) -> Best:
        """The best validation in a run's lines of metrics."""
        best = Best()
        for record in records:
            best = self.updated(best, int(record["step"]), record)
        return best

    def exhausted(self, best: Best) -> bool:
        """Whether patience has run out, so that the run should end."""
        return self.patience is not None and best.since >= self.patience


def best_rule(
    scores: Iterable[str], monitor: str | None, mode: Mode | None, patience: int | None
) -> BestRule:
    """The rule for these scores.

    Args:
        scores: the names of all scores of a validation.
        monitor: the score to compare (None: `loss`, or the only one).
        mode: whether lower or higher is better (None: known from its name).
        patience: as in `BestRule`.

    Raises:
        InnerloopError: if the score is unknown or has to be chosen, or it is not known whether lower or
            higher is better.
    """
    names = list(scores)
    if monitor is None and len(names) > 1 and "loss" not in names:
        raise InnerloopError("fit", "`monitor` is needed", hint="choose among: " + ", ".join(names))
    monitor = (names[0] if len(names) == 1 else "loss") if monitor is None else monitor
    check_choice("fit", "monitor", monitor, names)
    mode = MODES.get(monitor) if mode is None else mode
    if mode is None:
        hint = f"state whether a lower or a higher `{monitor}` is better: `mode='min'` or `mode='max'`"
        raise InnerloopError("fit", f"`mode` is needed for the score `{monitor}`", hint=hint)
    check_choice("fit", "mode", mode, ("min", "max"))
    return BestRule(monitor, mode, patience)
