"""Gymnasium environments as a family of tasks: one copy per trajectory, stepped together.

A Gymnasium environment hides its state, so the state that the pure interface passes on is a handle: the set of copies,
the copy in it, and the number of steps so far. Each step depends on the handle of the step before, so no compiled
program can reorder them, and a step out of order raises an error. All randomness of an environment comes from the seed
that `reset` derives from its key. The copies of one device are stepped one after another in this process.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.config.bounds import COUNTS, check_bounds
from innerloop.engine.losses.loss import check_function
from innerloop.errors import InnerloopError
from innerloop.io.versions import required
from innerloop.rl.environments.base import Transition, VectorTasks
from innerloop.rl.environments.gymnasium.pool import EpisodeHandle, Group, Groups


@dataclass(frozen=True, eq=False)
class GymnasiumFamily(VectorTasks):
    """Environments made by `make()` that differ in their task.

    Actions in [-1, 1] are scaled to the bounds of the action space.

    Attributes:
        make: returns a new environment.
        tasks: `tasks(key)`, a JAX function that draws a task, which is an array.
        set_task: `set_task(environment, task)` changes an environment to a task, a NumPy array. It is called before
            every reset, for which it may store the task in the environment.
        horizon: steps after which a trajectory is cut.

    Raises:
        InnerloopError: if `set_task` is no function, the horizon is below 1, or the action space is neither Discrete
            nor a bounded Box with one axis.
    """

    hides_state: ClassVar[bool] = True
    """The state that is passed on is a handle, so that single copies cannot be reset (`MetaSampler.restarts`)."""

    make: Callable[[], Any]
    tasks: Callable[[PRNGKeyArray], Array]
    set_task: Callable[[Any, np.ndarray], None]
    horizon: Annotated[int, COUNTS] = 200
    groups: Groups = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_bounds(self, "GymnasiumFamily.{}".format)
        check_function(self.set_task, "GymnasiumFamily", "set_task", "set_task(environment, task)")
        object.__setattr__(self, "groups", Groups(self))
        _ = self.action_size  # fail early on an unsupported action space, before anything is compiled

    @cached_property
    def spaces(self) -> tuple[Any, Any]:
        """Observation space and action space."""
        one = self.make()
        found = one.observation_space, one.action_space
        one.close()
        return found

    @property
    def observation_size(self) -> int:
        """Length of an observation once Gymnasium has flattened it."""
        return int(required("gymnasium", "rl", "GymnasiumFamily").spaces.flatdim(self.spaces[0]))

    @property
    def discrete(self) -> bool:
        """Whether the action space is discrete."""
        return hasattr(self.spaces[1], "n")

    @property
    def action_size(self) -> int:
        """Length of an action, or the number of actions."""
        space = self.spaces[1]
        if self.discrete:
            return int(space.n)
        bounded = hasattr(space, "low") and np.isfinite(space.low).all() and np.isfinite(space.high).all()
        if not bounded or len(space.shape) != 1:
            hint = "use a Discrete space or a bounded Box with one axis"
            raise InnerloopError(
                "GymnasiumFamily", "the action space is unsupported", got=repr(space), hint=hint
            )
        return space.shape[0]

    def probe(self) -> None:
        """Reset and step one copy.

        Raises:
            InnerloopError: if it does not return what Gymnasium's environments return.
        """
        task = np.asarray(self.sample_task(jax.random.key(0)))
        group = Group(self, 1)
        with closing(group.copies[0]):
            group.reset(np.zeros(1, int), task[None])
            group.step(np.zeros((1,) if self.discrete else (1, self.action_size)))

    def sample_task(self, key: PRNGKeyArray) -> Array:
        """Draw a task."""
        return self.tasks(key)

    def reset(self, key: PRNGKeyArray, task: Array) -> tuple[EpisodeHandle, Float[Array, " observation"]]:
        """Reset a copy to its task, seeded from the key."""
        seed = jax.random.randint(key, (), 0, 2**31 - 1, jnp.int32)
        number, observation = jax.ShapeDtypeStruct((), jnp.int32), self.observation_struct
        out = (EpisodeHandle._make([number] * 3), observation)
        return jax.pure_callback(self.groups.reset, out, seed, task, vmap_method="broadcast_all")

    def step(self, key: PRNGKeyArray, state: EpisodeHandle, action: Array) -> Transition:
        """One step of the copy, ignoring the key; a copy that has ended is not stepped."""
        number, observation = jax.ShapeDtypeStruct((), jnp.int32), self.observation_struct
        paid, over = jax.ShapeDtypeStruct((), observation.dtype), jax.ShapeDtypeStruct((), jnp.bool_)
        out = (EpisodeHandle._make([number] * 3), observation, paid, over)
        found = jax.pure_callback(self.groups.step, out, state, action, vmap_method="broadcast_all")
        return Transition(*found)

    @property
    def observation_struct(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of an observation."""
        return jax.ShapeDtypeStruct((self.observation_size,), jnp.zeros(()).dtype)
