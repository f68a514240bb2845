"""Loop-invariant code motion: compute once what does not change between inner steps.

If only some parameters are adapted (ANIL's head), most of the loss does not depend on them: the body's features of the
support set are the same at every step. If all are adapted, whatever depends only on the examples is invariant (the
moments of the image windows in the first layer). `hoist` follows the dependencies through the jaxpr of any loss and
splits it into the two parts; users need not do anything.
"""

from collections.abc import Callable

import jax
from jax.extend import core as jex
from jaxtyping import PyTree

from innerloop.engine.jaxprs import function_of

TwoPartFunction = Callable[[PyTree, PyTree], PyTree]
"""`fn(moving, rest)`: a function of what changes between inner steps, and of everything else."""


def hoist(fn: TwoPartFunction, moving: PyTree, rest: PyTree) -> tuple[TwoPartFunction, PyTree]:
    """Return (fn', rest') with fn'(moving, rest') = fn(moving, rest), where rest' is computed here, once.

    Derivatives with respect to `moving` and to `rest` are those of the original function.
    """
    jaxpr, shapes = jax.make_jaxpr(lambda moving, rest: fn(moving, rest), return_shape=True)(moving, rest)
    part, known = _split(jaxpr, len(jax.tree.leaves(moving)), jax.tree.leaves(rest))
    structure = jax.tree.structure(shapes)
    return lambda moving, known: structure.unflatten(part(jax.tree.leaves(moving), known)), known


def _split(
    jaxpr: jex.ClosedJaxpr, moving_inputs: int, rest: list
) -> tuple[Callable[[list, list], list], list]:
    """Split a jaxpr into what depends on its first `moving_inputs` arguments, and the values of what does not."""
    inputs = jaxpr.jaxpr.invars
    moving = set(inputs[:moving_inputs])
    once, every_step = [], []
    for equation in jaxpr.jaxpr.eqns:
        depends = any(isinstance(v, jex.Var) and v in moving for v in equation.invars)
        (every_step if depends else once).append(equation)
        if depends:
            moving.update(equation.outvars)
    boundary = _crossing(jaxpr, moving, every_step)
    known = function_of(jaxpr, once, inputs[moving_inputs:], boundary)(*rest)

    each = function_of(jaxpr, every_step, [*inputs[:moving_inputs], *boundary], jaxpr.jaxpr.outvars)
    return lambda moving, known: each(*moving, *known), known


def _crossing(jaxpr: jex.ClosedJaxpr, moving: set, every_step: list) -> list:
    """The invariant variables that the varying part reads, without constants, in order and without duplicates."""
    constants = set(jaxpr.jaxpr.constvars)
    reads = [v for equation in every_step for v in equation.invars] + list(jaxpr.jaxpr.outvars)
    wanted = [v for v in reads if isinstance(v, jex.Var) and v not in moving and v not in constants]
    return list(dict.fromkeys(wanted))
