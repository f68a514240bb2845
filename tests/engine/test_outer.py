"""Meta-steps: the same bits however they are dispatched, and the user's own arrays left alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.algorithms.maml import MAML
from innerloop.engine import meta_state
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer import outer_loop as outer
from innerloop.engine.outer import task_draws
from innerloop.engine.outer.counted_scan import scan_up_to
from innerloop.engine.types import TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import mean_squared_error
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks.sinusoid import Sinusoid

pytestmark = pytest.mark.optimised  # quickly compiled programs of several lengths round otherwise

OPTIMIZER = optax.adam(0.01)
ALGORITHM = maml(mean_squared_error(), InnerLoop(optax.sgd(0.01), 1))
WAVES = Sinusoid(3, 3)


def loop(meta_batch: int = 4, tasks: Any = WAVES, **keywords: Any) -> outer.OuterLoop:
    return outer.OuterLoop(ALGORITHM, OPTIMIZER, tasks, meta_batch=meta_batch, **keywords)


LOOP = loop()


def fresh() -> tuple[Any, meta_state.MetaState]:
    params = MLP(1, 1, hidden=(4,), key=jax.random.key(0))
    return params, LOOP.init(params, jax.random.key(1))


def same_bits(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = (jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z for z in (x, y))
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def six():
    """Six steps as one dispatch."""
    return LOOP.run(fresh()[1], 6)


def test_results_are_bit_identical_across_dispatch_lengths(six):
    """3 x 2 = 1 x 6 = 6, and every step is recorded."""
    state, info = six
    stepwise, seen = fresh()[1], []
    for _ in range(3):
        stepwise, part = LOOP.run(stepwise, 2)
        seen.append(part)
    same_bits(stepwise, state)
    same_bits(jax.tree.map(lambda *x: jnp.concatenate(x), *seen), info)
    assert int(state.step) == 6
    assert info.outer_loss.shape == info.grad_norm.shape == (6,)
    assert info.inner_losses.shape == (6, 1)


@pytest.mark.parametrize("chunk", [1, 2])
def test_meta_gradient_is_traced_once(chunk: int):
    traced = []

    class Counted(MAML):
        def meta_grad(self, meta_params, task, *, key=None):
            traced.append(chunk)
            return super().meta_grad(meta_params, task, key=key)

    algorithm = Counted(ALGORITHM.loss_fn, ALGORITHM.inner)
    counted = outer.OuterLoop(algorithm, OPTIMIZER, WAVES, meta_batch=4, chunk=chunk)
    state = counted.init(fresh()[0], jax.random.key(1))
    traced.clear()
    counted.run(state, 2)
    assert traced == [chunk]


CUTS = [(1, 5), (2, 2, 2), (5, 1), (6,)]


def cut(many: outer.OuterLoop, cuts: tuple[int, ...]) -> tuple[meta_state.MetaState, Any]:
    """The last state and all records of a run in parts."""
    state, seen = fresh()[1], []
    for steps in cuts:
        state, info = many.run(state, steps, max_steps=6)
        seen.append(info)
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), *seen)


def test_max_steps_shares_one_program_across_lengths(monkeypatch: pytest.MonkeyPatch):
    """However a run is cut: the same bits and records."""
    monkeypatch.setattr(task_draws, "AHEAD_BYTES", 0)
    many, whole = loop(), loop().run(fresh()[1], 6)
    for cuts in CUTS:
        same_bits(cut(many, cuts), whole)
        assert many.granularity(whole[0].key, 6) == 1
        assert list(many.programs) == [6]


def test_drawing_tasks_ahead_compiles_one_program_per_length(six):
    many, lengths = loop(), []
    for cuts in CUTS:
        same_bits(cut(many, cuts), six)
        assert many.granularity(six[0].key, 6) == 6
        lengths += cuts
        assert list(many.programs) == list(dict.fromkeys(lengths))


def test_run_beyond_max_steps_compiles_its_own_program(six):
    found = loop()
    same_bits(found.run(fresh()[1], 6, max_steps=4), six)
    assert list(found.programs) == [6]


def test_scan_up_to_stops_at_traced_length():
    """The rows beyond its length are zeros, of the types of the others."""
    body = lambda carry, _: (carry + 2, {"carry": carry, "flag": carry > 4})
    run = jax.jit(lambda count: scan_up_to(body, jnp.int32(1), count, 5))
    for count in range(6):
        carry, rows = run(count)
        assert int(carry) == 1 + 2 * count
        assert rows["carry"].tolist() == [1 + 2 * i for i in range(count)] + [0] * (5 - count)
        assert rows["flag"].tolist() == [1 + 2 * i > 4 for i in range(count)] + [False] * (5 - count)


def test_repeated_runs_are_bit_identical(six):
    same_bits(loop().run(fresh()[1], 6), six)


def test_run_does_not_modify_user_parameters(six):
    params, state = fresh()
    LOOP.run(LOOP.run(state, 1)[0], 1)
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(params))
    same_bits(params, fresh()[0])
    assert any(
        np.any(np.asarray(a) != np.asarray(b))
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(six[0].params), strict=True)
    )


def test_consumed_state_raises(six):
    """In words, and not by an error from within JAX."""
    first, _ = LOOP.run(fresh()[1], 1)
    LOOP.run(first, 1)
    with pytest.raises(InnerloopError, match="was consumed by an earlier run; continue with the state"):
        LOOP.run(first, 1)


def test_parameters_of_consumed_state_raise():
    """Of whatever reads them: an evaluation with the parameters that `run` was given, for example."""
    params = jax.tree.map(jnp.copy, fresh()[1].params)
    jax.tree.map(lambda x: x.delete(), params)
    task = WAVES.sample(jax.random.key(0))
    for read in (
        lambda: ALGORITHM.adapt(params, task.support),
        lambda: evaluate(ALGORITHM, params, WAVES, key=jax.random.key(0)),
        lambda: LOOP.init(params, jax.random.key(0)),
    ):
        with pytest.raises(InnerloopError, match="were donated to an earlier call.*keep a copy"):
            read()


def test_run_within_transformation_raises():
    """It compiles itself, and JAX's error was about an array that is deleted."""
    stacked = jax.tree.map(lambda x: x[None], fresh()[1])
    for traced in (
        lambda: jax.jit(lambda _: LOOP.run(fresh()[1], 1))(1.0),
        lambda: jax.vmap(lambda state: LOOP.run(state, 1))(stacked),
    ):
        with pytest.raises(InnerloopError, match=r"OuterLoop.run: compiles itself.*`algorithm.meta_grad`"):
            traced()


def test_run_beside_variables_of_transformation():
    """What does not depend on them has values there."""
    found = []
    jax.vmap(lambda x: (found.append(LOOP.run(fresh()[1], 1)[1].outer_loss), x)[1])(jnp.ones(1))
    assert found == [LOOP.run(fresh()[1], 1)[1].outer_loss]


def test_zero_steps_raise():
    with pytest.raises(InnerloopError, match="`steps` must be 1 or more, got 0"):
        LOOP.run(fresh()[1], 0)


def test_first_step_matches_optimizer_update(six):
    """The first step by hand: mean gradient over the four tasks, Adam's update, the recorded norm."""
    params, state = fresh()
    keys = jax.random.split(jax.random.fold_in(state.key, 0), 4)
    grads = jax.jit(jax.vmap(lambda key: ALGORITHM.meta_grad(params, Sinusoid(3, 3).sample(key))[0]))(keys)
    mean = jax.tree.map(lambda g: g.mean(0), grads)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(mean)))
    np.testing.assert_allclose(six[1].grad_norm[0], norm, rtol=1e-5)
    updates, _ = OPTIMIZER.update(mean, state.opt_state, params)
    once = LOOP.run(state, 1)[0]
    for a, b in zip(
        jax.tree.leaves(once.params), jax.tree.leaves(optax.apply_updates(params, updates)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_each_step_draws_new_tasks(six):
    losses = np.asarray(six[1].outer_loss)
    assert len(np.unique(losses)) == 6


def test_task_mesh_sizes():
    assert task_mesh(4).size == 2
    assert task_mesh(3).size == 1  # 3 tasks do not split evenly over 2 devices
    assert task_mesh(4, jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("meta_batch", "chunk", "message"),
    [
        (4, 3, "multiple of devices x chunk, got 4 tasks on . devices in chunks of 3"),
        (0, None, "`meta_batch` must be 1 or more, got 0"),
        (4, 0, "`chunk` must be 1 or more, got 0"),
        (4, -1, "`chunk` must be 1 or more, got -1"),
    ],
)
def test_invalid_meta_batch_or_chunk_raises(meta_batch: int, chunk: int | None, message: str):
    with pytest.raises(InnerloopError, match=message):
        loop(meta_batch, chunk=chunk)


def test_init_refuses_integers():
    with pytest.raises(InnerloopError, match="init: parameter `n` is not a float array"):
        LOOP.init({"n": jnp.arange(2)}, jax.random.key(0))


def test_distributions_compare_by_value():
    assert dataclasses.replace(Sinusoid(3, 3), shots=4) == Sinusoid(4, 3)


@dataclasses.dataclass(frozen=True)
class Apart(TwoStageSampler):
    """Waves whose key is drawn apart from the rest."""

    waves: Sinusoid = Sinusoid(3, 3)

    def draw(self, key):
        return {"key": key}

    def fetch(self, drawn):
        return self.waves.sample(drawn["key"])


class OwnSample(Apart):
    def sample(self, key):
        return self.waves.sample(jax.random.fold_in(key, 1))


class Forwarding:
    """Not drawn apart, though it finds `draw` and `fetch` where it looks for what it has not."""

    def __init__(self):
        self.inside = Apart()

    def __getattr__(self, name):
        return getattr(self.inside, name)

    def sample(self, key):
        return OwnSample().sample(key)


@pytest.mark.parametrize("chunk", [1, 2])
def test_two_stage_sampling_does_not_change_results(monkeypatch, chunk):
    """Where tasks are too large to be kept: drawn at once and fetched one after the other."""
    monkeypatch.setattr(task_draws, "AHEAD_BYTES", 0)
    same_bits(loop(tasks=Apart(), chunk=chunk).run(fresh()[1], 2), loop(chunk=chunk).run(fresh()[1], 2))


def test_draw_and_fetch_splits_two_stage_samplers():
    """All of a task comes of what was drawn, unless a class has a `sample` of its own."""
    key = jax.random.key(0)
    draw, fetch = task_draws.draw_and_fetch(Apart())
    assert draw(key) == {"key": key}
    same_bits(fetch(draw(key)), Sinusoid(3, 3).sample(key))
    for other in (Sinusoid(3, 3), OwnSample(), Forwarding()):
        draw, fetch = task_draws.draw_and_fetch(other)
        assert draw(key) is key
        same_bits(fetch(key), other.sample(key))
