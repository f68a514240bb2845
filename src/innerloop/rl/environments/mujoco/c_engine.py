"""MuJoCo's C engine as a pure function: all trajectories of all tasks in one call, on threads.

A step of the environment inside a compiled program calls the host once, with the whole batch that `vmap` made of it;
`mujoco.batch` then steps every simulation on its thread pool. The state comes and goes as arrays, so that a call
depends on its arguments alone. Several devices call at once, each with its own share of the cores.
"""

import os
import threading
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.rl.environments.mujoco.models import SUBSTEPS, Body, load_model, needed

POOL: defaultdict[tuple[Body, int], list[Any]] = defaultdict(list)
"""Batches that nobody is using, by body and number of simulations: making one takes longer than a step."""
LOCK = threading.Lock()


def advance(
    body: Body, state: Float[Array, " state"], action: Float[Array, " action"]
) -> Float[Array, " numbers"]:
    """The state after one step of the environment, followed by what is measured there."""
    return _on_host(body, state, action, SUBSTEPS)


def sense(body: Body, state: Float[Array, " state"]) -> Float[Array, " numbers"]:
    """The same without a step: what is measured in `state`."""
    return _on_host(body, state, jnp.zeros(body.actuators, state.dtype), 0)


def _on_host(body: Body, state: Array, action: Array, substeps: int) -> Array:
    """One call for a whole batch of states, whatever axes `vmap` gave it."""
    out = jax.ShapeDtypeStruct((body.state_size + body.sensed_size,), state.dtype)

    def call(states: Any, actions: Any) -> np.ndarray:
        states, actions = np.asarray(states), np.asarray(actions)
        after = stepped(
            body, states.reshape(-1, states.shape[-1]), actions.reshape(-1, actions.shape[-1]), substeps
        )
        with np.errstate(over="ignore"):  # exploded numbers become infinite, and are found as such
            return after.reshape(*states.shape[:-1], -1).astype(states.dtype)

    return jax.pure_callback(call, out, state, action, vmap_method="broadcast_all")


def stepped(body: Body, states: np.ndarray, actions: np.ndarray, substeps: int) -> np.ndarray:
    """`[simulations, state + sensed]` after `substeps` steps of physics (0: none, only measured)."""
    batch = _borrow(body, len(states))
    try:
        _write(batch, body, states, actions)
        stages = needed("mujoco", body.name).mjtStage
        stage = stages.mjSTAGE_ACC if body.contacts else stages.mjSTAGE_VEL
        if substeps:
            batch.step(nstep=substeps, stage=stage.value)
        else:
            batch.forward(stage=stage.value)
        return _read(batch, body)
    finally:
        with LOCK:
            POOL[body, len(states)].append(batch)


def _borrow(body: Body, simulations: int) -> Any:
    """A batch for this caller alone."""
    with LOCK:
        free = POOL[body, simulations]
        if free:
            return free.pop()
    made = needed("mujoco.batch", body.name).Batch(load_model(body), simulations, _threads())
    for name in ("sensordata", "cfrc_ext"):
        made.bind(name)
    return made


def _threads() -> int:
    """Threads of one caller: the cores, divided among the devices that may call at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jax.local_device_count())


def _write(batch: Any, body: Body, states: np.ndarray, actions: np.ndarray) -> None:
    """Put states and actions into the simulations."""
    parts = np.split(states, [body.positions, body.positions + body.velocities], 1)
    for name, part in zip(("qpos", "qvel", "qacc_warmstart"), parts, strict=True):
        batch.bind(name)[:] = part
    batch.bind("ctrl")[:] = actions


def _read(batch: Any, body: Body) -> np.ndarray:
    """States and measurements of all simulations."""
    parts = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart")]
    parts.append(batch.bind("sensordata")[:, :6])
    if body.contacts:
        parts.append(batch.bind("cfrc_ext")[:, 1:].reshape(batch.nsim, -1))
    return np.concatenate(parts, 1)
