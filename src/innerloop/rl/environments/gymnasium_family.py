"""Gymnasium environments of one's own as a family of tasks: as many copies as there are trajectories, stepped together.

A Gymnasium environment keeps its state to itself. So the state that the pure protocol hands on is a ticket: which set
of copies, which copy of it, how many steps so far. The tickets chain one step to the next, so that a compiled program
cannot change their order, and a set that is asked out of turn says so. Everything random in an environment comes from
the seed that `reset` makes of its key. Copies of one device are stepped one after the other in this process.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from innerloop.errors import InnerloopError
from innerloop.rl.environments.bodies import needed
from innerloop.rl.environments.environment import Transition

OPEN = 16
"""Sets of copies that may be in use at once; the oldest is taken back for a new one."""


class Ticket(NamedTuple):
    """Which set of copies, which of them, and how many steps it has made."""

    group: Int[Array, ""]
    copy: Int[Array, ""]
    time: Int[Array, ""]


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
    groups: "Groups" = field(init=False, repr=False)

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


class Group:
    """One set of copies in use."""

    def __init__(self, family: GymnasiumFamily, size: int):
        self.family, self.time = family, 0
        self.copies = [family.make() for _ in range(size)]
        self.flatten = needed("gymnasium", "GymnasiumFamily").spaces.flatten
        self.seen = np.zeros((size, family.observation_size))
        self.over = np.zeros(size, bool)

    def reset(self, seeds: np.ndarray, tasks: np.ndarray) -> None:
        """Every copy with its own seed and task."""
        self.time, self.over[:] = 0, False
        for i, (copy, seed, task) in enumerate(zip(self.copies, seeds.tolist(), tasks, strict=True)):
            if self.family.set_task is not None:
                self.family.set_task(copy, task)
            options = {"task": task} if self.family.set_task is None else None
            self.note(i, copy.reset(seed=seed, options=options)[0])

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Every copy that has not ended; their rewards."""
        self.time += 1
        rewards = np.zeros(len(self.copies))
        for i in np.flatnonzero(~self.over).tolist():
            seen, rewards[i], ended, cut, _ = self.copies[i].step(self.stretched(actions[i]))
            self.over[i] = ended or cut
            self.note(i, seen)
        return rewards

    def stretched(self, action: Any) -> Any:
        """An action of [-1, 1] within the bounds of the space; the number of a discrete one."""
        space = self.family.spaces[1]
        if self.family.discrete:
            return int(action) + int(getattr(space, "start", 0))
        part = (np.clip(action, -1, 1) + 1) / 2
        return (space.low + part * (space.high - space.low)).astype(space.dtype)

    def note(self, i: int, seen: Any) -> None:
        """Keep what a copy shows."""
        self.seen[i] = self.flatten(self.family.spaces[0], seen)


class Groups:
    """The sets of copies of one family, by number."""

    def __init__(self, family: GymnasiumFamily):
        self.family, self.lock, self.last = family, threading.Lock(), 0
        self.used: dict[int, Group] = {}
        self.free: list[Group] = []

    def reset(self, seeds: Any, tasks: Any) -> tuple[Ticket, np.ndarray]:
        """Tickets and observations of as many copies as there are seeds."""
        seeds, tasks = np.asarray(seeds), np.asarray(tasks)
        shape = seeds.shape
        number, group = self.take(seeds.size)
        group.reset(seeds.ravel(), tasks.reshape(seeds.size, *tasks.shape[len(shape) :]))
        copies = np.arange(seeds.size, dtype=np.int32).reshape(shape)
        ticket = Ticket._make([np.full(shape, number, np.int32), copies, np.zeros(shape, np.int32)])
        return ticket, self.shown(group, shape)

    def step(self, ticket: Ticket, actions: Any) -> tuple[Ticket, np.ndarray, np.ndarray, np.ndarray]:
        """The copies of these tickets, one step on."""
        numbers, copies, time = (np.asarray(x) for x in ticket)
        shape, actions = numbers.shape, np.asarray(actions)
        group = self.used.get(int(numbers.flat[0]))
        in_turn = group is not None and copies.size == len(group.copies) and (time == group.time).all()
        if group is None or not in_turn:
            do = "step every copy of a reset together and in order, as innerloop.rl.rollout does"
            raise InnerloopError("GymnasiumFamily", "its environments were stepped out of turn", do=do)
        rewards = group.step(actions.reshape(copies.size, *actions.shape[len(shape) :]))
        if group.time >= self.family.horizon:
            self.give_back(int(numbers.flat[0]))
        seen = self.shown(group, shape)
        after = Ticket._make([numbers, copies, time + np.int32(1)])
        return after, seen, rewards.reshape(shape).astype(seen.dtype), group.over.reshape(shape).copy()

    def shown(self, group: Group, shape: tuple[int, ...]) -> np.ndarray:
        """Observations in the shape of the batch."""
        return group.seen.reshape(*shape, -1).astype(self.family.seen.dtype)

    def take(self, size: int) -> tuple[int, Group]:
        """A set of this size for one rollout, and its number."""
        with self.lock:
            if len(self.used) >= OPEN:
                self.free.append(self.used.pop(min(self.used)))
            fits = [group for group in self.free if len(group.copies) == size]
            group = fits[0] if fits else Group(self.family, size)
            if fits:
                self.free.remove(group)
            self.last += 1
            self.used[self.last] = group
            return self.last, group

    def give_back(self, number: int) -> None:
        """A set whose rollout is at its horizon."""
        with self.lock:
            self.free.append(self.used.pop(number))
