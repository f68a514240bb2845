"""What a run of `innerloop.fit_policy` computes: its samplers in numbers, and digests of its traced programs."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from innerloop.engine.algorithm import described
from innerloop.engine.jaxprs import all_equations
from innerloop.engine.meta_state import MetaState
from innerloop.io.digests import sha256
from innerloop.io.untrusted import JsonObject
from innerloop.parallel.mesh import task_mesh
from innerloop.rl.environments.base import Environment
from innerloop.rl.interaction import draw_tasks, reset_all, step_all
from innerloop.rl.outer import MetaIterations
from innerloop.rl.sampler import MetaSampler, split_draws
from innerloop.training.custom.fit_programs import program_digest
from innerloop.training.custom.policy_run import PolicyRun


def described_sampler(sampler: MetaSampler) -> JsonObject:
    """What identifies a sampler in a message: its environment, its numbers, and its algorithm."""
    numbers = {"horizon": sampler.environment.horizon, "trajectories": sampler.trajectories}
    family = {"environment": type(sampler.environment).__name__, "restarts": sampler.restarts}
    return family | numbers | described(sampler.algorithm)


def programs_of(run: PolicyRun) -> dict[str, str]:
    """Digests of all programs of a run; a change of the environment changes all of them, so it comes first."""
    state, own = run.first, run.sampler.environment
    found = {"environment": environment_digest(own, state.key), "training": _updated(run.loop, state)}
    if run.validation is not None:
        other, known = run.validation.environment, found["environment"]
        found["validation_environment"] = known if other is own else environment_digest(other, state.key)
        found["validation_sampler"] = _sampled(run.validation, state)
    return found


def environment_digest(environment: Environment, key: PRNGKeyArray) -> str:
    """A digest of an environment's traced program and, if it calls the host, of the numbers of one step.

    No trace holds the code that runs on the host, such as a Gymnasium environment. Three digits of every number are
    compared, because the bits may be others on another processor.
    """
    step = lambda key: _one_step(environment, key)
    program = program_digest(step, key)
    traced = jax.make_jaxpr(step)(key)
    if not any("callback" in equation.primitive.name for equation in all_equations(traced.jaxpr)):
        return program
    found = [f"{x:.3g}" for leaf in jax.tree.leaves(jax.jit(step)(key)) for x in np.ravel(leaf)]
    return sha256([program.encode(), " ".join(found).encode()]).hex()


def _one_step(environment: Environment, key: PRNGKeyArray) -> PyTree:
    """The first observation of a task, and what a step in it returns besides the state."""
    keys, discrete = jnp.reshape(key, 1), environment.discrete
    task = jax.tree.map(lambda x: x[0], draw_tasks(environment, keys))
    state, observation = reset_all(environment, keys, task)
    action = jnp.zeros(1, int) if discrete else jnp.zeros((1, environment.action_size))
    return observation, step_all(environment, keys, state, action)[1:]


def _sampled(sampler: MetaSampler, state: MetaState) -> str:
    """A digest of how trajectories are collected and the policy is adapted to them."""
    rollouts = lambda policy, keys: sampler.rollouts(policy, *split_draws(sampler.environment, keys))
    return program_digest(rollouts, state.params, jax.random.split(state.key, 2))


def _updated(loop: MetaIterations, state: MetaState) -> str:
    """A digest of a whole meta-iteration, traced for one device so that their number does not matter."""
    one = MetaIterations(loop.sampler, loop.outer_step, meta_batch=loop.meta_batch, mesh=task_mesh(1))
    return program_digest(one.program(1), state, None, None)
