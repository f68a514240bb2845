"""Where a run first had NaN or infinity: `innerloop.engine.diagnosis` with layers, settings and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from innerloop.engine.diagnosis import Place, Reporter, find_divergence
from innerloop.engine.types import Batch, Params
from innerloop.errors import InnerloopError
from innerloop.training.storage.run_directory import last_checkpoint_hint

RAN = "the run diverged at meta-step {}"
COMMAND = Reporter("train", RAN, "`inner.learning_rate` or `outer.learning_rate`", "`outer.learning_rate`")
FIT = Reporter(
    "fit", RAN, "the step size of the inner loop or that of the optimizer", "the optimizer's step size"
)
POLICY = Reporter(
    "fit_policy", RAN, "the step size of the inner loop or that of the outer step", "the outer step's size"
)


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


def check_finite(info: PyTree, block: Block, reporter: Reporter = COMMAND) -> None:
    """Raise Diverged if a meta-step of the block did."""
    first, end = block.step - len(info.outer_loss) + 1, lambda: last_checkpoint_hint(block.folder)
    error = find_divergence(info, block.after, first, reporter, block.locate, end)
    if error is not None:
        raise error


def outputs_by_layer(params: Params, batch: Batch) -> dict[str, PyTree]:
    """The output of every layer of a built-in network, in order; empty for any other network."""
    from innerloop.nn.named_layers import named_layers

    try:
        return named_layers(params).activations(params, batch.inputs)
    except InnerloopError:
        return {}
