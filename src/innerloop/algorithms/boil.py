r"""BOIL (body only update in inner loop): the complement of ANIL, in which the head is fixed and the features adapt.

    body_{i+1} = body_i - alpha grad_body L(body_i, head; support)
    g = grad_theta L(body_k, head; query)

Oh, Yoo, Kim and Yun 2021, "BOIL: Towards Representation Change for Few-shot Learning", arXiv 2008.08882.
"""

from dataclasses import replace

from innerloop.algorithms.maml import MAML
from innerloop.engine.inner.inner_loop import InnerLoop, check_inner
from innerloop.engine.pytree import Except, Selection, check_not_all
from innerloop.engine.types import LossFn


class BOIL(MAML):
    """The algorithm that `boil` returns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        select = self.inner.select
        check_not_all(select.selection if isinstance(select, Except) else select, "boil", "head")


def boil(
    loss_fn: LossFn, inner: InnerLoop, *, head: Selection = "head", outer_loss_fn: LossFn | None = None
) -> BOIL:
    """BOIL (Oh et al. 2021): all parameters except the head are adapted, in training and at test time.

    Args:
        loss_fn: the loss, a mean over examples.
        inner: the inner loop; its `select` is replaced.
        head: the parameters not to adapt, as for `InnerLoop.select` (`()`: none, which is MAML).
        outer_loss_fn: the loss on the query set (None: `loss_fn`).

    Raises:
        InnerloopError: if `head` is None, which would adapt nothing.
    """
    check_inner(inner, "boil")
    return BOIL(loss_fn, replace(inner, select=Except(head)), outer_loss_fn)
