"""Checks of the arguments of `innerloop.fit`, before anything is written."""

import jax
import numpy as np

from innerloop.config.bounds import INT32_MAX
from innerloop.engine.pytree import by_path, paths
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_count
from innerloop.parallel import multi_process


def count(name: str, number: object, minimum: int = 1) -> int:
    """The argument `name` as an integer. Raises InnerloopError unless it is a whole number of at least `minimum`."""
    return check_count("fit", name, number, minimum, INT32_MAX)


def check_parameters(params: Params) -> None:
    """Raise InnerloopError unless these are float arrays without NaN and with unique paths."""
    check_trainable(params, "fit")
    for path, leaf in by_path(params).items():
        if np.isnan(np.asarray(leaf)).any():  # here, so that no loss or task is blamed for it
            wrong = f"parameter `{path}` holds NaN" if path else "the parameter array holds NaN"
            raise InnerloopError("fit", wrong, hint="give parameters without NaN")
    names = paths(params)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InnerloopError("fit", "two parameters share a path", got=twice[0], hint="rename one of them")


def check_one_process() -> None:
    """Raise InnerloopError if there are several processes."""
    if multi_process.is_multi_process():
        hint = "use `innerloop.train` or `OuterLoop` with several processes"
        raise InnerloopError("fit", "runs in one process only", got=jax.process_count(), hint=hint)
