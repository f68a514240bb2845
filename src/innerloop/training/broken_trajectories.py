"""Trajectories that broke: physics that exploded, rewards or actions that are no finite numbers.

They are cut before that step and the rest is learnt from; a run that hits one rare explosion would otherwise hit the
same one whenever it is resumed. Each meta-step that had any names the first in `metrics.jsonl`. Where more than a
tenth of a meta-step's trajectories broke, or all of one task, the policy itself is at fault, and the run stops.
"""

from pathlib import Path
from typing import Any

import numpy as np

from innerloop.errors import InnerloopError

MOST = 0.1
"""Part of a meta-step's trajectories that may break."""


def incidents(broken: np.ndarray, family: str, last_step: int, folder: Path) -> dict[str, Any]:
    """What is logged of a dispatch that ended at meta-step `last_step`: nothing, if no trajectory broke.

    `broken` is `[meta-steps, tasks, policies, trajectories]`: a step, or -1. Raises InnerloopError, naming the first
    trajectory, where too many broke in one meta-step.
    """
    if (broken < 0).all():
        return {}
    parts = (broken >= 0).mean((1, 2, 3))
    fatal = (parts > MOST) | np.any(np.all(broken >= 0, axis=3), axis=(1, 2))
    worst = int(np.argmax(fatal))
    if fatal[worst]:
        at = first(broken[worst])
        number = last_step - len(broken) + worst + 1
        raise InnerloopError(
            "train",
            f"the run diverged at meta-step {number}: {family} broke in {in_words(at)}",
            got=f"{int((broken[worst] >= 0).sum())} broken trajectories of {broken[worst].size}",
            do=f"lower `inner.learning_rate` or `rl.max_kl`; the last good checkpoint is kept in {folder}",
        )
    found = int(np.argmax(parts > 0))
    named = {"meta_step": last_step - len(broken) + found + 1, **first(broken[found])}
    return {"broken": {"trajectories": int((broken >= 0).sum()), "family": family, "first": named}}


def merged(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The incidents of two dispatches that follow each other."""
    if not (before and after):
        return before or after
    trajectories = before["broken"]["trajectories"] + after["broken"]["trajectories"]
    return {"broken": before["broken"] | {"trajectories": trajectories}}


def first(broken: np.ndarray) -> dict[str, int]:
    """Which trajectory of a meta-step broke first in the order of tasks, all counted from 0."""
    task, policy, trajectory = (int(i) for i in np.argwhere(broken >= 0)[0])
    step = int(broken[task, policy, trajectory])
    return {"task": task, "updates": policy, "trajectory": trajectory, "step": step}


def in_words(at: dict[str, int]) -> str:
    """The same as a sentence has it."""
    return (
        f"task {at['task']} after {at['updates']} updates, trajectory {at['trajectory']}, step {at['step']}"
    )
