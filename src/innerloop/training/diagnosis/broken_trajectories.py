"""What a run logs about broken trajectories, and when they end it (`innerloop.rl.broken_trajectories`).

A rare broken trajectory would come up again whenever the run is resumed, so a few of them do not end the run: their
number and the first of them are logged in `metrics.jsonl`.
"""

import numpy as np

from innerloop.engine.diagnosis import Diverged
from innerloop.io.untrusted import JsonObject
from innerloop.rl.broken_trajectories import first_broken, first_fatal, in_words, share_broken
from innerloop.training.diagnosis.nan_diagnosis import Block
from innerloop.training.storage.run_directory import last_checkpoint_hint


def incidents(broken: np.ndarray, family: str, block: Block, who: str, lower: str) -> JsonObject:
    """The log entry of the dispatch of `block`; empty if no trajectory broke.

    `broken` is `[meta-steps, tasks, policies, trajectories]`: the step at which a trajectory broke, or -1. Raises
    Diverged on behalf of `who`, naming the first one and what to `lower`, if too many broke in one meta-step.
    """
    if (broken < 0).all():
        return {}
    before = block.step - len(broken) + 1
    worst = first_fatal(broken)
    if worst is not None:
        where, count = in_words(broken[worst])
        raise Diverged(
            who,
            f"the run diverged at meta-step {before + worst}: {family} broke in {where}",
            got=count,
            hint=f"lower {lower}{last_checkpoint_hint(block.folder)}",
        )
    found = int(np.argmax(share_broken(broken) > 0))
    named = {"meta_step": before + found, **first_broken(broken[found])}
    return {"broken": {"trajectories": int((broken >= 0).sum()), "family": family, "first": named}}


def merged(before: JsonObject, after: JsonObject) -> JsonObject:
    """The incidents of two consecutive dispatches."""
    if not (before and after):
        return before or after
    trajectories = before["broken"]["trajectories"] + after["broken"]["trajectories"]
    return {"broken": before["broken"] | {"trajectories": trajectories}}
