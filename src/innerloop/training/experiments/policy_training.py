"""What is common to all runs that train a policy: what they log, and how broken trajectories end them."""

from abc import abstractmethod

import numpy as np
from jaxtyping import PyTree

from innerloop.io.untrusted import JsonObject
from innerloop.rl.sampler import MetaSampler
from innerloop.training.diagnosis.broken_trajectories import incidents
from innerloop.training.diagnosis.nan_diagnosis import Block
from innerloop.training.experiments.experiment import Trainable


class PolicyTraining(Trainable):
    """A run whose outer loop is `MetaIterations`."""

    LOWER = "`inner.learning_rate` or `rl.max_kl`"
    """What to lower if too many trajectories break."""

    @property
    @abstractmethod
    def sampler(self) -> MetaSampler:
        """Samples training trajectories."""

    @property
    @abstractmethod
    def family(self) -> str:
        """The name of the environment in messages."""

    def series(self, info: PyTree) -> dict[str, PyTree]:
        """Losses, returns after each update, and the KL divergence and length of the outer step."""
        returns = np.asarray(info.returns)
        named = {f"return_after_{i}": returns[:, i] for i in range(returns.shape[1])}
        step = {"kl": np.asarray(info.kl), "step_length": np.asarray(info.length)}
        return super().series(info) | named | step

    def check(self, info: PyTree, block: Block) -> JsonObject:
        """The broken trajectories. Raises Diverged if there are too many, or if the run diverged otherwise."""
        broken = incidents(np.asarray(info.broken), self.family, block, self.CALLER.who, self.LOWER)
        return super().check(info, block) | broken

    def work(self) -> dict[str, int]:
        """The numbers of tasks and environment steps of one meta-iteration; no trajectory is taken to end early."""
        sampler, work = self.sampler, super().work()
        trajectories = work["tasks"] * (sampler.training.inner.steps + 1) * sampler.trajectories
        return work | {"environment_steps": trajectories * sampler.environment.horizon}
