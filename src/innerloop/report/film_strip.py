"""A film strip of a body before and after adaptation, drawn from the side.

All geoms are capsules and spheres, and from the side each is a capsule between the projections of its ends. So MuJoCo's
kinematics and matplotlib are enough; no graphics driver is needed.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from innerloop.engine.types import Params
from innerloop.io.text import counted
from innerloop.report.comparison import Result
from innerloop.report.examples import SEED
from innerloop.report.plots.style import COLOURS, GREY, Grid, Panels, draw_figure
from innerloop.rl.rollout import Trajectories
from innerloop.rl.sampler import MetaSampler

FRAMES = 8
SIDE, LOW, HIGH = 1.1, -0.15, 1.25
"""Half the width of a frame around the centre of mass, and its lower and upper edges, in metres."""


@dataclass(frozen=True)
class Strip:
    """One trajectory: its title, poses `[frames, qpos]`, and their times in seconds."""

    title: str
    poses: np.ndarray
    times: np.ndarray


def strip(result: Result) -> Figure:
    """Two tasks (directions or speeds) before the first update and after the last; all runs get the same tasks."""
    from innerloop.training.experiments.reinforcement import reinforcement

    experiment = reinforcement(result.trained.experiment)
    wrapped: Any = experiment.environment
    environment = getattr(wrapped, "environment", wrapped)  # without an oracle
    films = _strips(environment, experiment.test_sampler, result.trained.params)
    grid = Grid(len(films), FRAMES, 1.35 * len(films) + 0.3, 1.55 * FRAMES)
    return draw_figure(grid, _film, environment.parts, films)


def _strips(environment: Any, sampler: MetaSampler, params: Params) -> list[Strip]:
    """Two tasks, each before the first update and after the last."""
    tasks = _wanted(environment)
    env_tasks = jnp.asarray(list(tasks.values()), jnp.float32)[:, None]
    keys = jax.random.split(jax.random.key(SEED), len(tasks))
    rolled = jax.jit(lambda p: sampler.rollouts(p, keys, env_tasks))(params)
    found = []
    for i, name in enumerate(tasks):
        for updates in (0, len(rolled) - 1):
            t = jax.tree.map(lambda x, i=i: np.asarray(x[i, 0]), rolled[updates])
            title = f"{name}, {'before' if updates == 0 else 'after ' + counted(updates, 'update')}"
            found.append(_filmed(environment, title, t))
    return found


def _wanted(environment: Any) -> dict[str, float]:
    """The tasks to show, by name."""
    if environment.goal == "direction":
        return {"forwards": 1.0, "backwards": -1.0}
    top = environment.top_speed
    return {f"{part * top:.2g} m/s": part * top for part in (0.25, 0.75)}


def _filmed(environment: Any, title: str, t: Trajectories) -> Strip:
    """Poses of one trajectory at equal intervals; if it ends early, the last pose repeats."""
    steps = np.linspace(0, len(t.mask) - 1, FRAMES).round().astype(int)
    steps = np.minimum(steps, int(t.mask.sum()) - 1)
    poses = np.stack([environment.pose(t.observations[step]) for step in steps])
    return Strip(title, poses, steps * environment.seconds)


def _outlines(body: Any, pose: np.ndarray) -> tuple[float, list[tuple[int, np.ndarray]]]:
    """Position of the centre of mass, and the outline `[points, 2]` of every part, farthest first."""
    from innerloop.io.versions import required
    from innerloop.rl.environments.mujoco.models import load_model

    mujoco, model = required("mujoco", "rl", body.name), load_model(body)
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    parts = [i for i in range(model.ngeom) if model.geom_bodyid[i] > 0]
    parts.sort(key=lambda i: -data.geom_xpos[i][1])  # the view is along +y
    shapes = []
    for i in parts:
        axis = data.geom_xmat[i].reshape(3, 3)[:, 2] * model.geom_size[i][1]
        a, b = ((data.geom_xpos[i] + sign * axis)[[0, 2]] for sign in (-1, 1))
        shapes.append((i, _capsule(a, b, model.geom_size[i][0])))
    return float(data.subtree_com[1][0]), shapes


def _capsule(a: np.ndarray, b: np.ndarray, radius: float, points: int = 12) -> np.ndarray:
    """The outline of a capsule from a to b: two half circles."""
    angle = np.arctan2(b[1] - a[1], b[0] - a[0])
    half = np.linspace(-np.pi / 2, np.pi / 2, points)
    around = lambda centre, turn: centre + radius * np.stack([np.cos(turn + half), np.sin(turn + half)], -1)
    return np.concatenate([around(b, angle), around(a, angle + np.pi)])


def _film(body: object, films: list[Strip], grid: Panels) -> None:
    """A row per trajectory, a column per moment, labelled with the time and the distance covered."""
    for row, film in zip(grid, films, strict=True):
        for axes, pose, time in zip(row, film.poses, film.times, strict=True):
            centre, shapes = _outlines(body, pose)
            _frame(axes, centre, shapes)
            axes.set_xlabel(f"{time:.1f} s, {round(centre, 1) + 0.0:+.1f} m", fontsize=8, labelpad=1)
        row[0].set_title(film.title, loc="left", fontsize=10, pad=3)


def _frame(axes: Axes, centre: float, shapes: list[tuple[int, np.ndarray]]) -> None:
    """One frame: the ground with its marks, and the parts."""
    axes.axhspan(LOW, 0, color="#d9d9d9", linewidth=0)
    marks = np.arange(np.ceil((centre - SIDE) * 2), np.floor((centre + SIDE) * 2) + 1) / 2
    axes.vlines(marks, LOW, 0, color=GREY, linewidth=1)
    for part, outline in shapes:
        colour = COLOURS[0] if part % 2 else COLOURS[5]
        axes.add_patch(Polygon(outline, closed=True, facecolor=colour, edgecolor="white", linewidth=0.4))
    axes.set_xlim(centre - SIDE, centre + SIDE)
    axes.set_ylim(LOW, HIGH)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
