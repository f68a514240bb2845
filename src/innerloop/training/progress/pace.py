"""Chooses the length of dispatches: about a second, so that signals are seen soon."""

import time

from innerloop.parallel import multi_process

TARGET_SECONDS = 1.0
"""Target length of a dispatch. Longer ones save nothing: the overhead is about a millisecond."""

GROWTH = 4
"""The factor by which a dispatch may be longer than the one before."""


class Pace:
    """The lengths of dispatches, and their speed once everything is compiled."""

    def __init__(self, granularity: int):
        self.granularity, self.length = granularity, granularity
        self.begun, self.steps, self.excluded = time.monotonic(), 0, 0.0
        self.compiled = False

    def next(self, left: int) -> int:
        """How many of the `left` meta-steps to take now; a multiple of `granularity` if at least that many are left.

        All processes of a run get the same number.
        """
        length = min(multi_process.all_gather_int(self.length))
        return min(length, max(self.granularity, left - left % self.granularity), left)

    def record(self, steps: int, seconds: float) -> None:
        """Record that `steps` meta-steps took `seconds`. The first call is taken as compilation."""
        if not self.compiled:
            self.compiled = True
            self.exclude(seconds)
            return
        self.steps += steps
        wanted = int(TARGET_SECONDS * steps / max(seconds, 1e-9))
        self.length = max(
            self.granularity, min(wanted, GROWTH * self.length) // self.granularity * self.granularity
        )

    def exclude(self, seconds: float) -> None:
        """Exclude a one-time cost, such as compilation, from the speed."""
        self.excluded += seconds

    def per_second(self) -> float:
        """Meta-steps per second, including logging and saving; NaN before the second dispatch."""
        seconds = time.monotonic() - self.begun - self.excluded
        return self.steps / max(seconds, 1e-9) if self.steps else float("nan")
