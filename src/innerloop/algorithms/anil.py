r"""ANIL (almost no inner loop): the inner loop adapts only the head; the outer loop updates everything.

    theta = (body, head),   head_{i+1} = head_i - alpha grad_head L(body, head_i; support)
    g = grad_theta L(body, head_k; query)

This is MAML whose inner loop selects the head. The head is carried through the scan as a separate partition, and the
body's features of the support set are computed once per task, not once per step
(`innerloop.engine.inner.loop_invariants`).

Raghu, Raghu, Bengio and Vinyals 2020, "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
MAML", section 4, arXiv 1909.09157.
"""

from dataclasses import replace

from innerloop.algorithms.maml import MAML
from innerloop.engine.inner.inner_loop import InnerLoop, check_inner
from innerloop.engine.pytree import Selection, check_not_all
from innerloop.engine.types import LossFn


class ANIL(MAML):
    """The algorithm that `anil` returns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_all(self.inner.select, "anil", "head")


def anil(
    loss_fn: LossFn, inner: InnerLoop, *, head: Selection = "head", outer_loss_fn: LossFn | None = None
) -> ANIL:
    """ANIL (Raghu et al. 2020): only the head is adapted, in training and at test time.

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its `select` is replaced.
        head: the parameters to adapt, as for `InnerLoop.select` (`()`: none, which is joint training).
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if `head` is None, which would be MAML.
    """
    check_inner(inner, "anil")
    return ANIL(loss_fn, replace(inner, select=head), outer_loss_fn)
