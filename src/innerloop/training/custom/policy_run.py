"""The parts of a run of `innerloop.fit_policy`: the caller's own environment, policy and algorithm."""

from dataclasses import dataclass

from innerloop.errors import InnerloopError
from innerloop.rl.evaluate import evaluator
from innerloop.rl.fit import check_fit
from innerloop.rl.outer import MetaIterations
from innerloop.rl.sampler import MetaSampler
from innerloop.training.custom.custom_run import CustomRun
from innerloop.training.diagnosis import nan_diagnosis
from innerloop.training.experiments.experiment import Evaluator
from innerloop.training.experiments.policy_training import PolicyTraining


@dataclass(frozen=True)
class PolicyRun(PolicyTraining, CustomRun):
    """The parts of a run of `innerloop.fit_policy`."""

    CALLER = nan_diagnosis.POLICY
    LOWER = CALLER.sizes
    OOM = "adapt fewer tasks at a time (`chunk=1`), or lower `meta_batch` or the sampler's `trajectories`"

    loop: MetaIterations
    validation: MetaSampler | None

    @property
    def sampler(self) -> MetaSampler:
        """Samples training trajectories."""
        return self.loop.sampler

    @property
    def family(self) -> str:
        """The name of the environment in messages."""
        return type(self.sampler.environment).__name__

    def held_out_tasks(self, split: str = "validation") -> MetaSampler | None:
        """The sampler of validation, which draws its tasks from other keys."""
        return self.validation

    def check_validation(self) -> None:
        """Raise InnerloopError unless validation, if there is any, is a sampler for this policy."""
        if self.validation is None:
            return
        if not isinstance(self.validation, MetaSampler):
            got, hint = type(self.validation).__name__, "pass the sampler of training, for example"
            raise InnerloopError(self.CALLER.who, "`validation` must be a MetaSampler", got=got, hint=hint)
        if self.validation.environment is not self.sampler.environment:
            check_fit(self.validation.environment, self.params)

    def evaluator(self, held_out: object, *, num_tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation on the validation tasks, which does not end a run because trajectories break."""
        assert self.validation is not None
        return evaluator(self.validation, num_tasks=num_tasks, on_broken="keep")
