"""Gymnasium environments of one's own as a family of tasks: as many copies as there are trajectories, stepped together.

A Gymnasium environment keeps its state to itself. So the state that the pure protocol hands on is a ticket: which set
of copies, which copy of it, how many steps so far. The tickets chain one step to the next, so that a compiled program
cannot change their order, and a set that is asked out of turn says so. Everything random in an environment comes from
the seed that `reset` makes of its key. Copies of one device are stepped one after the other in this process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Transition
from innerloop.rl.environments.gymnasium.pool import Groups, Ticket
from innerloop.rl.environments.mujoco.models import needed


@dataclass(frozen=True, eq=False)
class GymnasiumFamily:
    """Environments made by `make()`, differing by a task.

    make: gives a new environment. tasks: `tasks(key)` draws a task, an array, as a JAX function. set_task: called as
    `set_task(environment, task)` before every reset; without it the task is handed over as
    `environment.reset(options={"task": task})`. Actions in [-1, 1] are stretched to the bounds of the action space.
    """

    make: Callable[[], Any]
    tasks: Callable[[PRNGKeyArray], Array]
    horizon: int = 200
    set_task: Callable[[Any, np.ndarray], None] | None = None
    groups: Groups = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise InnerloopError("GymnasiumFamily", "`horizon` must be 1 or more", got=self.horizon)
        object.__setattr__(self, "groups", Groups(self))
        _ = self.action_size  # now: an action space that does not fit is told before anything is compiled

    @cached_property
    def spaces(self) -> tuple[Any, Any]:
        """Spaces of observations and actions."""
        one = self.make()
        found = one.observation_space, one.action_space
        one.close()
        return found

    @property
    def observation_size(self) -> int:
        """Numbers of an observation, whatever its space, as Gymnasium flattens it."""
        return int(needed("gymnasium", "GymnasiumFamily").spaces.flatdim(self.spaces[0]))

    @property
    def discrete(self) -> bool:
        """Whether an action is a number of so many."""
        return hasattr(self.spaces[1], "n")

    @property
    def action_size(self) -> int:
        """Length of an action, or the number of actions."""
        space = self.spaces[1]
        if self.discrete:
            return int(space.n)
        bounded = hasattr(space, "low") and np.isfinite(space.low).all() and np.isfinite(space.high).all()
        if not bounded or len(space.shape) != 1:
            do = "use a Discrete space or a bounded Box of one axis"
            raise InnerloopError("GymnasiumFamily", "the action space does not fit", got=repr(space), do=do)
        return space.shape[0]

    def sample_task(self, key: PRNGKeyArray) -> Array:
        """Draw a task."""
        return self.tasks(key)

    def task_vector(self, task: Array) -> Float[Array, " description"]:
        """The task's numbers in a row."""
        return jnp.ravel(task)

    def reset(self, key: PRNGKeyArray, task: Array) -> tuple[Ticket, Float[Array, " observation"]]:
        """A copy set to its task and seeded by the key."""
        seed = jax.random.randint(key, (), 0, 2**31 - 1, jnp.int32)
        number, seen = jax.ShapeDtypeStruct((), jnp.int32), self.seen
        out = (Ticket._make([number] * 3), seen)
        return jax.pure_callback(self.groups.reset, out, seed, task, vmap_method="broadcast_all")

    def step(self, key: PRNGKeyArray, state: Ticket, action: Array) -> Transition:
        """One step of the copy; its own randomness needs no key. Past its end it stays where it was."""
        number, seen = jax.ShapeDtypeStruct((), jnp.int32), self.seen
        paid, over = jax.ShapeDtypeStruct((), seen.dtype), jax.ShapeDtypeStruct((), jnp.bool_)
        out = (Ticket._make([number] * 3), seen, paid, over)
        found = jax.pure_callback(self.groups.step, out, state, action, vmap_method="broadcast_all")
        return Transition(*found)

    @property
    def seen(self) -> jax.ShapeDtypeStruct:
        """Shape and type of an observation."""
        return jax.ShapeDtypeStruct((self.observation_size,), jnp.zeros(()).dtype)
