"""How many meta-steps to compute at once: so many as take about a second, so that a signal is soon seen."""

import time

from innerloop.parallel import multi_process

SECONDS = 1.0
"""Of one dispatch. Longer ones save nothing: a dispatch costs about a millisecond."""

GROWTH = 4
"""By which a dispatch may be longer than the one before."""


class Pace:
    """The lengths of dispatches, and how fast they are once everything is compiled."""

    def __init__(self, unit: int):
        self.unit, self.length = unit, unit
        self.begun, self.steps, self.waited = time.monotonic(), 0, 0.0
        self.compiled = False

    def next(self, left: int) -> int:
        """How many of the `left` meta-steps to take now, a multiple of `unit` if there are so many.

        The same in all processes of a run.
        """
        length = min(multi_process.all_gather_int(self.length))
        return min(length, max(self.unit, left - left % self.unit), left)

    def took(self, steps: int, seconds: float) -> None:
        """So many meta-steps took so long. The first time is that of compilation."""
        if not self.compiled:
            self.compiled = True
            self.wait(seconds)
            return
        self.steps += steps
        wanted = int(SECONDS * steps / max(seconds, 1e-9))
        self.length = max(self.unit, min(wanted, GROWTH * self.length) // self.unit * self.unit)

    def wait(self, seconds: float) -> None:
        """So long nothing was computed that will be again, as while compiling."""
        self.waited += seconds

    def per_second(self) -> float:
        """Meta-steps per second with all that belongs to them; NaN before the second dispatch."""
        seconds = time.monotonic() - self.begun - self.waited
        return self.steps / max(seconds, 1e-9) if self.steps else float("nan")
