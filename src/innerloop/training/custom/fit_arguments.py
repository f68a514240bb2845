"""Checks of the arguments of `innerloop.fit` and `fit_policy`, before anything is written."""

import jax
import numpy as np

from innerloop.config.bounds import INT32_MAX, SEED
from innerloop.engine.pytree import by_path, paths
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Params
from innerloop.errors import InnerloopError, check_count, check_flag
from innerloop.parallel import multi_process
from innerloop.training.experiments.schedule import Schedule
from innerloop.training.progress.callbacks import check_callbacks


def count(who: str, name: str, number: object, minimum: int = 1) -> int:
    """The argument `name` as an integer. Raises InnerloopError unless it is a whole number of at least `minimum`."""
    return check_count(who, name, number, minimum, INT32_MAX)


def optional_count(who: str, name: str, number: object) -> int | None:
    """The argument `name`, which may be None. Raises InnerloopError as `count`."""
    return None if number is None else count(who, name, number)


def seed_of(who: str, seed: object) -> int:
    """The seed as an integer. Raises InnerloopError unless it is one of those that a config may have."""
    return check_count(who, "seed", seed, int(SEED.low), int(SEED.high))


def schedule_of(
    who: str,
    *,
    meta_steps: object,
    log_every: object,
    checkpoint_every: object,
    validate_every: object,
    validation_tasks: object,
    validated: bool,
) -> Schedule:
    """The schedule of a run. Raises InnerloopError for numbers that are wrong, whether there is a validation or not."""
    every = count(who, "validate_every", validate_every)
    return Schedule(
        count(who, "meta_steps", meta_steps),
        count(who, "log_every", log_every),
        count(who, "checkpoint_every", checkpoint_every),
        every if validated else 0,
        count(who, "validation_tasks", validation_tasks, minimum=2),
    )


def check_call(who: str, params: Params, callbacks: object, **flags: object) -> None:
    """Raise InnerloopError if there are several processes, or one of these arguments is wrong."""
    _check_one_process(who)
    _check_parameters(who, params)
    check_callbacks(callbacks, who)
    for name, flag in flags.items():
        check_flag(who, name, flag)


def check_unvalidated(who: str, **settings: object) -> None:
    """Raise InnerloopError if one of these settings of a validation is given, for a run without one."""
    for name, value in settings.items():
        if value is not None:
            hint = "give held-out tasks as `validation`"
            raise InnerloopError(who, f"`{name}` needs a validation", hint=hint)


def _check_parameters(who: str, params: Params) -> None:
    """Raise InnerloopError unless these are float arrays without NaN and with unique paths."""
    check_trainable(params, who)
    for path, leaf in by_path(params).items():
        if np.isnan(np.asarray(leaf)).any():  # here, so that no loss or task is blamed for it
            wrong = f"parameter `{path}` holds NaN" if path else "the parameter array holds NaN"
            raise InnerloopError(who, wrong, hint="give parameters without NaN")
    names = paths(params)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InnerloopError(who, "two parameters share a path", got=twice[0], hint="rename one of them")


def _check_one_process(who: str) -> None:
    """Raise InnerloopError if there are several processes."""
    if multi_process.is_multi_process():
        hint = "use `innerloop.train`, `OuterLoop` or `MetaIterations` with several processes"
        raise InnerloopError(who, "runs in one process only", got=jax.process_count(), hint=hint)
