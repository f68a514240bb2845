"""The state of an outer loop, and functions that copy and check it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from innerloop.engine.pytree import shapes_only
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError
from innerloop.parallel.compile_once import check_not_traced
from innerloop.parallel.mesh import local_copy


class MetaState(NamedTuple):
    """Everything that the next meta-step needs.

    Attributes:
        params: the meta-parameters.
        opt_state: the state of the outer optimiser.
        key: the key of the run; the keys of tasks are derived from it and `step`.
        step: the number of updates so far, int32.
    """

    params: Params
    opt_state: optax.OptState
    key: PRNGKeyArray
    step: Array

    __repr__ = shapes_only


def copy_to_host(state: MetaState) -> MetaState:
    """A copy of the state, on the host except for the key: a dispatch consumes the state that it is given."""
    state = jax.tree.map(local_copy, state)
    return jax.tree.map(np.array, state._replace(key=None))._replace(key=jnp.array(state.key))


def restore_to_device(kept: MetaState) -> MetaState:
    """Move a state that `copy_to_host` returned back to the device."""
    return jax.tree.map(jnp.array, kept)


def without_aliases(state: MetaState) -> MetaState:
    """The state with repeated arrays copied: a buffer cannot be donated twice.

    The initial states of some optimisers hold the parameters themselves, or the same array of zeros in several places.
    """
    met: set[int] = set()

    def own(x: Array) -> Array:
        known = id(x) in met
        met.add(id(x))
        return jnp.array(x) if known else x

    return jax.tree.map(own, state)


def check_state(state: object, who: str) -> None:
    """Raise InnerloopError, on behalf of `who`, unless this is a state whose arrays no earlier run has consumed."""
    if not isinstance(state, MetaState):
        hint = "pass the state that `init` or `run` returned"
        raise InnerloopError(who, "needs a MetaState", got=type(state).__name__, hint=hint)
    hint = (
        "call it outside; for an ensemble, take jax.vmap of an update of your own with `algorithm.meta_grad`"
    )
    check_not_traced(who, hint, state)
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state)):
        hint = "continue with the state that `run` returned"
        raise InnerloopError(who, "this state was consumed by an earlier run", hint=hint)
