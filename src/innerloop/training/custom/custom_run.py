"""What is common to runs on the caller's own parts: the loop, its first state, and keys from one seed."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax

from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.types import Params
from innerloop.training.experiments.experiment import Keys, Trainable
from innerloop.training.experiments.schedule import Schedule


@dataclass(frozen=True)
class CustomRun(Trainable):
    """The parts of a run of `innerloop.fit` or `fit_policy`; `params` are meta-parameters."""

    OOM: ClassVar[str]
    """What to do if memory runs out."""

    loop: MeshLoop
    params: Params
    schedule: Schedule
    seed: int

    @property
    def meta_batch(self) -> int:
        """The number of tasks of one meta-step."""
        return self.loop.meta_batch

    def keys(self) -> Keys:
        """The key of the seed, as one would pass it to `init` of the outer loop."""
        key = jax.random.key(self.seed)
        return Keys(init=key, tasks=key)

    def init_params(self) -> Params:
        """The meta-parameters before training."""
        return self.params

    @cached_property
    def first(self) -> MetaState:
        """The state before the first meta-step, which training consumes. Raises InnerloopError as `MeshLoop.start`."""
        return self.loop.start(self.params, self.keys().tasks)

    def start(self, loop: MeshLoop, params: Params) -> MetaState:
        """The state before the first meta-step, which has been checked already: tracing a model takes long."""
        return self.first

    def outer_loop(self) -> MeshLoop:
        """The outer loop on the training tasks."""
        return self.loop

    def check_resumable(self) -> None:  # noqa: B027 (most runs are)
        """Raise InnerloopError if the training tasks cannot be continued in the middle."""
