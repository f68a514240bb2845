"""Half-cheetah and ant: the same bodies as Gymnasium's, rewards and observations by hand, keys decide everything."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.errors import InnerloopError
from innerloop.io.versions import required
from innerloop.rl.environments import Locomotion, Oracle
from innerloop.rl.environments.locomotion import LocomotionState, _rotation_matrix
from innerloop.rl.environments.mujoco.c_engine import step_batch
from innerloop.rl.environments.mujoco.models import ANT, HALF_CHEETAH, Body, load_model
from innerloop.rl.environments.mujoco.physics import Physics, _unpack

mujoco = required("mujoco", "rl", "test")  # its parts are found at run time only
CHEETAH, WALKER = Locomotion("half-cheetah"), Locomotion("ant", "velocity")
BODIES = pytest.mark.parametrize(
    ("body", "name"), [(HALF_CHEETAH, "HalfCheetah-v5"), (ANT, "Ant-v5")], ids=["half-cheetah", "ant"]
)


def moving(body: Body, count: int = 3, seed: int = 0) -> np.ndarray:
    """Some states in motion, close to the ground, after a dozen steps of random actions."""
    random = np.random.default_rng(seed)
    model = load_model(body)
    states = np.zeros((count, body.state_size))
    states[:, : body.positions] = model.qpos0 + random.uniform(-0.1, 0.1, (count, body.positions))
    for _ in range(12):
        actions = random.uniform(-1, 1, (count, body.actuators))
        states = step_batch(body, states, actions, 5)[:, : body.state_size]
    return states


def physics(body: Body, **changes: Any) -> Physics:
    """A state of round numbers."""
    size = {"qpos": body.positions, "qvel": body.velocities, "warm_start": body.velocities}
    size |= {"com": 3, "com_velocity": 3, "forces": 6 * body.parts * body.contacts}
    values = {name: 0.1 * np.arange(n, dtype=np.float32) for name, n in size.items()} | changes
    return Physics(**{name: jnp.asarray(x, jnp.float32) for name, x in values.items()})


@BODIES
def test_body_sizes_match_mujoco_model(body: Body, name: str):
    model = load_model(body)
    assert (model.nq, model.nv, model.nu, model.nbody - 1) == (
        body.positions,
        body.velocities,
        body.actuators,
        body.parts,
    )


@BODIES
def test_step_matches_gymnasium(body: Body, name: str):
    """From the same state with the same action: the same place and speed to the last bit but for the solver's start."""
    random = np.random.default_rng(1)
    before, action = moving(body, 1), random.uniform(-1, 1, (1, body.actuators))
    env: Any = gymnasium.make(name).unwrapped
    env.reset(seed=0)
    p, v = body.positions, body.velocities
    env.set_state(before[0, :p], before[0, p : p + v])
    env.data.qacc_warmstart[:] = before[0, p + v :]
    env.step(action[0])
    after = step_batch(body, before, action, 5)[0]
    np.testing.assert_allclose(after[:p], env.data.qpos, rtol=0, atol=1e-9)
    np.testing.assert_allclose(after[p : p + v], env.data.qvel, rtol=0, atol=1e-9)
    environment = Locomotion(body.name)  # pyright: ignore[reportArgumentType]
    assert environment.seconds == pytest.approx(env.dt)
    env.close()


def test_contact_forces_match_new_state():
    model, actions = load_model(ANT), np.full((8, 8), 0.2)
    after = step_batch(ANT, moving(ANT, 8), actions, 5)
    data = mujoco.MjData(model)
    for numbers in after:
        data.qpos, data.qvel, data.qacc_warmstart = np.split(numbers[: ANT.state_size], [15, 29])
        data.ctrl = actions[0]
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        np.testing.assert_allclose(numbers[-78:].reshape(13, 6), data.cfrc_ext[1:], rtol=1e-5, atol=1e-5)
    assert np.abs(after[:, -78:]).max() > 0.1


@BODIES
def test_centre_of_mass_and_velocity_match_model(body: Body, name: str):
    """A mean of the parts' places weighted by mass, and the Jacobian of that mean times qvel."""
    model, state = load_model(body), moving(body, 1)
    after = step_batch(body, state, np.zeros((1, body.actuators)), 5)[0]
    data = mujoco.MjData(model)
    p, v = body.positions, body.velocities
    data.qpos, data.qvel = after[:p], after[p : p + v]
    mujoco.mj_forward(model, data)
    mean = (model.body_mass[:, None] * data.xipos).sum(0) / model.body_mass.sum()
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacSubtreeCom(model, data, jacobian, model.body("torso").id)
    found = after[body.state_size :][:6]
    np.testing.assert_allclose(found[:3], mean, atol=1e-9)
    np.testing.assert_allclose(found[3:], jacobian @ data.qvel, atol=1e-9)


def test_zero_substeps_leave_state_unchanged():
    states = moving(HALF_CHEETAH)
    np.testing.assert_array_equal(
        step_batch(HALF_CHEETAH, states, np.zeros((3, 6)), 0)[:, :18], states[:, :18]
    )


def test_step_batch_rows_are_independent():
    states, actions = moving(HALF_CHEETAH), np.random.default_rng(2).uniform(-1, 1, (3, 6))
    alone = step_batch(HALF_CHEETAH, states[1:2], actions[1:2], 5)
    np.testing.assert_array_equal(step_batch(HALF_CHEETAH, states, actions, 5)[1:2], alone)


ACTION = np.array([0.5, -1.0, 0.0, 0.0, 0.25, 1.0])


@pytest.mark.parametrize(
    ("environment", "task", "velocity", "expected"),
    [
        (CHEETAH, -1.0, 1.5, -1.5 - 0.05 * 2.3125),
        (Locomotion("half-cheetah", "velocity"), 0.5, 2.0, -1.5 - 0.05 * 2.3125),
        (Locomotion("ant"), 1.0, 0.75, 0.75 + 0.05 - 0.005 * 2.3125 - 0.0005 * 78 * 0.25),
        (WALKER, 3.0, 0.75, 1.05 - 2.25 - 0.005 * 2.3125 - 0.0005 * 78 * 0.25),
    ],
    ids=["cheetah-direction", "cheetah-velocity", "ant-direction", "ant-velocity"],
)
def test_rewards_by_hand(environment: Locomotion, task: float, velocity: float, expected: float):
    """The action's squares add up to 2.3125; every contact force is one half."""
    parts = environment.parts
    now = physics(parts, com_velocity=[velocity, 9.0, 9.0], forces=np.full(78 * parts.contacts, 0.5))
    action = np.pad(ACTION, (0, parts.actuators - 6)).astype(np.float32)
    found = environment._reward(now, jnp.float32(task), jnp.asarray(action))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_half_cheetah_observation():
    now = physics(HALF_CHEETAH)
    seen = np.asarray(CHEETAH._observe(now))
    expected = np.concatenate([np.asarray(now.qpos)[1:], np.asarray(now.qvel), np.asarray(now.com)])
    np.testing.assert_array_equal(seen, expected)
    assert seen.shape == (CHEETAH.observation_size,) == (20,)


def test_ant_observation():
    """The rotation in its observation is the matrix that MuJoCo has for the torso."""
    model, state = load_model(ANT), moving(ANT, 1)[0]
    data = mujoco.MjData(model)
    data.qpos = state[:15]
    mujoco.mj_kinematics(model, data)
    matrix = data.body("torso").xmat.reshape(3, 3)
    np.testing.assert_allclose(_rotation_matrix(jnp.asarray(state[3:7])), matrix, atol=1e-6)
    now = physics(ANT, qpos=state[:15])
    seen = np.asarray(WALKER._observe(now))
    assert seen.shape == (WALKER.observation_size,) == (119,)
    np.testing.assert_allclose(seen[15 + 14 + 78 :][:9], matrix.ravel(), atol=1e-6)
    np.testing.assert_array_equal(seen[-3:], now.com)


@pytest.mark.parametrize(("height", "over"), [(0.19, True), (0.21, False), (0.99, False), (1.01, True)])
def test_ant_falls_outside_height_range(height: float, over: bool):
    qpos = np.zeros(15)
    qpos[2] = height
    assert bool(WALKER._has_fallen(physics(ANT, qpos=qpos))) == over
    assert not CHEETAH._has_fallen(physics(HALF_CHEETAH, qpos=qpos[:9]))


def test_task_distributions():
    draw = lambda e: np.asarray(jax.vmap(e.sample_task)(jax.random.split(jax.random.key(0), 400)))[:, 0]
    directions, speeds = draw(CHEETAH), draw(WALKER)
    assert set(directions.tolist()) == {-1.0, 1.0}
    assert abs(directions.mean()) < 0.2
    assert (speeds.min(), speeds.max()) == pytest.approx((0, 3), abs=0.05)
    assert abs(draw(Locomotion("half-cheetah", "velocity")).max() - 2) < 0.05


def first_step(environment: Any, keys: Any) -> Any:
    """Reset and one step of a random action, of several trajectories."""

    def one(key: Any) -> Any:
        state, seen = environment.reset(key, jnp.ones(1))
        action = jax.random.uniform(key, (environment.action_size,), minval=-1.5, maxval=1.5)
        return seen, environment.step(key, state, action)

    return jax.jit(jax.vmap(one))(keys)


def test_first_step_is_determined_by_key():
    keys = jax.random.split(jax.random.key(3), 4)
    once, again, other = first_step(CHEETAH, keys), first_step(CHEETAH, keys), first_step(CHEETAH, keys[::-1])
    jax.tree.map(np.testing.assert_array_equal, once, again)
    np.testing.assert_array_equal(once[1].observation[::-1], other[1].observation)
    assert len(np.unique(np.asarray(once[0])[:, 0])) == 4
    start = np.asarray(once[0])[:, :8] - load_model(HALF_CHEETAH).qpos0[1:]
    assert np.abs(start).max() <= 0.1


def test_oracle_observes_the_task():
    seen, after = first_step(Oracle(WALKER), jax.random.split(jax.random.key(0), 2))
    assert seen.shape == after.observation.shape == (2, 120)
    np.testing.assert_array_equal(after.observation[:, -1], np.ones(2))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """MuJoCo writes a file about what explodes; not here."""
    mujoco.set_mju_user_warning(lambda text: None)
    yield
    mujoco.set_mju_user_warning(None)


@pytest.mark.parametrize("wrong", ["speed", "action"])
def test_broken_physics_gives_nan_reward_and_keeps_state(wrong: str):
    """A body faster than any body, or an action that is no number: the reward is NaN and the trajectory is over."""
    good = _unpack(
        HALF_CHEETAH,
        jnp.asarray(step_batch(HALF_CHEETAH, moving(HALF_CHEETAH, 1), np.zeros((1, 6)), 0)[0], jnp.float32),
    )
    start = good._replace(qvel=good.qvel.at[2].set(1e6)) if wrong == "speed" else good
    action = jnp.full(6, jnp.nan if wrong == "action" else 0.5)
    after = CHEETAH.step(jax.random.key(0), LocomotionState(start, jnp.ones(1)), action)
    assert np.isnan(after.reward)
    assert after.done
    jax.tree.map(np.testing.assert_array_equal, after.state.physics, start)


def test_mjx_and_c_engines_agree():
    """Four steps with random actions, from states in motion: the same observations and rewards."""
    random = np.random.default_rng(0)
    both = [Locomotion(engine="c"), Locomotion(engine="mjx")]
    first = step_batch(HALF_CHEETAH, moving(HALF_CHEETAH), np.zeros((3, 6)), 0)
    start = jax.vmap(lambda x: _unpack(HALF_CHEETAH, x))(jnp.asarray(first, jnp.float32))
    states = [LocomotionState(start, jnp.ones((3, 1)))] * 2
    steps = [jax.jit(jax.vmap(environment.step, (None, 0, 0))) for environment in both]
    for _ in range(4):
        action = jnp.asarray(random.uniform(-1, 1, (3, 6)), jnp.float32)
        c, mjx = (go(jax.random.key(0), state, action) for go, state in zip(steps, states, strict=True))
        np.testing.assert_allclose(mjx.reward, c.reward, atol=1e-3)
        np.testing.assert_allclose(mjx.observation, c.observation, atol=5e-3)
        states = [c.state, mjx.state]
    moved = np.abs(np.asarray(states[0].physics.qpos) - np.asarray(start.qpos))
    assert moved.max() > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"body": "cow"}, "`body` is unknown, got 'cow'; choose among: half-cheetah, ant"),
        ({"goal": "height"}, "`goal` is unknown"),
        ({"engine": "gpu"}, "`engine` is unknown"),
        ({"horizon": 0}, r"Locomotion.horizon: must be 1 or more"),
    ],
)
def test_invalid_settings_raise(settings: dict, message: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InnerloopError, match=message):
        unchecked(**settings)


def unchecked(**settings: Any) -> Locomotion:
    """The class's own check, without the annotations' that tests have beside it."""
    made = object.__new__(Locomotion)
    for name, value in ({"body": "ant", "goal": "direction", "engine": "c", "horizon": 1} | settings).items():
        object.__setattr__(made, name, value)
    made.__post_init__()
    return made


@pytest.mark.parametrize("package", ["mujoco", "gymnasium"])
def test_missing_package_error_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    load_model.cache_clear()
    with pytest.raises(
        InnerloopError, match=rf"half-cheetah: needs the package `{package}`.*innerloop\[rl\]"
    ):
        Locomotion()
