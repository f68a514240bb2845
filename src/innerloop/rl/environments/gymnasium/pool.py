"""Copies of environments that hide their state, and the handles that stand for that state."""

import threading
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int

from innerloop.errors import InnerloopError
from innerloop.io.text import counted
from innerloop.io.versions import required

WHO = "GymnasiumFamily"


class EpisodeHandle(NamedTuple):
    """The set of copies, the copy in it, and the number of steps so far."""

    group: Int[Array, ""]
    copy: Int[Array, ""]
    time: Int[Array, ""]


RESET = ("reset", ("observation", "info"))
STEP = ("step", ("observation", "reward", "terminated", "truncated", "info"))


def unpack(found: object, of: tuple[str, tuple[str, ...]]) -> tuple[Any, ...]:
    """The values that a method returned. Raises InnerloopError unless they form the tuple of Gymnasium's interface."""
    method, names = of
    if not isinstance(found, tuple) or len(found) != len(names):
        got = counted(len(found), "value") if isinstance(found, tuple) else type(found).__name__
        hint = "wrap environments with the old interface, for example by gymnasium's compatibility wrappers"
        raise InnerloopError(WHO, f"`{method}` must return ({', '.join(names)})", got=got, hint=hint)
    return found


def number(reward: Any) -> float:
    """The reward as a float. Raises InnerloopError for anything but a number."""
    if np.shape(reward) != () or np.asarray(reward).dtype.kind not in "fiub":
        raise InnerloopError(WHO, "a reward must be a number", got=repr(reward))
    return float(reward)


class Group:
    """One set of copies in use."""

    def __init__(self, family: Any, size: int):
        self.family, self.time = family, 0
        self.copies = [family.make() for _ in range(size)]
        self.flatten = required("gymnasium", "rl", WHO).spaces.flatten
        self.observations = np.zeros((size, family.observation_size))
        self.over = np.zeros(size, bool)

    def reset(self, seeds: np.ndarray, tasks: np.ndarray) -> None:
        """Reset every copy with its seed and task."""
        self.time, self.over[:] = 0, False
        for i, (copy, seed, task) in enumerate(zip(self.copies, seeds.tolist(), tasks, strict=True)):
            self.family.set_task(copy, task)
            self._keep(i, unpack(copy.reset(seed=seed), RESET)[0])

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Step every copy that has not ended, and return the rewards."""
        self.time += 1
        rewards = np.zeros(len(self.copies))
        for i in np.flatnonzero(~self.over).tolist():
            after = unpack(self.copies[i].step(self._to_bounds(actions[i])), STEP)
            observation, reward, ended, cut, _ = after
            rewards[i] = number(reward)
            self.over[i] = ended or cut
            self._keep(i, observation)
        return rewards

    def _to_bounds(self, action: Any) -> Any:
        """An action in [-1, 1] scaled to the bounds of the space; an index for a discrete space."""
        space = self.family.spaces[1]
        if self.family.discrete:
            return int(action) + int(getattr(space, "start", 0))
        part = (np.clip(action, -1, 1) + 1) / 2
        return (space.low + part * (space.high - space.low)).astype(space.dtype)

    def _keep(self, i: int, observation: Any) -> None:
        flat = self.flatten(self.family.spaces[0], observation)
        if np.shape(flat) != self.observations[i].shape:
            size = counted(len(self.observations[i]), "number")
            wrong = f"an observation must have {size}, as its observation space says"
            raise InnerloopError(WHO, wrong, got=f"shape {np.shape(flat)}")
        self.observations[i] = flat


class Groups:
    """The sets of copies of one family."""

    def __init__(self, family: Any):
        self.family, self.lock, self.last = family, threading.Lock(), 0
        self.used: dict[int, Group] = {}
        self.free: list[Group] = []

    def reset(self, seeds: object, tasks: object) -> tuple[EpisodeHandle, np.ndarray]:
        """Handles and observations of freshly reset copies, one per seed."""
        seeds, tasks = np.asarray(seeds), np.asarray(tasks)
        shape = seeds.shape
        number, group = self._acquire(seeds.size)
        group.reset(seeds.ravel(), tasks.reshape(seeds.size, *tasks.shape[len(shape) :]))
        copies = np.arange(seeds.size, dtype=np.int32).reshape(shape)
        handle = EpisodeHandle._make([np.full(shape, number, np.int32), copies, np.zeros(shape, np.int32)])
        return handle, self._observations_of(group, shape)

    def step(
        self, handle: EpisodeHandle, actions: Any
    ) -> tuple[EpisodeHandle, np.ndarray, np.ndarray, np.ndarray]:
        """One step of the copies of these handles.

        Raises:
            InnerloopError: if the copies are not stepped together and in order.
        """
        numbers, copies, time = (np.asarray(x) for x in handle)
        shape, actions = numbers.shape, np.asarray(actions)
        group = self.used.get(int(numbers.flat[0]))
        in_turn = group is not None and copies.size == len(group.copies) and (time == group.time).all()
        if group is None or not in_turn:
            hint = "step every copy of a reset together and in order, as innerloop.rl.rollout does"
            raise InnerloopError(WHO, "its environments were stepped out of order", hint=hint)
        rewards = group.step(actions.reshape(copies.size, *actions.shape[len(shape) :]))
        observation = self._observations_of(group, shape)
        rewards = rewards.reshape(shape).astype(observation.dtype)
        over = group.over.reshape(shape).copy()
        if group.time >= self.family.horizon:
            self._release(int(numbers.flat[0]))  # another device may reset the copies from here on
        return EpisodeHandle._make([numbers, copies, time + np.int32(1)]), observation, rewards, over

    def _observations_of(self, group: Group, shape: tuple[int, ...]) -> np.ndarray:
        return group.observations.reshape(*shape, -1).astype(self.family.observation_struct.dtype)

    def _acquire(self, size: int) -> tuple[int, Group]:
        """Take a set of this size into use, and return its number and the set."""
        with self.lock:
            if len(self.used) >= max(16, 2 * jax.local_device_count()):  # a device uses one set
                self.free.append(self.used.pop(min(self.used)))
            fits = [group for group in self.free if len(group.copies) == size]
            group = fits[0] if fits else Group(self.family, size)
            if fits:
                self.free.remove(group)
            self.last += 1
            self.used[self.last] = group
            return self.last, group

    def _release(self, number: int) -> None:
        with self.lock:
            self.free.append(self.used.pop(number))
