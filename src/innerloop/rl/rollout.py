"""Trajectories of one task: K of them side by side, H steps as one scan."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop.engine.types import Params
from innerloop.rl.distributions import Distribution
from innerloop.rl.environments.base import Environment


class Trajectories(NamedTuple):
    """What was seen, answered, done and paid, one after the other.

    `answers` are the acting policy's distributions. `mask` is 1 up to and with the step that ended the trajectory,
    then 0. Where several trajectories follow each other in a lane (`innerloop.rl.restarting_rollout`), `ends` is 1
    at each one's
    last step; None: there is one in each. A reward that is no finite number says that the environment broke there.
    """

    observations: Float[Array, "trajectories steps observation"]
    answers: Distribution
    actions: Array
    rewards: Float[Array, "trajectories steps"]
    mask: Float[Array, "trajectories steps"]
    ends: Float[Array, "trajectories steps"] | None = None

    def first(self) -> "Trajectories":
        """Each lane's first trajectory alone."""
        if self.ends is None:
            return self
        before = jnp.cumsum(self.ends, -1) - self.ends
        return self._replace(mask=self.mask * (before == 0), ends=None)

    def returns(self) -> Float[Array, " trajectories"]:
        """Undiscounted return of every lane's first trajectory: of whole ones, none chosen by its length.

        Of one that broke it is no finite number.
        """
        own = self.first()
        return jnp.sum(own.rewards * own.mask, -1)

    def whole(self) -> "Trajectories":
        """The same, with every trajectory that broke ending before that step."""
        kept = jnp.isfinite(self.rewards)
        return self._replace(rewards=jnp.where(kept, self.rewards, 0), mask=self.mask * kept)

    def broken(self) -> Int[Array, " trajectories"]:
        """The step at which each one broke, or -1."""
        at = ~jnp.isfinite(self.rewards)
        return jnp.where(at.any(-1), at.argmax(-1), -1)


def ages(ends: Float[Array, "trajectories steps"]) -> Int[Array, "trajectories steps"]:
    """Steps since the beginning of each step's own trajectory."""
    steps = jnp.arange(ends.shape[1])
    begun = jnp.concatenate([jnp.zeros_like(ends[:, :1]), ends[:, :-1]], 1) * steps
    return steps - jax.lax.cummax(begun.astype(steps.dtype), 1)


def rollout(
    environment: Environment, policy: Params, key: PRNGKeyArray, task: object, trajectories: int
) -> Trajectories:
    """`trajectories` of them in one task under `policy` (any pytree that is called on observations).

    Rewards after the end are zero. The end by `horizon` is not told from any other: no value is added there, as in
    the published code.
    """
    for_reset, for_steps = jax.random.split(key)
    begin = jax.vmap(environment.reset, (0, None))
    state, seen = begin(jax.random.split(for_reset, trajectories), task)

    def step(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, Trajectories]:
        state, seen, alive = carry
        for_action, for_world = jax.random.split(key)
        answer = policy(seen)
        action = answer.sample(for_action)
        worlds = jax.random.split(for_world, trajectories)
        after = jax.vmap(environment.step)(worlds, state, action)
        reward = jnp.where(alive > 0, after.reward, 0)
        kept = Trajectories(seen, answer, action, reward, alive)
        return (after.state, after.observation, alive * (1 - after.done) * jnp.isfinite(reward)), kept

    alive = jnp.ones(trajectories, seen.dtype)
    _, kept = jax.lax.scan(step, (state, seen, alive), jax.random.split(for_steps, environment.horizon))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), kept)
