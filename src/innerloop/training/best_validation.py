"""Which validation of a run was the best, and when there were enough without a better one.

What is known of it is a function of the lines of metrics alone, so a resumed run knows the same.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from innerloop.errors import InnerloopError, check_choice

Mode = Literal["min", "max"]

MODES: dict[str, Mode] = {"loss": "min", "accuracy": "max", "return": "max"}
"""Whether low or high is good, of scores whose names tell."""


class Best(NamedTuple):
    """The best validation so far.

    Attributes:
        step: its meta-step (None: there was none with a finite score).
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
        mode: whether a low or a high score is good.
        patience: the number of validations without a better one after which the run ends (None: never).
    """

    monitor: str
    mode: Mode
    patience: int | None = None

    def after(self, best: Best, step: int, metrics: Mapping[str, Any]) -> Best:
        """The best validation once the metrics of this meta-step are known."""
        value = metrics.get(f"validation_{self.monitor}")
        if value is None:
            return best
        sign = 1.0 if self.mode == "max" else -1.0
        better = best.step is None or sign * value > sign * best.value
        return Best(step, value) if better and math.isfinite(value) else best._replace(since=best.since + 1)

    def of(self, records: Iterable[Mapping[str, Any]]) -> Best:
        """The best validation of a run, from its lines of metrics."""
        best = Best()
        for record in records:
            best = self.after(best, int(record["step"]), record)
        return best

    def exhausted(self, best: Best) -> bool:
        """Whether the run is to end."""
        return self.patience is not None and best.since >= self.patience


def best_rule(
    scores: Iterable[str], monitor: str | None, mode: Mode | None, patience: int | None
) -> BestRule:
    """The rule for these scores.

    Args:
        scores: the names of all scores of a validation.
        monitor: the score that counts (None: `loss`, or the only one).
        mode: whether a low or a high one is good (None: as its name tells).
        patience: as in `BestRule`.

    Raises:
        InnerloopError: there is no such score, or it has to be chosen; nothing tells whether low or high is good.
    """
    names = list(scores)
    if monitor is None and len(names) > 1 and "loss" not in names:
        raise InnerloopError("fit", "`monitor` is needed", do="choose among: " + ", ".join(names))
    monitor = (names[0] if len(names) == 1 else "loss") if monitor is None else monitor
    check_choice("fit", "monitor", monitor, names)
    mode = MODES.get(monitor) if mode is None else mode
    if mode is None:
        do = f"say whether a low or a high `{monitor}` is good: `mode='min'` or `mode='max'`"
        raise InnerloopError("fit", f"`mode` is needed for the score `{monitor}`", do=do)
    check_choice("fit", "mode", mode, ("min", "max"))
    return BestRule(monitor, mode, patience)
