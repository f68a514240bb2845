"""What an algorithm is: two pure functions of ONE task."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from innerloop.task import Params, Task


class MetaInfo(NamedTuple):
    """What people look at: the loss that the meta-gradient descends, and the support loss before each inner step."""

    outer_loss: Float[Array, ""]
    inner_losses: Float[Array, " steps"]


class Algorithm(NamedTuple):
    """`adapt(params, support) -> adapted`; `meta_grad(params, task) -> (gradient, MetaInfo)`.

    Both are deterministic functions of their arguments: no key, no state, no axis over tasks.
    """

    adapt: Callable[[Params, Any], Params]
    meta_grad: Callable[[Params, Task], tuple[Params, MetaInfo]]
