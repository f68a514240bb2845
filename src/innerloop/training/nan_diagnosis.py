"""Where a run first had NaN or infinity: `innerloop.engine.diagnosis` with layers, settings and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from innerloop.engine.diagnosis import Place, advice, first_nonfinite_leaf, first_nonfinite_update, of_leaf
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError
from innerloop.training.storage.run_directory import last_checkpoint_hint


class Caller(NamedTuple):
    """Who reports a divergence, and what the step sizes are called there."""

    who: str = "train"
    inner: str = "`inner.learning_rate`"
    outer: str = "`outer.learning_rate`"


COMMAND = Caller()
FIT = Caller("fit", "the step size of the inner loop", "that of the optimizer")


class Block(NamedTuple):
    """The meta-steps of one dispatch of a run.

    Attributes:
        step: the last meta-step.
        folder: the run's folder.
        after: the meta-parameters after the last meta-step.
        locate: `locate(good)` says where the meta-step after `good` finite ones became non-finite; None if that is
            unknown.
    """

    step: int
    folder: Path
    after: Params
    locate: Callable[[int], Place | None] = lambda good: None


def check_finite(info: PyTree, block: Block, caller: Caller = COMMAND) -> None:
    """Raise InnerloopError at the first meta-step that diverged.

    Its loss or gradient is not finite; or all are, and the outer update of the last meta-step overflowed.
    """
    lost = first_nonfinite_update(info)
    if lost is not None:
        step = block.step - len(info.outer_loss) + lost.good + 1
        place = block.locate(lost.good) or lost.place
        hint = advice(place, f"{caller.inner} or {caller.outer}", caller.outer)
        raise InnerloopError(
            caller.who,
            f"the run diverged at meta-step {step}, in {place.text}",
            got=lost.got,
            hint=hint + last_checkpoint_hint(block.folder),
        )
    parameter = first_nonfinite_leaf(block.after)
    if parameter is not None:
        wrong = f"the run diverged at meta-step {block.step}, in the outer update{of_leaf(parameter)}"
        raise InnerloopError(
            caller.who, wrong, hint=f"lower {caller.outer}{last_checkpoint_hint(block.folder)}"
        )


def outputs_by_layer(params: Params, batch: Batch) -> dict[str, PyTree]:
    """The output of every layer of a built-in network, in order; empty for any other network."""
    from innerloop.nn.named_layers import named_layers

    try:
        return named_layers(params).activations(params, batch.inputs)
    except InnerloopError:
        return {}
