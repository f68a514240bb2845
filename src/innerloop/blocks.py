"""Equal blocks: how much to take at a time where a number must divide evenly."""


def divisor_up_to(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`; at least 1."""
    return max((n for n in range(1, min(most, number) + 1) if number % n == 0), default=1)
