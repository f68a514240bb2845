"""MuJoCo's physics as a JAX program, for accelerators: the same model and sensors as `c_engine`."""

import contextlib
import io
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.io.versions import required
from innerloop.rl.environments.mujoco.models import SUBSTEPS, Body, load_model


def advance(
    body: Body, state: Float[Array, " state"], action: Float[Array, " action"]
) -> Float[Array, " numbers"]:
    """The state after one environment step, followed by its sensor values."""
    mjx, model, data = _data_at(body, state)
    data = jax.lax.fori_loop(0, SUBSTEPS, lambda _, d: mjx.step(model, d), data.replace(ctrl=action))
    after = _solver_state(body, data)
    if body.contacts:
        data = mjx.forward(model, data)
    else:
        data = mjx.com_vel(model, mjx.com_pos(model, mjx.kinematics(model, data)))
        data = mjx.sensor_vel(model, mjx.sensor_pos(model, data))
    return _with_sensors(body, after, data)


def sense(body: Body, state: Float[Array, " state"]) -> Float[Array, " numbers"]:
    """`state` followed by its sensor values, without a step."""
    mjx, model, data = _data_at(body, state)
    data = mjx.forward(model, data)
    return _with_sensors(body, _solver_state(body, data), data)


@cache
def _compiled_model(body: Body) -> tuple[Any, Any, Any]:
    """MJX, the model and an empty state, created once outside any traced program."""
    with contextlib.redirect_stdout(io.StringIO()):  # importing it prints that an optional backend is missing
        mjx = required("mujoco.mjx", "rl", body.name)
    with jax.ensure_compile_time_eval():
        model = mjx.put_model(load_model(body))
        return mjx, model, mjx.make_data(model)


def _data_at(body: Body, state: Array) -> tuple[Any, Any, Any]:
    """MJX, the model, and its data set to this state."""
    mjx, model, data = _compiled_model(body)
    p, v = body.positions, body.velocities
    qpos, qvel, warm_start = jnp.split(state, (p, p + v))
    return mjx, model, data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warm_start)


def _solver_state(body: Body, data: Any) -> Array:
    return jnp.concatenate([data.qpos, data.qvel, data.qacc_warmstart])


def _with_sensors(body: Body, state: Array, data: Any) -> Array:
    parts = [state, data.sensordata[:6]]
    if body.contacts:
        parts.append(data.cfrc_ext[1:].ravel())
    return jnp.concatenate(parts)
