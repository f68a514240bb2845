"""Reports running out of memory, with advice.

XLA reports RESOURCE_EXHAUSTED, Python raises MemoryError; both end the run, but its checkpoints are intact.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jax.errors import JaxRuntimeError

from innerloop.errors import InnerloopError, first_line

ADVICE = (
    "vectorise fewer tasks at a time (`outer.chunk` 1), recompute inner steps in the backward pass "
    "(`inner.derivative` rematerialised), or lower `outer.meta_batch`"
)


def exhausted(trouble: BaseException) -> bool:
    """Whether this error, from Python or XLA, means that memory ran out."""
    if isinstance(trouble, JaxRuntimeError):  # TensorStore calls a full disk exhausted too
        return "RESOURCE_EXHAUSTED" in str(trouble) or "Out of memory" in str(trouble)
    return isinstance(trouble, MemoryError)


@contextmanager
def explain_oom(planned: object = None, who: str = "train", hint: str = ADVICE) -> Iterator[None]:
    """Turn an out-of-memory error into an InnerloopError; `planned` is the memory plan reported before."""
    try:
        yield
    except Exception as trouble:
        if not exhausted(trouble):
            raise
        wrong = f"memory ran out ({first_line(trouble)[:160]})"
        raise InnerloopError(who, wrong, got=planned, hint=hint) from trouble
