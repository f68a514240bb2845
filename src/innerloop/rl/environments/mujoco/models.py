"""Gymnasium's MuJoCo models of the half-cheetah and the ant, with sensors.

The sensors are the centre of mass of the whole body, its velocity, and (if contacts are observed) a force, which only
serves to make MuJoCo compute the contact forces `cfrc_ext`. Both engines use the same model.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from innerloop.errors import InnerloopError
from innerloop.io.versions import required

SUBSTEPS = 5
"""Physics steps per environment step: Gymnasium's frame skip, 0.05 s."""


@dataclass(frozen=True)
class Body:
    """One model.

    Attributes:
        name: the model's name in configs.
        file: name of its file in Gymnasium.
        positions: length of qpos.
        velocities: length of qvel.
        actuators: length of an action.
        parts: number of bodies in the tree, excluding the ground.
        contacts: whether contact forces are observed.
    """

    name: str
    file: str
    positions: int
    velocities: int
    actuators: int
    parts: int
    contacts: bool

    @property
    def state_size(self) -> int:
        """Length of the state: positions, velocities, and the solver's warm start."""
        return self.positions + 2 * self.velocities

    @property
    def sensed_size(self) -> int:
        """Number of sensor values: centre of mass, its velocity, and contact forces on every part."""
        return 6 + 6 * self.parts * self.contacts


HALF_CHEETAH = Body("half-cheetah", "half_cheetah.xml", 9, 9, 6, 7, False)
ANT = Body("ant", "ant.xml", 15, 14, 8, 13, True)


def _model_xml(body: Body) -> str:
    """The model's XML from Gymnasium's package, found without importing Gymnasium."""
    required("mujoco", "rl", body.name)
    found = find_spec("gymnasium")
    if found is None or found.origin is None:
        hint = "pip install 'innerloop[rl]'"
        raise InnerloopError(body.name, "needs the package `gymnasium`, which is not installed", hint=hint)
    path = Path(found.origin).parent / "envs" / "mujoco" / "assets" / body.file
    return path.read_text("utf-8")


TOTAL_MASS = ' settotalmass="14"'
"""A deprecated attribute in the half-cheetah's file; `load_model` sets the mass with a function call instead."""


@cache
def load_model(body: Body) -> Any:
    """The compiled model with its sensors, and without MuJoCo's automatic reset, which would hide exploding physics.

    Raises:
        InnerloopError: if MuJoCo or Gymnasium is not installed.
    """
    mujoco, text = required("mujoco", "rl", body.name), _model_xml(body)
    spec = mujoco.MjSpec.from_string(text.replace(TOTAL_MASS, ""))
    sensor, torso = mujoco.mjtSensor, {"objtype": mujoco.mjtObj.mjOBJ_BODY, "objname": "torso"}
    spec.add_sensor(name="com", type=sensor.mjSENS_SUBTREECOM, **torso)
    spec.add_sensor(name="com_velocity", type=sensor.mjSENS_SUBTREELINVEL, **torso)
    if body.contacts:
        spec.body("torso").add_site(name="felt")
        at = {"objtype": mujoco.mjtObj.mjOBJ_SITE, "objname": "felt"}
        spec.add_sensor(name="force", type=sensor.mjSENS_FORCE, **at)
    model = spec.compile()
    if TOTAL_MASS in text:
        mujoco.mj_setTotalmass(model, 14.0)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    return model
