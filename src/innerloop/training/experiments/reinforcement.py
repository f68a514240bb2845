"""Builds the parts of a reinforcement learning run from a config."""

from dataclasses import dataclass

import jax
import optax

from innerloop.config.schema import Config
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.engine.types import LossFn, Params
from innerloop.errors import InnerloopError
from innerloop.rl import surrogates
from innerloop.rl.environments import Environment, Locomotion, Navigation, Oracle
from innerloop.rl.evaluate import evaluator
from innerloop.rl.outer import MetaIterations
from innerloop.rl.policies import CategoricalPolicy, GaussianPolicy
from innerloop.rl.sample_processor import SampleProcessor
from innerloop.rl.sampler import MetaSampler
from innerloop.rl.trpo.natural_gradient import TrustRegion
from innerloop.rl.updates import OuterStep, gradient_update, ppo_update, trpo_update
from innerloop.training.experiments.experiment import Evaluator, Experiment
from innerloop.training.experiments.optimizers import decay_schedule, inner_loop, inner_rule, outer_optimizer
from innerloop.training.experiments.policy_training import PolicyTraining


@dataclass(frozen=True)
class RLExperiment(PolicyTraining, Experiment):
    """The parts of a run that trains a policy in an environment."""

    @property
    def family(self) -> str:
        """The name of the environment in messages."""
        return self.config.data.dataset

    @property
    def environment(self) -> Environment:
        """The family of tasks."""
        rl, spec = self.config.rl, self.config.data.spec
        family: Environment = Navigation(rl.reward, rl.horizon)
        if spec.body:
            family = Locomotion(spec.body, spec.goal, rl.horizon)  # pyright: ignore[reportArgumentType]
        return Oracle(family) if self.config.data.oracle else family

    @property
    def policy(self) -> type[CategoricalPolicy] | type[GaussianPolicy]:
        """The policy class for this kind of actions."""
        return CategoricalPolicy if self.environment.discrete else GaussianPolicy

    def init_params(self) -> Params:
        """The policy before training."""
        e, m = self.environment, self.config.model
        return self.policy(
            e.observation_size, e.action_size, hidden=m.hidden, activation=m.activation, key=self.keys().init
        )

    @property
    def base_algorithm(self) -> Algorithm:
        """The configured algorithm, the same code as in supervised learning, before data are collected."""
        rl, inner = self.config.rl, inner_loop(self.config.inner, differentiated=True)
        loss: LossFn = getattr(surrogates, rl.surrogate)
        query = surrogates.ratio if rl.outer == "gradient" else None  # the other outer steps have their own
        return self.config.spec.make(loss, inner, outer_loss_fn=query, head=self.policy.HEAD)

    @property
    def sampler(self) -> MetaSampler:
        """Samples training trajectories."""
        trajectories = self.config.rl.trajectories
        return MetaSampler(self.environment, self.base_algorithm, self.sample_processor, trajectories)

    @property
    def test_algorithm(self) -> Algorithm:
        """The algorithm with its inner steps at test, which are smaller after the first."""
        inner, decay = self.config.inner, self.config.rl.test_lr_decay
        rule = inner_rule(inner.optimizer, optax.piecewise_constant_schedule(inner.learning_rate, {1: decay}))
        return self.base_algorithm.with_inner(rule=rule, steps=self.config.evaluation.steps)

    @property
    def test_sampler(self) -> MetaSampler:
        """Samples trajectories at test: more of them, for more steps."""
        number, restarts = self.config.rl.test_trajectories, self.config.rl.test_restarts
        return MetaSampler(self.environment, self.test_algorithm, self.sample_processor, number, restarts)

    @property
    def sample_processor(self) -> SampleProcessor:
        """Computes returns and advantages of trajectories."""
        rl = self.config.rl
        return SampleProcessor(rl.discount, rl.gae_lambda, rl.baseline)

    @property
    def algorithm(self) -> Algorithm:
        """The configured algorithm on collected data."""
        return self.sampler.replayed

    @property
    def chunk(self) -> int | None:
        """Tasks adapted at a time: one by one is faster on a CPU, all at once elsewhere."""
        on_cpu = jax.default_backend() == "cpu"
        return 1 if self.config.outer.chunk is None and on_cpu else self.config.outer.chunk

    @property
    def outer_step(self) -> OuterStep:
        """The configured outer step."""
        rl = self.config.rl
        if rl.outer == "trpo":
            region = TrustRegion(rl.max_kl, rl.conjugate_gradients, fisher_fraction=rl.fisher_fraction)
            return trpo_update(region, self.optimizer)
        if rl.outer == "ppo":
            return ppo_update(self.optimizer, rl.epochs, rl.clip)
        return gradient_update(self.optimizer)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The outer optimiser; for TRPO, only the decay of its step length."""
        c = self.config.outer
        if self.config.rl.outer != "trpo":
            return outer_optimizer(c)
        if c.decay == "constant":
            return optax.identity()
        return optax.scale_by_schedule(decay_schedule(c.decay, 1.0, c.meta_steps))

    def held_out_tasks(self, split: str = "test") -> Environment:
        """The environment of training: held-out tasks differ only by their keys."""
        return self.environment

    def outer_loop(self) -> MeshLoop:
        """Meta-iterations on the environment."""
        return MetaIterations(self.sampler, self.outer_step, meta_batch=self.meta_batch, chunk=self.chunk)

    def evaluator(self, held_out: object, *, num_tasks: int, last_only: bool = False) -> Evaluator:
        """The compiled evaluation: returns after every update, as they are needed for the last one anyway.

        Validation (`last_only`) does not end a run because trajectories break.
        """
        return evaluator(self.test_sampler, num_tasks=num_tasks, on_broken="keep" if last_only else "raise")


def reinforcement(experiment: Experiment) -> RLExperiment:
    """The experiment, if it trains a policy. Raises InnerloopError if it learns from examples."""
    if not isinstance(experiment, RLExperiment):
        raise InnerloopError(experiment.config.name, "is not a policy and has no environment")
    return experiment


def check_policy(config: Config) -> None:
    """Raise InnerloopError for settings that policies do not support."""
    for name, plain in {"kind": "mlp", "normalize": False, "context": 0, "scale": None}.items():
        if (value := getattr(config.model, name)) != plain:
            wrong = "a policy must be a plain MLP"
            raise InnerloopError(f"model.{name}", wrong, got=value, hint=f"set it to {plain}")
    if (shards := config.outer.model_shards) > 1:
        raise InnerloopError("outer.model_shards", "policies cannot be sharded", got=shards)
    spec, rl = config.spec, config.rl
    if not spec.reads_query and rl.outer != "gradient":
        hint = "use `rl.outer` gradient"
        raise InnerloopError(spec.name, "has no query loss for this outer step", got=rl.outer, hint=hint)
    if spec.adapts_in_training and not config.inner.steps:
        hint = "use joint, which takes none in training"
        raise InnerloopError("inner.steps", f"{spec.name} needs an inner step", got=0, hint=hint)
    if rl.outer == "trpo" and spec.adapts_in_training and config.inner.derivative == "mixed":
        wrong = "the outer step trpo needs forward mode, which mixed mode lacks"
        raise InnerloopError("inner.derivative", wrong, got="mixed", hint="use rematerialised or unrolled")
