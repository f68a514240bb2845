"""Objects made anew in a loop, as in a notebook: compiled once, and nothing is kept of the calls."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import fomaml, maml, reptile
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, Task
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import mean_squared_error, squared_error
from innerloop.parallel.compile_once import PROGRAMS, _compiled, _value, compile_once
from innerloop.tasks.sinusoid import Sinusoid

PARAMS = MLP(1, 1, hidden=(3,), key=jax.random.key(0))
X = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
TASK = Task(Batch(X, np.sin(X)), Batch(X, np.cos(X)))


def new(make: Callable[..., Algorithm] = maml, steps: int = 2) -> Algorithm:
    """Nothing in it is an object that was there before."""
    apply = lambda params, x: params(x)
    return make(mean_squared_error(apply), InnerLoop(optax.sgd(0.1), steps))


def learn() -> np.ndarray:
    return Learner(PARAMS, new()).fit(TASK.support.inputs, TASK.support.targets).predict(X)


def curve() -> np.ndarray:
    return evaluate(new(), PARAMS, Sinusoid(3, 3), key=jax.random.key(0), num_tasks=4).mean("loss")


CALLS: dict[str, Callable[[], Any]] = {
    "adapt": lambda: new().adapt(PARAMS, TASK.support),
    "adapt-unhashable": lambda: new().with_inner(select=["body", "head"]).adapt(PARAMS, TASK.support),
    "meta_grad": lambda: new().meta_grad(PARAMS, TASK),
    "meta_grad-fomaml": lambda: new(fomaml).meta_grad(PARAMS, TASK),
    "meta_grad-reptile": lambda: new(reptile).meta_grad(PARAMS, TASK),
    "evaluate": curve,
    "learner": learn,
}


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("name", CALLS)
def test_repeated_calls_do_not_recompile(name: str, compilations: list[str]):
    call, calls = CALLS[name], 10
    first = again = call()
    compilations.clear()
    before = resident()
    for _ in range(calls - 1):
        again = call()
    assert not compilations
    jax.tree.map(np.testing.assert_array_equal, again, first)
    assert resident() - before < 1e6 * calls  # a compiled program each would be 2 to 6 MB a call


def test_the_first_call_compiles_one_program(compilations: list[str]):
    new(steps=3).adapt(PARAMS, TASK.support)
    assert len(compilations) == 1
    longer = jax.tree.map(lambda x: np.concatenate([x, x]), TASK.support)
    new(steps=3).adapt(PARAMS, longer)
    assert len(compilations) == 2  # of another shape


def test_methods_are_inlined_under_transformations():
    """No program within the program: the equations are those of the plain method."""
    algorithm = new()
    plain = lambda params, support: algorithm.trajectory(params, support).adapted
    for lift in (lambda f: f, jax.jit, lambda f: jax.vmap(f, (None, None), axis_size=2)):
        traced = [jax.make_jaxpr(lift(f))(PARAMS, TASK.support) for f in (plain, algorithm.adapt)]
        assert str(traced[0]).replace("<lambda>", "adapt") == str(traced[1]).replace("<lambda>", "adapt")


SCALE = 1.0


def test_global_read_by_loss_is_refreshed_at_each_call(monkeypatch: pytest.MonkeyPatch):
    """A global that a notebook's next cell sets anew."""
    loss = lambda params, batch: SCALE * squared_error(params(batch.inputs), batch.targets)
    algorithm = maml(loss, InnerLoop(optax.sgd(0.1), 1))
    moved = lambda: np.asarray(algorithm.adapt(PARAMS, TASK.support).head.bias - PARAMS.head.bias)
    once = moved()
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    np.testing.assert_allclose(moved(), 2 * once, rtol=1e-6)
    monkeypatch.setitem(globals(), "SCALE", jnp.asarray(3.0))
    np.testing.assert_allclose(moved(), 3 * once, rtol=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x * 2.0, lambda x: x * 3.0),
        (lambda x: x * 0.0, lambda x: x * -0.0),
        (lambda x: x + np.arange(2.0, dtype=np.float32), lambda x: x + np.array([0.0, 2.0], np.float32)),
        (lambda x: x[0] - x[1], lambda x: x[1] - x[0]),
        (
            lambda x: jax.lax.cond(x[0] > 5, jnp.sin, jnp.cos, x),
            lambda x: jax.lax.cond(x[0] > 5, jnp.cos, jnp.sin, x),
        ),
        (lambda x: jax.nn.relu(x - 5), lambda x: jax.nn.elu(x - 5)),
        (lambda x: jax.pure_callback(lambda x: x, x, x), lambda x: jax.pure_callback(lambda x: x + 1, x, x)),
        (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
        (lambda x: {"a": x}, lambda x: {"b": x}),
    ],
)
def test_different_functions_get_different_programs(one: Callable, other: Callable):
    """As `jax.jit` computes it, for both of a pair, in either order."""
    x = jnp.array([1.5, 2.5])
    for function in (one, other, one):
        found, wanted = compile_once(function)(x), jax.jit(function)(x)
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == b.dtype
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_custom_derivative_rules_do_not_trigger_recompilation(compilations: list[str]):
    """`relu` and a custom gradient have rules that are traced anew each time."""

    def run() -> jax.Array:
        double = jax.custom_vjp(lambda x: 2 * x)
        double.defvjp(lambda x: (2 * x, None), lambda kept, bar: (bar,))
        return compile_once(lambda x: jax.grad(lambda x: double(jax.nn.relu(x)))(x) + double(jax.nn.relu(x)))(
            3.0
        )

    assert run() == 7.0
    compilations.clear()
    assert run() == 7.0
    assert not compilations


def test_closed_over_arrays_become_arguments(compilations: list[str]):
    """Those of a loss that closes over data: other data compile nothing and are read."""
    held = jax.device_put([np.ones(2), np.full(2, 5.0)])
    found = [compile_once(lambda x, y=y: x + y)(1.0) for y in held]
    np.testing.assert_array_equal(np.stack(found), [[2.0, 2.0], [6.0, 6.0]])
    assert len(compilations) == 1


def test_value_key_distinguishes_equal_python_numbers():
    values = (1, 1.0, True, 0.0, -0.0, 0, False)
    assert len({_value(x) for x in values}) == len(values)


def test_program_cache_is_bounded():
    assert _compiled.cache_info().maxsize == PROGRAMS
