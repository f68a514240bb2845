"""Acting in parallel copies of one task, with checks of what environment and policy return.

The checks run during tracing and read only shapes and dtypes. They cost nothing once a program is compiled, and raise
before anything runs.
"""

from contextlib import AbstractContextManager
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from innerloop.engine.distribution import UNTRACEABLE
from innerloop.engine.pytree import paths
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, explained
from innerloop.io.text import counted
from innerloop.rl.distributions import Categorical, Distribution
from innerloop.rl.environments.base import Environment, Transition


def draw_tasks(environment: Environment, keys: Array) -> PyTree:
    """A task of the family for each key.

    Raises:
        InnerloopError: if a task contains anything but arrays.
    """
    return jax.vmap(
        lambda key: _arrays(environment, "the task of `sample_task`", environment.sample_task(key))
    )(keys)


def reset_all(
    environment: Environment, keys: Array, task: PyTree
) -> tuple[PyTree, Float[Array, "trajectories observation"]]:
    """First states of one task and their observations, one for each key.

    Raises:
        InnerloopError: if `reset` returns anything but a state and `observation_size` floats.
    """

    def reset(key: PRNGKeyArray) -> tuple[PyTree, Array]:
        with _traceable(environment, "reset"):
            found: Any = environment.reset(key, task)
        if type(found) is not tuple or len(found) != 2:  # a state alone may be a NamedTuple of two
            raise_for(environment, "`reset` must return (state, observation)", _kind(found))
        state, observation = found
        return _arrays(environment, "the state of `reset`", state), _observation(
            environment, "reset", observation
        )

    return jax.vmap(reset)(keys)


def act(
    environment: Environment,
    policy: Params,
    key: PRNGKeyArray,
    observation: Float[Array, "trajectories observation"],
) -> tuple[Distribution, Array]:
    """The policy's distributions over actions, and an action drawn from each.

    Raises:
        InnerloopError: if the policy cannot read the observations, does not return distributions for them, or draws
            actions that the environment does not accept.
    """
    action_dist = _distributions(policy, observation)
    action = action_dist.sample(key)
    _check_actions(environment, action_dist, action, len(observation))
    return action_dist, action


def step_all(environment: Environment, keys: Array, state: PyTree, action: Array) -> Transition:
    """One step of every trajectory.

    Raises:
        InnerloopError: if `step` returns anything but a `Transition` with a state like that of `reset`,
            `observation_size` floats, a float reward and a boolean `done`.
    """

    def step(key: PRNGKeyArray, state: PyTree, action: Array) -> Transition:
        with _traceable(environment, "step"):
            after: Any = environment.step(key, state, action)
        if not isinstance(after, Transition):
            hint = "return innerloop.rl.Transition(state, observation, reward, done)"
            raise_for(environment, "`step` must return a Transition", _kind(after), hint)
        _check_state(environment, state, after.state)
        return Transition(
            after.state,
            _observation(environment, "step", after.observation),
            _array(environment, "the reward of `step`", after.reward, (), jnp.floating),
            _array(environment, "`done` of `step`", after.done, (), jnp.bool_),
        )

    return jax.vmap(step)(keys, state, action)


def _traceable(environment: Environment, method: str) -> AbstractContextManager[None]:
    """Turn JAX's errors about a method of the environment into an InnerloopError."""
    hint = "use jnp.where and other functions of jax.numpy instead of `if`, int() and float() on values of arrays"
    return explained(
        type(environment).__name__, f"`{method}` cannot be compiled", hint=hint, errors=UNTRACEABLE
    )


def _distributions(policy: Params, observation: Array) -> Distribution:
    """The policy's distributions, one for each observation."""
    if not callable(policy):
        hint = "use a GaussianPolicy or a CategoricalPolicy, or a pytree of your own with `__call__`"
        raise InnerloopError("policy", "it must be callable", got=type(policy).__name__, hint=hint)
    wrong = f"it cannot read observations of shape {observation.shape}"
    with explained("policy", wrong, hint="build it for the environment's `observation_size`"):
        found: Any = policy(observation)  # pyright: ignore[reportCallIssue]
    if not all(hasattr(found, name) for name in ("sample", "log_prob", "kl")):
        hint = "return innerloop.rl.Normal(mean, log_std) or Categorical(logits)"
        raise InnerloopError(
            "policy", "it must return distributions over actions", got=_kind(found), hint=hint
        )
    for path, leaf in zip(paths(found), jax.tree.leaves(found), strict=True):
        if jnp.shape(leaf)[:1] != observation.shape[:1]:
            wrong = f"`{path}` of its distributions must have the leading axes of the observations"
            got = f"shape {jnp.shape(leaf)} for observations of shape {observation.shape}"
            raise InnerloopError("policy", wrong, got=got, hint="broadcast it")
    return found


def _check_actions(environment: Environment, action_dist: Distribution, action: Any, count: int) -> None:
    """Raise InnerloopError for actions that the environment does not accept."""
    size, discrete = environment.action_size, environment.discrete
    shape, kind = ((), jnp.integer) if discrete else ((size,), jnp.floating)
    if jnp.shape(action) != (count, *shape) or not jnp.issubdtype(jnp.result_type(action), kind):
        takes = f"an index below {size}" if discrete else f"a vector of {counted(size, 'float')}"
        hint = f"use a {'CategoricalPolicy' if discrete else 'GaussianPolicy'} with `action_size` {size}"
        got = f"{jnp.result_type(action)} of shape {jnp.shape(action)[1:]}"
        raise_for(environment, f"an action is {takes}, but the policy draws others", got, hint)
    if isinstance(action_dist, Categorical) and action_dist.logits.shape[-1] != size:
        hint = f"use a policy with `action_size` {size}"
        raise_for(
            environment,
            f"it has {counted(size, 'action')}",
            f"a policy over {action_dist.logits.shape[-1]}",
            hint,
        )
    density = jax.eval_shape(lambda: action_dist.log_prob(action))
    if density.shape != (count,):
        hint = "sum over the components of an action"
        raise InnerloopError(
            "policy", "`log_prob` must be one number for each action", got=density.shape[1:], hint=hint
        )


def _observation(environment: Environment, method: str, found: object) -> Array:
    """An observation of the right size."""
    what = f"the observation of `{method}` (`observation_size` numbers)"
    return _array(environment, what, found, (environment.observation_size,), jnp.floating)


def _check_state(environment: Environment, before: PyTree, after: PyTree) -> None:
    """Raise InnerloopError unless two states have the same structure, shapes and dtypes."""
    _arrays(environment, "the state of `step`", after)
    wrong, hint = "`step` must return a state like that of `reset`", "keep structure, shapes and dtypes"
    if jax.tree.structure(before) != jax.tree.structure(after):
        got = f"{jax.tree.structure(after)} after {jax.tree.structure(before)}"
        raise_for(environment, wrong, got, hint)
    for path, old, new in zip(paths(before), jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if jnp.shape(old) != jnp.shape(new) or jnp.result_type(old) != jnp.result_type(new):
            raise_for(environment, f"{wrong}: `{path}` differs", f"{_kind(new)} after {_kind(old)}", hint)


def _arrays(environment: Environment, what: str, tree: PyTree) -> PyTree:
    """The tree. Raises InnerloopError unless all its leaves are arrays or numbers."""
    for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True):
        try:
            jnp.result_type(leaf)
        except TypeError:
            place = f", at `{path}`" if path else ""
            raise_for(environment, f"{what} must be arrays", f"{type(leaf).__name__}{place}")
    return tree


def _array(environment: Environment, what: str, found: Any, shape: tuple[int, ...], kind: DTypeLike) -> Array:
    """A returned value as an array. Raises InnerloopError unless it has this shape and kind of dtype."""
    _arrays(environment, what, found)
    fits = jax.tree.structure(found) == jax.tree.structure(0) and jnp.shape(found) == shape
    if not fits or not jnp.issubdtype(jnp.result_type(found), kind):
        name = {jnp.floating: "float", jnp.bool_: "boolean"}[kind]  # pyright: ignore[reportArgumentType]
        raise_for(environment, f"{what} must be {name} of shape {shape}", _kind(found))
    return jnp.asarray(found)


def _kind(found: Any) -> str:
    """A description of an object for messages: dtype and shape of an array, otherwise its type."""
    if hasattr(found, "dtype") and hasattr(found, "shape"):
        return f"{found.dtype} of shape {found.shape}"
    return type(found).__name__ + (f" of {len(found)}" if isinstance(found, (tuple, list)) else "")


def raise_for(environment: object, wrong: str, got: object = None, hint: str = "") -> NoReturn:
    """Raise InnerloopError on behalf of an environment."""
    raise InnerloopError(type(environment).__name__, wrong, got=got, hint=hint)
