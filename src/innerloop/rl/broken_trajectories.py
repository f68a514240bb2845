"""Trajectories that broke: physics that exploded, rewards or actions that are no finite numbers.

They are cut before that step and the rest is learnt from. Where more than a tenth of a meta-iteration's trajectories
broke, or all of one task, the environment or the policy itself is at fault.

Arrays are `[tasks, policies, trajectories]` for one meta-iteration: the step at which a trajectory broke, or -1.
"""

import numpy as np
from jaxtyping import Int

MOST = 0.1
"""Share of a meta-iteration's trajectories that may break."""


def share_broken(broken: Int[np.ndarray, "iterations tasks policies trajectories"]) -> np.ndarray:
    """The share of broken trajectories in each meta-iteration."""
    return (broken >= 0).mean((1, 2, 3))


def first_fatal(broken: Int[np.ndarray, "iterations tasks policies trajectories"]) -> int | None:
    """The first meta-iteration in which too many trajectories broke, counted from 0; None if there is none."""
    fatal = (share_broken(broken) > MOST) | np.any(np.all(broken >= 0, axis=3), axis=(1, 2))
    return int(np.argmax(fatal)) if fatal.any() else None


def first_broken(broken: Int[np.ndarray, "tasks policies trajectories"]) -> dict[str, int]:
    """Which trajectory of a meta-iteration broke first in the order of tasks, all counted from 0."""
    task, policy, trajectory = (int(i) for i in np.argwhere(broken >= 0)[0])
    step = int(broken[task, policy, trajectory])
    return {"task": task, "updates": policy, "trajectory": trajectory, "step": step}


def in_words(broken: Int[np.ndarray, "tasks policies trajectories"]) -> tuple[str, str]:
    """Where the first trajectory of a meta-iteration broke, and how many did."""
    at = first_broken(broken)
    where = (
        f"task {at['task']} after {at['updates']} updates, trajectory {at['trajectory']}, step {at['step']}"
    )
    return where, f"{int((broken >= 0).sum())} broken trajectories of {broken.size}"
