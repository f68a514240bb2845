"""Adaptation curves: the interval by hand, recorded steps, and tasks that depend on nothing but their number."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.algorithms.maml import MAML
from innerloop.engine.evaluation.curve import Curve, join
from innerloop.engine.evaluation.evaluate import evaluate, evaluator, steps_to_record
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError


@dataclass(frozen=True)
class Means:
    """Find a number: the support set holds it exactly."""

    def sample(self, key: jax.Array) -> Task:
        batch = Batch(jnp.zeros(1), jax.random.uniform(key, (1,)))
        return Task(batch, batch)


def loss(params: dict, batch: Batch) -> jax.Array:
    return jnp.mean(jnp.square(params["w"] - batch.targets)) / 2


def score(params: dict, task: Task) -> dict[str, jax.Array]:
    return {"distance": jnp.abs(params["w"] - task.query.targets[0]), "number": task.query.targets[0]}


PARAMS = {"w": jnp.zeros(())}
ALGORITHM = maml(loss, InnerLoop(optax.sgd(0.5), 4))
KEY = jax.random.key(0)


def curve(tasks: int = 10, record=None, **keywords) -> Curve:
    run = evaluator(ALGORITHM, Means(), score, num_tasks=tasks, record=record, **keywords)
    return join(list(run(PARAMS, KEY)))


def test_every_step_halves_the_distance():
    found = curve()
    assert found.steps == (0, 1, 2, 3, 4)
    expected = found.scores["number"][:, :1] * 0.5 ** np.arange(5)
    np.testing.assert_allclose(found.scores["distance"], expected, rtol=1e-5, atol=1e-7)


@dataclass(frozen=True)
class FromTheTask(MAML):
    """The meta-parameters hold no model: it starts at the support set's number, scaled."""

    def start(self, meta_params, support):
        return {"w": meta_params["scale"] * support.targets[0]}


def test_algorithm_may_start_from_support_set():
    algorithm = FromTheTask(loss, InnerLoop(optax.sgd(0.5), 1))
    found = evaluate(algorithm, {"scale": jnp.asarray(0.5)}, Means(), score, key=KEY, num_tasks=4)
    np.testing.assert_allclose(
        found.scores["distance"], found.scores["number"] * np.array([0.5, 0.25]), rtol=1e-5
    )


@dataclass(frozen=True)
class Streams(Means):
    """Tasks without a query set."""

    def sample(self, key: jax.Array) -> Task:
        return super().sample(key)._replace(query=None)


def test_tasks_without_query_set_require_score():
    with pytest.raises(InnerloopError, match="evaluate: these tasks have no query set; pass `score=`"):
        evaluate(ALGORITHM, PARAMS, Streams(), key=KEY, num_tasks=2)


@dataclass(frozen=True)
class Opposite:
    """The query set is the support set with the other sign."""

    def sample(self, key: jax.Array) -> Task:
        number = jax.random.uniform(key, (1,), minval=1.0)
        return Task(Batch(jnp.zeros(1), number), Batch(jnp.zeros(1), -number))


def test_evaluate_adapts_on_support_and_scores_on_query():
    """After k steps w = (1 - 2^-k) z, and the loss on the query is (w + z)^2 / 2."""
    both = lambda params, task: {"w": params["w"], "z": task.support.targets[0]}
    found = evaluate(ALGORITHM, PARAMS, Opposite(), both, key=KEY, num_tasks=4).scores
    np.testing.assert_allclose(found["w"], found["z"] * (1 - 0.5 ** np.arange(5)), rtol=1e-6)
    losses = evaluate(ALGORITHM, PARAMS, Opposite(), key=KEY, num_tasks=4).scores["loss"]
    np.testing.assert_allclose(losses, np.square(found["w"] + found["z"]) / 2, rtol=1e-5)


def test_confidence_interval_matches_hand_computation():
    """Numbers 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 over n - 1 = 3; t with 3 degrees is 3.18245."""
    found = Curve((0,), {"x": np.array([[1.0], [2.0], [3.0], [6.0]])})
    np.testing.assert_allclose(found.mean("x"), [3.0])
    np.testing.assert_allclose(found.ci95("x"), [3.182446305 * np.sqrt(14 / 3) / 2], rtol=1e-9)


def test_curve_repr_shows_means_intervals_and_tasks():
    scores = {"accuracy": np.array([[0.2, 0.9], [0.4, 0.7]]), "loss": np.array([[2.0, 1.0], [4.0, np.nan]])}
    assert repr(Curve((0, 5), scores)) == (
        "<Curve over 2 tasks: accuracy 30.00 ± 127.06 %, loss 3 ± 13 after 0 steps; "
        "accuracy 80.00 ± 127.06 %, loss nan ± nan after 5 steps; 1 of 2 tasks diverged>"
    )
    for empty in (Curve((), {}), Curve((0, 1), {}), Curve((0, 1), {"loss": np.zeros((0, 2))})):
        assert repr(empty) == "<Curve without scores>"


def test_record_selects_steps():
    found = curve(record=(0, 4, 2))
    assert found.steps == (0, 4, 2)
    np.testing.assert_array_equal(found.scores["distance"], curve().scores["distance"][:, [0, 4, 2]])


@pytest.mark.parametrize(
    "keywords",
    [
        {"batch_size": 3},
        {"batch_size": 4, "chunk": 2},
        {"batch_size": 1},
        {"chunk": 5},
        {"chunk": None},
        {"batch_size": 10, "chunk": 3},
    ],
)
def test_tasks_are_independent_of_batches_chunks_and_devices(keywords: dict):
    """A batch of 3 runs on one device, of 4 on two; the last batch is filled up and cut."""
    found = curve(**keywords)
    assert found.scores["number"].shape == (10, 5)
    np.testing.assert_array_equal(found.scores["number"], curve().scores["number"])


def test_larger_evaluation_extends_smaller_one():
    np.testing.assert_array_equal(curve(14).scores["number"][:10], curve(10).scores["number"])
    assert len(np.unique(curve(14).scores["number"][:, 0])) == 14


def test_evaluate_joins_the_batches():
    found = evaluate(ALGORITHM, PARAMS, Means(), score, key=KEY, num_tasks=10, record=(4,))
    np.testing.assert_array_equal(found.scores["distance"][:, 0], curve().scores["distance"][:, 4])
    other = evaluate(ALGORITHM, PARAMS, Means(), score, key=jax.random.key(1), num_tasks=10, record=(4,))
    assert (other.scores["number"] != found.scores["number"]).all()


@pytest.mark.parametrize(
    ("tasks", "record", "message"),
    [
        (1, None, "at least two tasks, got 1"),
        (5, (0, 5), "must lie in 0..4"),
        (5, (-1,), "must lie in 0..4"),
        (5, (), "must lie in 0..4"),
    ],
)
def test_invalid_arguments_raise(tasks: int, record, message: str):
    with pytest.raises(InnerloopError, match=message):
        curve(tasks, record)


def test_evaluation_within_transformation_raises():
    with pytest.raises(InnerloopError, match=r"evaluate: compiles itself.*`algorithm.trajectory`"):
        jax.jit(lambda key: evaluate(ALGORITHM, PARAMS, Means(), key=key, num_tasks=2))(KEY)


def test_zero_chunk_raises():
    with pytest.raises(InnerloopError, match="chunk"):
        curve(chunk=0)


def test_steps_to_record():
    assert steps_to_record(0) == (0,)
    assert steps_to_record(3) == (0, 1, 2, 3)
    assert steps_to_record(50) == (0, 1, 2, 3, 5, 10, 15, 20, 32, 50)
    assert steps_to_record(60)[-2:] == (50, 60)


def test_evaluator_is_traced_once_for_different_parameters():
    """Validation during training must not compile anew each time."""
    traced = []

    def counted(params: dict, task: Task) -> dict[str, jax.Array]:
        traced.append(1)
        return score(params, task)

    run = evaluator(ALGORITHM, Means(), counted, num_tasks=4)
    first = join(list(run(PARAMS, KEY)))
    after_first = len(traced)
    second = join(list(run({"w": jnp.ones(())}, KEY)))
    assert len(traced) == after_first
    assert not np.array_equal(first.scores["distance"], second.scores["distance"])
