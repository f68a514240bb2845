"""What a run of `innerloop.fit` computes, as digests of its traced programs and of their data."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import PyTree

from innerloop.engine.algorithm import loss_key
from innerloop.engine.distribution import bits_of, with_jax_arrays
from innerloop.engine.evaluation.evaluate import Score
from innerloop.engine.jaxprs import constants_of
from innerloop.engine.meta_state import MetaState
from innerloop.engine.optimizer import apply_optimizer
from innerloop.engine.pytree import kinds
from innerloop.engine.types import Task, TaskDistribution
from innerloop.io.digests import sha256
from innerloop.tasks.iterator_loop import IteratorOuterLoop
from innerloop.tasks.streaming import StreamedEpisodes, StreamedOuterLoop
from innerloop.training.custom.supervised_run import SupervisedRun

ROWS = 64
"""The number of streamed examples that are compared: a memory map is too large to read completely."""

CHANGING = re.compile(r"0x[0-9a-f]+|\bat /\S+")
"""Parts of a program's text that may change although it computes the same: addresses and file names."""


def program_digest(fn: Callable[..., PyTree], *args: PyTree) -> str:
    """SHA-256 of the traced program of `fn(*args)` and its constants; arrays may be given as shapes.

    Two programs with the same digest compute the same on the same arguments. A step size in an optimiser, a constant in
    a loss, and an array in a distribution all appear in the trace of the function that reads them, wherever the user
    has put them.
    """
    traced = jax.make_jaxpr(lambda *args: fn(*args))(*args)
    text = CHANGING.sub("", "\n".join(_text(traced.jaxpr)))
    return sha256([text.encode(), *map(bits_of, constants_of(traced))]).hex()


def _text(jaxpr: jex.Jaxpr) -> Iterator[str]:
    """The equations of a program and, after each, those of the programs that it calls.

    JAX's own text names functions and depends on which of them JAX has traced before, and so holds only once.
    """
    numbers: dict[Any, int] = {}
    number = lambda x: "" if isinstance(x, jex.Literal) else numbers.setdefault(x, len(numbers))
    listed = lambda atoms: " ".join(f"{number(x)}:{x.aval}" for x in atoms)
    yield listed([*jaxpr.constvars, *jaxpr.invars])
    for equation in jaxpr.eqns:
        inner = lambda value: list(jex.jaxprs_in_params({"": value}))
        plain = {k: x for k, x in equation.params.items() if k != "name" and not inner(x)}
        yield f"{listed(equation.outvars)} = {equation.primitive.name} {plain} {listed(equation.invars)}"
        for called in jex.jaxprs_in_params(equation.params):
            yield from _text(called)
    yield listed(jaxpr.outvars)


def programs_of(run: SupervisedRun) -> dict[str, str]:
    """Digests of all programs of a run; tasks and algorithm are omitted if the tasks only come from an iterator."""
    state = run.first
    tasks = _training_tasks(run, state)
    found = {"optimizer": _optimizer(run, state)}
    if tasks is not None:
        task, found["tasks"] = tasks
        found["algorithm"] = _algorithm(run, state, task)
    if run.validation is not None:
        found["validation"] = _drawn(run.validation.tasks, state)
        if run.validation.score is not None:
            found["score"] = _scored(run, run.validation.tasks, run.validation.score, state)
    return found


def _training_tasks(run: SupervisedRun, state: MetaState) -> tuple[Task, str] | None:
    """The shapes of a task as the algorithm sees it, and a digest of the source of tasks."""
    loop = run.loop
    if isinstance(loop, StreamedOuterLoop):
        return jax.eval_shape(loop.prepare, _stored(loop.episodes, state)), _streamed(loop.episodes, state)
    if isinstance(loop, IteratorOuterLoop):
        first = loop.first()
        return first and (
            jax.eval_shape(lambda task: jax.tree.map(lambda x: x[0], task), first),
            _held(first),
        )
    return _shapes(run.tasks, state), _drawn(run.tasks, state)


def _stored(episodes: StreamedEpisodes, state: MetaState) -> Task:
    """The shapes of an episode as it is stored."""
    example, dtype = episodes.examples.shape[1:], episodes.examples.dtype
    inputs = lambda rows: jax.ShapeDtypeStruct((*rows.shape, *example), dtype)
    drawn = jax.eval_shape(episodes.sampler.sample, state.key)
    return Task(*(batch._replace(inputs=inputs(batch.inputs)) for batch in drawn))


def _streamed(episodes: StreamedEpisodes, state: MetaState) -> str:
    """A digest of the sampler with its classes, and of rows evenly spaced over the examples."""
    examples = episodes.examples
    rows = episodes.fetch(np.linspace(0, len(examples) - 1, min(ROWS, len(examples))).astype(int))
    kind = f"{program_digest(episodes.sampler.sample, state.key)} {examples.dtype}{examples.shape}"
    return sha256([kind.encode(), bits_of(rows)]).hex()


def _held(arrays: PyTree) -> str:
    """A digest of the arrays themselves."""
    return sha256([str(kinds(arrays)).encode(), *map(bits_of, jax.tree.leaves(arrays))]).hex()


def _shapes(tasks: TaskDistribution, state: MetaState) -> Task:
    return jax.eval_shape(with_jax_arrays(tasks).sample, state.key)


def _drawn(tasks: TaskDistribution, state: MetaState) -> str:
    return program_digest(with_jax_arrays(tasks).sample, state.key)


def _optimizer(run: SupervisedRun, state: MetaState) -> str:
    """A digest of the optimiser's initial state and of an update: a step size may be part of either."""
    zero, optimizer = jnp.zeros(()), run.loop.optimizer

    def both(grads: PyTree, moments: PyTree, params: PyTree) -> PyTree:
        return optimizer.init(params), apply_optimizer(
            optimizer, grads, moments, params, zero, lambda params: zero
        )

    return program_digest(both, state.params, state.opt_state, state.params)


def _algorithm(run: SupervisedRun, state: MetaState, task: Task) -> str:
    key = loss_key(state.key) if run.loop.algorithm.random else None
    meta_grad = lambda params, task, step: run.loop.algorithm.at(step).meta_grad(params, task, key=key)
    return program_digest(meta_grad, state.params, task, state.step)


def _scored(run: SupervisedRun, tasks: TaskDistribution, score: Score, state: MetaState) -> str:
    key = loss_key(state.key) if run.loop.algorithm.random else None
    adapt = lambda params, task: run.loop.algorithm.adapt(params, task.support, key=key)
    scored = lambda params, task: score(adapt(params, task), task)
    return program_digest(scored, state.params, _shapes(tasks, state))
