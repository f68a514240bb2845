"""Whether an environment and a policy fit together, found by tracing them before anything is compiled or acts."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from innerloop.config.bounds import MEMBERS, check_number
from innerloop.engine.key_use import has_other_constants, reads_first, trace
from innerloop.engine.types import Params
from innerloop.rl.environments.base import Environment
from innerloop.rl.interaction import act, draw_tasks, refuse, reset_all, step_all

NEEDED = ("horizon", "observation_size", "action_size", "discrete", "sample_task", "reset", "step")
"""What an environment cannot do without; `task_vector` is for `Oracle` alone."""
COUNT = 7
"""Trajectories that are traced side by side: few axes of a user's arrays have this length by chance."""


def check_fit(environment: Environment, policy: Params) -> None:
    """Trace one step of the policy in a task of the environment; `environment.probe()` is called if there is one.

    Raises:
        InnerloopError: a member of the environment is missing or of the wrong kind; all tasks are the same; a method
            draws random numbers from elsewhere than its key; or the two do not fit together.
    """
    check_members(environment)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((COUNT,), key.dtype)
    tasks = _traced(environment, "sample_task", draw_tasks, keys)
    if jax.tree.leaves(tasks) and not reads_first(trace(environment.sample_task, key)[0]):
        do = "draw the task from the key, as by jax.random.uniform(key, ...)"
        refuse(environment, "all tasks are the same: `sample_task` does not depend on its key", do=do)
    task = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tasks)
    state, observation = _traced(environment, "reset", reset_all, keys, task)
    one_act = lambda key, seen: act(environment, policy, key, seen)
    _, action = jax.eval_shape(one_act, key, observation)
    _traced(environment, "step", step_all, keys, state, action)
    if hasattr(environment, "probe"):  # what runs outside the traced program
        environment.probe()  # pyright: ignore[reportAttributeAccessIssue]


def check_members(environment: Any) -> None:
    """Raise InnerloopError unless the environment has all its members, its sizes whole numbers of at least 1."""
    for name in NEEDED:
        if not hasattr(environment, name):
            refuse(environment, f"an environment needs `{name}`", do="see innerloop.rl.Environment")
    for name in ("horizon", "observation_size", "action_size"):
        check_number(f"{type(environment).__name__}.{name}", getattr(environment, name), MEMBERS, whole=True)


def _traced(environment: Environment, name: str, fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Shapes of `fn(environment, *args)`. Raises InnerloopError if a second trace has other constants."""
    (first, shapes), (again, _) = (trace(lambda *args: fn(environment, *args), *args) for _ in range(2))
    if has_other_constants(first, again):
        wrong = f"`{name}` draws random numbers from elsewhere than its key"
        do = "NumPy's and Python's are drawn once, when the program is compiled: use jax.random with the key"
        refuse(environment, wrong, do=do)
    return shapes
