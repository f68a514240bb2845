"""MuJoCo's C engine as a pure function: all trajectories of all tasks in one call, on threads.

An environment step inside a compiled program calls the host once, with the whole batch that `vmap` has formed;
`mujoco.batch` then steps every simulation on its thread pool. State is passed as arrays, so a call depends only on its
arguments. Several devices may call at once; each uses its share of the cores.
"""

import threading
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from innerloop.io.versions import required
from innerloop.parallel.cpu_devices import cores
from innerloop.rl.environments.mujoco.models import SUBSTEPS, Body, load_model

POOL: defaultdict[tuple[Body, int], list[Any]] = defaultdict(list)
"""Idle batches by body and number of simulations, kept because creating one takes longer than a step."""
LOCK = threading.Lock()


def advance(
    body: Body, state: Float[Array, " state"], action: Float[Array, " action"]
) -> Float[Array, " numbers"]:
    """The state after one environment step, followed by its sensor values."""
    return _host_call(body, state, action, SUBSTEPS)


def sense(body: Body, state: Float[Array, " state"]) -> Float[Array, " numbers"]:
    """`state` followed by its sensor values, without a step."""
    return _host_call(body, state, jnp.zeros(body.actuators, state.dtype), 0)


def _host_call(body: Body, state: Array, action: Array, substeps: int) -> Array:
    """One host call for a whole batch of states, whatever axes `vmap` added."""
    out = jax.ShapeDtypeStruct((body.state_size + body.sensed_size,), state.dtype)

    def call(states: object, actions: object) -> np.ndarray:
        states, actions = np.asarray(states), np.asarray(actions)
        after = step_batch(
            body, states.reshape(-1, states.shape[-1]), actions.reshape(-1, actions.shape[-1]), substeps
        )
        with np.errstate(over="ignore"):  # exploded values become infinite, and are detected later
            return after.reshape(*states.shape[:-1], -1).astype(states.dtype)

    return jax.pure_callback(call, out, state, action, vmap_method="broadcast_all")


def step_batch(body: Body, states: np.ndarray, actions: np.ndarray, substeps: int) -> np.ndarray:
    """Step simulations on the host.

    Args:
        body: the model.
        states: `[simulations, state]`.
        actions: `[simulations, actuators]`.
        substeps: number of physics steps; 0 only computes the sensor values.

    Returns:
        States followed by sensor values, `[simulations, state + sensed]`.
    """
    batch = _borrow(body, len(states))
    try:
        _write_states(batch, body, states, actions)
        stages = required("mujoco", "rl", body.name).mjtStage
        stage = stages.mjSTAGE_ACC if body.contacts else stages.mjSTAGE_VEL
        if substeps:
            batch.step(nstep=substeps, stage=stage.value)
        else:
            batch.forward(stage=stage.value)
        return _read_states(batch, body)
    finally:
        with LOCK:
            POOL[body, len(states)].append(batch)


def _borrow(body: Body, simulations: int) -> Any:
    """A batch for the exclusive use of this caller: an idle one, or a new one."""
    with LOCK:
        free = POOL[body, simulations]
        if free:
            return free.pop()
    threads = max(1, cores() // jax.local_device_count())  # all devices may call at once
    made = required("mujoco.batch", "rl", body.name).Batch(load_model(body), simulations, threads)
    for name in ("sensordata", "cfrc_ext"):
        made.bind(name)
    return made


def _write_states(batch: Any, body: Body, states: np.ndarray, actions: np.ndarray) -> None:
    parts = np.split(states, [body.positions, body.positions + body.velocities], 1)
    for name, part in zip(("qpos", "qvel", "qacc_warmstart"), parts, strict=True):
        batch.bind(name)[:] = part
    batch.bind("ctrl")[:] = actions


def _read_states(batch: Any, body: Body) -> np.ndarray:
    parts = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart")]
    parts.append(batch.bind("sensordata")[:, :6])
    if body.contacts:
        parts.append(batch.bind("cfrc_ext")[:, 1:].reshape(batch.nsim, -1))
    return np.concatenate(parts, 1)
