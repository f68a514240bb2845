"""The recorder of a run on the caller's own parts: as for every run, and the weights of the best validation."""

import os
import warnings

from innerloop.engine.meta_state import MetaState
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import JsonObject
from innerloop.training.custom.best_validation import Best, BestRule
from innerloop.training.recording.recorder import Fresh, RunRecorder
from innerloop.training.storage import own_weights
from innerloop.training.storage.checkpoint_manager import Manager
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.warm_start import WarmStart


class FitRecorder(RunRecorder):
    """A recorder that keeps the best weights, and ends the run when they have stopped improving."""

    saves_on_failure = True

    def __init__(self, run: RunFolder, checkpoints: Manager, rule: BestRule | None):
        super().__init__(run, own_weights.save, checkpoints, WarmStart(""))
        self.rule, self.best = rule, Best()

    def first_state(self, params: Params, fresh: Fresh) -> MetaState:
        """As for every run; the best validation so far is read from its lines of metrics.

        Best weights from a later step than the last checkpoint are ignored. The resumed run reaches the same weights
        again; if it ends earlier, they are not its best.
        """
        state = super().first_state(params, fresh)
        if self.rule is not None:
            self.best = best_so_far(self.run, self.rule)
        return state

    def log(self, state: MetaState, metrics: dict[str, float], incidents: JsonObject) -> None:
        """As for every run; also write the weights if they are the best so far."""
        super().log(state, metrics, incidents)
        if self.rule is None:
            return
        step = int(state.step)
        self.best = self.rule.updated(self.best, step, metrics)
        if self.best.step == step:
            self.write_weights(self.run.best.name, state, {self.rule.monitor: self.best.value})

    def ended(self) -> bool:
        """Whether patience has run out."""
        return self.rule is not None and self.rule.exhausted(self.best)


def best_so_far(run: RunFolder, rule: BestRule) -> Best:
    """The best validation whose weights are there, with a warning if they are lost.

    Validations before the step of these weights do not count: the weights of a better one may have been lost.
    """
    try:
        written = own_weights.facts(run.best).get("meta_steps") if os.path.lexists(run.best) else None
    except InnerloopError:
        written = None
    records = run.metrics()
    if type(written) is int:
        found = rule.best_of(record for record in records if record["step"] >= written)
        return found if found.step == written else Best()
    if (lost := rule.best_of(records).step) is not None:
        text = f"innerloop: {run.best} is missing or cannot be read: it held the weights of meta-step {lost}."
        warnings.warn(f"{text} The best weights from here on are kept.", stacklevel=2)
    return Best()
