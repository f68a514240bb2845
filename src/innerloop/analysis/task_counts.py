"""How many held-out tasks each experiment uses, of those that were asked for."""

MOST = {"early": 300, "paths": 8} | dict.fromkeys(
    ("similarity", "weights", "steps", "landscape", "against"), 60
)
"""The most tasks of an experiment on activations or parameters, and of one that is repeated for every snapshot."""

MOST_COMPARED = 20
"""The most tasks whose activations are compared at every snapshot."""


def tasks_of(experiment: str, tasks: int) -> int:
    """The number of held-out tasks of an experiment if `tasks` were asked for."""
    return min(tasks, MOST.get(experiment, tasks))
