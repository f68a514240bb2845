"""Out of memory, told with what to do about it.

XLA says RESOURCE_EXHAUSTED, Python raises MemoryError; both end a run whose checkpoints are whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jax.errors import JaxRuntimeError

from innerloop.errors import InnerloopError, first_line

ADVICE = (
    "vectorise fewer tasks at a time (`outer.chunk` 1), run inner steps again in the backward pass "
    "(`inner.derivative` rematerialised), or lower `outer.meta_batch`"
)


def exhausted(trouble: BaseException) -> bool:
    """Whether this error, of Python's or of XLA's, says that memory ran out."""
    if isinstance(trouble, JaxRuntimeError):  # a full disk is exhausted too, in TensorStore's words
        return "RESOURCE_EXHAUSTED" in str(trouble) or "Out of memory" in str(trouble)
    return isinstance(trouble, MemoryError)


@contextmanager
def explain_oom(planned: object = None, who: str = "train", do: str = ADVICE) -> Iterator[None]:
    """Turn an exhausted memory into an InnerloopError; `planned` is what was said of memory before."""
    try:
        yield
    except InnerloopError:
        raise
    except Exception as trouble:
        if not exhausted(trouble):
            raise
        first = first_line(trouble)[:160]
        told = f"the memory ran out ({first})"
        raise InnerloopError(who, told, got=planned, do=do) from trouble
