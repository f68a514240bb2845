"""Broken trajectories: the physics exploded, or a reward or an action was not finite.

A broken trajectory is cut before that step, and the part before it is still learnt from. If more than a tenth of a
meta-iteration's trajectories broke, or all those of one task, the environment or the policy itself is at fault.

Arrays are `[tasks, policies, trajectories]` for one meta-iteration: the step at which a trajectory broke, or -1.
"""

import numpy as np
from jaxtyping import Int

from innerloop.io.text import counted

MAX_BROKEN_SHARE = 0.1
"""Largest share of the trajectories of a meta-iteration, or of a point of an evaluation, that may break."""


def share_broken(broken: Int[np.ndarray, "iterations tasks policies trajectories"]) -> np.ndarray:
    """The fraction of broken trajectories in each meta-iteration."""
    return (broken >= 0).mean((1, 2, 3))


def first_fatal(broken: Int[np.ndarray, "iterations tasks policies trajectories"]) -> int | None:
    """The first meta-iteration in which too many trajectories broke, counted from 0; None if there is none."""
    fatal = (share_broken(broken) > MAX_BROKEN_SHARE) | np.any(np.all(broken >= 0, axis=3), axis=(1, 2))
    return int(np.argmax(fatal)) if fatal.any() else None


def first_broken(broken: Int[np.ndarray, "tasks policies trajectories"]) -> dict[str, int]:
    """The first broken trajectory of a meta-iteration, in the order of tasks; all indices count from 0."""
    task, policy, trajectory = (int(i) for i in np.argwhere(broken >= 0)[0])
    step = int(broken[task, policy, trajectory])
    return {"task": task, "updates": policy, "trajectory": trajectory, "step": step}


def in_words(broken: Int[np.ndarray, "tasks policies trajectories"]) -> tuple[str, str]:
    """In words: where the first trajectory of a meta-iteration broke, and how many did."""
    at = first_broken(broken)
    updates = counted(at["updates"], "update")
    where = f"task {at['task']} after {updates}, trajectory {at['trajectory']}, step {at['step']}"
    return where, f"{int((broken >= 0).sum())} of {broken.size} trajectories broken"
