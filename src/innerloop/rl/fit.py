"""Checks that an environment and a policy fit together, by tracing them before anything is compiled or run."""

from collections.abc import Callable

import jax
from jaxtyping import PyTree

from innerloop.config.bounds import COUNTS, check_number
from innerloop.engine.distribution import check_repeatable
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.rl.environments.base import Environment
from innerloop.rl.interaction import act, draw_tasks, raise_for, reset_all, step_all

WHO = "MetaIterations"
NEEDED = ("horizon", "observation_size", "action_size", "discrete", "sample_task", "reset", "step")
"""Members that every environment needs; `task_vector` is used by `Oracle` only."""
COUNT = 7
"""Number of trajectories traced together: an axis of a user's arrays is unlikely to have this length by chance."""


def check_fit(environment: Environment, policy: Params) -> None:
    """Trace one step of the policy in a task of the environment; call `environment.probe()` if it has that method.

    Raises:
        InnerloopError: if a member of the environment is missing or of the wrong kind, a method draws random numbers
            from anything but its key, or the two do not fit together.
    """
    check_members(environment)
    key = jax.eval_shape(lambda: jax.random.key(0))
    keys = jax.ShapeDtypeStruct((COUNT,), key.dtype)
    tasks = jax.eval_shape(lambda keys: draw_tasks(environment, keys), keys)
    task = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), tasks)
    state, observation = _traced(environment, "reset", reset_all, keys, task)
    one_act = lambda key, seen: act(environment, policy, key, seen)
    _, action = jax.eval_shape(one_act, key, observation)
    _traced(environment, "step", step_all, keys, state, action)
    if hasattr(environment, "probe"):  # tests what runs outside the traced program
        environment.probe()  # pyright: ignore[reportAttributeAccessIssue]


def check_members(environment: object) -> None:
    """Raise InnerloopError unless the environment has all members, and its sizes are integers of at least 1."""
    if isinstance(environment, type):
        name = environment.__name__
        raise InnerloopError(
            name, "an environment must be an instance", got="the class", hint=f"pass {name}(...)"
        )
    for name in NEEDED:
        if not hasattr(environment, name):
            raise_for(environment, f"an environment needs `{name}`", hint="see innerloop.rl.Environment")
    for name in ("horizon", "observation_size", "action_size"):
        check_number(f"{type(environment).__name__}.{name}", getattr(environment, name), COUNTS, integer=True)


def _traced(environment: Environment, name: str, fn: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Shapes of `fn(environment, *args)`. Raises InnerloopError if its randomness depends on more than its key."""
    of_args = lambda *args: fn(environment, *args)
    shapes = jax.eval_shape(of_args, *args)
    check_repeatable(of_args, args, WHO, f"{type(environment).__name__}.{name}")
    return shapes
