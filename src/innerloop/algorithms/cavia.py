r"""CAVIA (fast context adaptation): the inner loop adapts only context parameters, which are reset for every task.

    phi_0 = start,   phi_{i+1} = phi_i - alpha grad_phi L(phi_i, theta; support)
    g = grad_theta L(phi_k, theta; query)

The context phi is part of the parameter tree; the model uses it, for example, as additional inputs. Its initial value
is not learned: its meta-gradient is zero. (With a learned initial value, this is ANIL with the context as its head.)

Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019, "Fast Context Adaptation via Meta-Learning", arXiv 1810.03642.
Left out: the authors' code clamps every task's gradient to +-10 before taking the mean.
"""

from dataclasses import replace

import jax
from jaxtyping import PyTree

from innerloop.algorithms.maml import MAML
from innerloop.engine.inner.inner_loop import InnerLoop, check_inner
from innerloop.engine.pytree import Selection, check_not_all, combine, partition
from innerloop.engine.types import LossFn, Params


class CAVIA(MAML):
    """The algorithm that `cavia` returns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_all(self.inner.select, "cavia", "context")

    @property
    def held_constant(self) -> Selection:
        """The initial context."""
        return self.inner.select

    def start(self, meta_params: Params, support: PyTree) -> Params:
        """The initialisation, in which the initial context is a constant, not a meta-parameter."""
        context, shared = partition(meta_params, self.inner.select)
        return combine(jax.lax.stop_gradient(context), shared)


def cavia(
    loss_fn: LossFn, inner: InnerLoop, *, context: Selection = "context", outer_loss_fn: LossFn | None = None
) -> CAVIA:
    """CAVIA (Zintgraf et al. 2019).

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its `select` is replaced.
        context: the context parameters; the paper starts them at zero.
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if `context` is None, which would leave no parameter to learn.
    """
    check_inner(inner, "cavia")
    return CAVIA(loss_fn, replace(inner, select=context), outer_loss_fn)
