r"""Mixed-mode differentiation of the inner gradient (MixFlow-MG, Kemaev et al., ICML 2025, arXiv 2505.00793).

The inner step uses g(theta, phi) = grad_theta L(theta, phi), where phi is whatever else the loss depends on (frozen
parameters, data). Reverse mode through g would record the whole backward pass. But because second derivatives commute,
the transpose of g's derivative is a derivative of the full gradient in the direction v:

    (dg/dtheta)^T v = d/de grad_theta L(theta + e v, phi)          (the Hessian is symmetric)
    (dg/dphi)^T   v = d/de grad_phi   L(theta + e v, phi)

so one forward-mode derivative of one reverse-mode gradient gives both, and only (theta, phi) is kept. The tangent of
phi is zero, so this is also correct for a split into head and body.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from innerloop.engine.inner.custom_rules import check_true_derivatives

ValueAndAux = tuple[Array, PyTree]


def _is_float(x: PyTree) -> bool:
    """Whether a leaf can carry a derivative."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _floats(tree: PyTree) -> list:
    """The leaves that carry a derivative."""
    return [x for x in jax.tree.leaves(tree) if _is_float(x)]


def mixed_value_and_grad(
    loss: Callable[[PyTree, PyTree], ValueAndAux],
) -> Callable[[PyTree, PyTree], tuple[ValueAndAux, PyTree]]:
    """`jax.value_and_grad(loss, has_aux=True)` with respect to the first argument, differentiated as above.

    Raises:
        InnerloopError: when it is called, if a custom derivative in the loss is not its function's true derivative.
    """

    def gradient(theta: PyTree, rest: PyTree) -> tuple[ValueAndAux, PyTree]:
        leaves, structure = jax.tree.flatten(rest)
        floats = [x if _is_float(x) else None for x in leaves]
        others = [None if _is_float(x) else x for x in leaves]

        def loss_of(theta: PyTree, floats: list, others: list) -> ValueAndAux:
            merged = [o if f is None else f for f, o in zip(floats, others, strict=True)]
            return loss(theta, structure.unflatten(merged))

        check_true_derivatives(loss_of, theta, floats, others)
        # What the loss closes over may be differentiated, too, as a strength of regularisation that is learned.
        explicit, closed_over = jax.closure_convert(loss_of, theta, floats, others)
        if not closed_over:
            return _forward_over_reverse(loss_of)(theta, floats, others)
        count = len(floats)
        loss_with = lambda theta, phi, others: explicit(theta, phi[:count], others, *phi[count:])
        return _forward_over_reverse(loss_with)(theta, [*floats, *closed_over], others)

    return gradient


def _forward_over_reverse(loss: Callable[[PyTree, list, list], ValueAndAux]) -> Callable:
    """`value_and_grad` of `loss(theta, phi, constants)` in theta, with a Hessian-vector product as its VJP."""

    @jax.custom_vjp
    def value_and_grad(theta: PyTree, phi: list, constants: list) -> tuple[ValueAndAux, PyTree]:
        return jax.value_and_grad(loss, has_aux=True)(theta, phi, constants)

    def forward(theta: PyTree, phi: list, constants: list) -> tuple[PyTree, PyTree]:
        # When a scan is differentiated twice, JAX mistakes residuals that are inputs for one another. One barrier for
        # all would make a scan keep them for every step; alone, only theta changes from step to step.
        kept = tuple(map(jax.lax.optimization_barrier, (theta, phi, constants)))
        return value_and_grad(theta, phi, constants), kept

    def backward(kept: PyTree, cotangents: PyTree) -> PyTree:
        theta, phi, constants = kept
        (loss_bar, aux_bar), v = cotangents
        full = lambda theta: jax.grad(loss, (0, 1), has_aux=True)(theta, phi, constants)[0]
        grads, products = jax.jvp(full, (theta,), (v,))
        # A loss in higher precision than the parameters would promote the sum.
        bars = jax.tree.map(lambda g, hv: (hv + loss_bar * g).astype(g.dtype), grads, products)
        aux = lambda theta, phi: _floats(loss(theta, phi, constants)[1])
        if _floats(aux_bar):
            more = jax.vjp(aux, theta, phi)[1](_floats(aux_bar))
            bars = jax.tree.map(jnp.add, bars, more)
        return *bars, None

    value_and_grad.defvjp(forward, backward)
    return value_and_grad
