"""Copies of an environment that keeps its state to itself, and the tickets that stand for it.

A ticket says which set of copies, which of them, and how many steps it has made; a set asked out of turn says so.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from innerloop.errors import InnerloopError
from innerloop.rl.environments.mujoco.models import needed

WHO = "GymnasiumFamily"
OPEN = 16
"""Sets of copies that may be in use at once; the oldest is taken back for a new one."""


class Ticket(NamedTuple):
    """Which set of copies, which of them, and how many steps it has made."""

    group: Int[Array, ""]
    copy: Int[Array, ""]
    time: Int[Array, ""]


class Group:
    """One set of copies in use."""

    def __init__(self, family: Any, size: int):
        self.family, self.time = family, 0
        self.copies = [family.make() for _ in range(size)]
        self.flatten = needed("gymnasium", WHO).spaces.flatten
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

    def __init__(self, family: Any):
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
            raise InnerloopError(WHO, "its environments were stepped out of turn", do=do)
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
