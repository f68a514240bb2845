"""Chooses the length of dispatches: about a second, so that signals are seen soon."""

import time

from innerloop.parallel import multi_process

SECONDS = 1.0
"""Target length of a dispatch. Longer ones save nothing: the overhead is about a millisecond."""

GROWTH = 4
"""The factor by which a dispatch may be longer than the one before."""


class Pace:
    """The lengths of dispatches, and their speed once everything is compiled."""

    def __init__(self, unit: int):
        self.unit, self.length = unit, unit
        self.begun, self.steps, self.waited = time.monotonic(), 0, 0.0
        self.compiled = False

    def next(self, left: int) -> int:
        """How many of the `left` meta-steps to take now; a multiple of `unit` if at least `unit` are left.

        All processes of a run get the same number.
        """
        length = min(multi_process.all_gather_int(self.length))
        return min(length, max(self.unit, left - left % self.unit), left)

    def took(self, steps: int, seconds: float) -> None:
        """Record that `steps` meta-steps took `seconds`. The first call is taken as compilation."""
        if not self.compiled:
            self.compiled = True
            self.wait(seconds)
            return
        self.steps += steps
        wanted = int(SECONDS * steps / max(seconds, 1e-9))
        self.length = max(self.unit, min(wanted, GROWTH * self.length) // self.unit * self.unit)

    def wait(self, seconds: float) -> None:
        """Exclude a one-time cost, such as compilation, from the speed."""
        self.waited += seconds

    def per_second(self) -> float:
        """Meta-steps per second, including logging and saving; NaN before the second dispatch."""
        seconds = time.monotonic() - self.begun - self.waited
        return self.steps / max(seconds, 1e-9) if self.steps else float("nan")
