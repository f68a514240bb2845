"""MuJoCo's physics as a JAX program, for accelerators: the same model, the same measurements as `c_engine`."""

import contextlib
import io
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from innerloop.rl.environments.mujoco.models import SUBSTEPS, Body, load_model, needed


def advance(
    body: Body, state: Float[Array, " state"], action: Float[Array, " action"]
) -> Float[Array, " numbers"]:
    """The state after one step of the environment, followed by what is measured there."""
    mjx, model, data = _placed(body, state)
    data = jax.lax.fori_loop(0, SUBSTEPS, lambda _, d: mjx.step(model, d), data.replace(ctrl=action))
    after = _numbers(body, data)
    if body.contacts:
        data = mjx.forward(model, data)
    else:
        data = mjx.com_vel(model, mjx.com_pos(model, mjx.kinematics(model, data)))
        data = mjx.sensor_vel(model, mjx.sensor_pos(model, data))
    return _measured(body, after, data)


def sense(body: Body, state: Float[Array, " state"]) -> Float[Array, " numbers"]:
    """The same without a step: what is measured in `state`."""
    mjx, model, data = _placed(body, state)
    data = mjx.forward(model, data)
    return _measured(body, _numbers(body, data), data)


@cache
def _model_of(body: Body) -> tuple[Any, Any, Any]:
    """MJX, the model and an empty state, made once outside any traced program."""
    with contextlib.redirect_stdout(io.StringIO()):  # it tells that an optional backend is missing
        mjx = needed("mujoco.mjx", body.name)
    with jax.ensure_compile_time_eval():
        model = mjx.put_model(load_model(body))
        return mjx, model, mjx.make_data(model)


def _placed(body: Body, state: Array) -> tuple[Any, Any, Any]:
    """MJX, the model, and its data in this state."""
    mjx, model, data = _model_of(body)
    p, v = body.positions, body.velocities
    qpos, qvel, warm_start = jnp.split(state, (p, p + v))
    return mjx, model, data.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warm_start)


def _numbers(body: Body, data: Any) -> Array:
    """What the next step needs."""
    return jnp.concatenate([data.qpos, data.qvel, data.qacc_warmstart])


def _measured(body: Body, state: Array, data: Any) -> Array:
    """A state followed by its measurements."""
    parts = [state, data.sensordata[:6]]
    if body.contacts:
        parts.append(data.cfrc_ext[1:].ravel())
    return jnp.concatenate(parts)
