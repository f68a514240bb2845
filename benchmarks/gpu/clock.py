"""The time that there is, divided over what is still to do."""

import time
from collections.abc import Callable, Sequence


class Clock:
    """Shares of a fixed time. What one does not use, the next ones have."""

    def __init__(self, seconds: float, weights: Sequence[float], now: Callable[[], float] = time.monotonic):
        self.weights, self.now = list(weights), now
        self.start = now()
        self.end = self.turn_end = self.start + seconds

    def begin(self, number: int) -> None:
        """The turn of one: its share of what is left, by the weights of those that are left."""
        share = self.weights[number] / sum(self.weights[number:])
        self.turn_end = self.now() + share * self.left

    @property
    def left(self) -> float:
        """Seconds until the end of all."""
        return max(0.0, self.end - self.now())

    @property
    def turn_left(self) -> float:
        """Seconds until the end of this turn."""
        return max(0.0, self.turn_end - self.now())

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.start
