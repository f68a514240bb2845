"""Divide the remaining time among the remaining work."""

import time
from collections.abc import Callable, Sequence


class Clock:
    """Shares of a fixed time; unused time goes to later turns."""

    def __init__(self, seconds: float, weights: Sequence[float], now: Callable[[], float] = time.monotonic):
        self.weights, self.now = list(weights), now
        self.start = now()
        self.end = self.turn_end = self.start + seconds

    def begin(self, number: int) -> None:
        """Begin a turn: its share of the remaining time, by weight among the remaining turns."""
        share = self.weights[number] / sum(self.weights[number:])
        self.turn_end = self.now() + share * self.left

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return max(0.0, self.end - self.now())

    @property
    def turn_left(self) -> float:
        """Seconds until the end of this turn."""
        return max(0.0, self.turn_end - self.now())

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return self.now() - self.start
