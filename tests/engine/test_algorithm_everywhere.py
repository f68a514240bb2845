"""Every algorithm adapts as it is defined wherever it is used: in `evaluate`, in `Learner`, in training."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.config.schema import InnerConfig
from innerloop.config.specs import ALGORITHMS, AlgorithmSpec
from innerloop.engine.algorithm import Algorithm, described
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.outer.persistent_adam import FIRST, persistent_adam
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn.losses import BatchLoss, binary_cross_entropy, mean_squared_error

RATE, STEPS, EACH = 0.1, 3, 2
KEY = jax.random.key(0)


def apply(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["body"] + params["context"]) @ params["head"]


def outer_measure(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(outputs - targets))


LOSS, OUTER = mean_squared_error(apply), BatchLoss(outer_measure, apply)
EVERY = [spec for spec in ALGORITHMS.values() if not spec.classes]
SETTINGS = InnerConfig(learning_rate=RATE, proximal=0.5)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


PARAMS = {"body": draw(3, 4), "head": draw(4, 2), "context": jnp.zeros(4)}
"""A context that is added to the features."""


class Tasks:
    """Random regressions of six examples."""

    def sample(self, key: jax.Array) -> Task:
        x, y, slope = (jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 3), SHAPES, strict=True))
        return Task(Batch(x[:6], jnp.sin(x[:6] @ slope)), Batch(x[6:], jnp.sin(x[6:] @ slope) + 0.1 * y))


SHAPES = ((10, 3), (4, 2), (3, 2))
sample = jax.jit(Tasks().sample)


def made(spec: AlgorithmSpec, **inner: Any) -> Algorithm:
    rule = inner.pop("rule", optax.sgd(1.0 if spec.learns_rates else RATE))
    return spec.make(LOSS, InnerLoop(rule, STEPS, **inner), outer_loss_fn=OUTER, settings=SETTINGS)


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_algorithm_attributes_match_spec(spec: AlgorithmSpec):
    facts = ("second_order", "reads_query", "adapts_in_training")
    kind = type(made(spec))
    assert [getattr(kind, name) for name in facts] == [getattr(spec, name) for name in facts]


def moved_by(spec: AlgorithmSpec) -> tuple[str, ...]:
    every = {"all": ("body", "head", "context"), "body": ("body", "context")}
    return every.get(spec.adapts, (spec.adapts,))


class ByHand(NamedTuple):
    thetas: list[dict]
    support_losses: jax.Array
    query_losses: jax.Array


@functools.cache
def definition(name: str, minibatch: int | None) -> Callable[[Task], ByHand]:
    """theta_0 .. theta_k: gradient descent of what the definition moves, written out; iMAML's with its pull."""
    spec = ALGORITHMS[name]
    pull = SETTINGS.proximal if "proximal" in spec.settings else 0.0

    def found(task: Task) -> ByHand:
        thetas, losses = [PARAMS], []
        for i in range(STEPS):
            rows = [(i * EACH + j) % 6 for j in range(EACH)] if minibatch else list(range(6))
            batch = jax.tree.map(lambda x, rows=tuple(rows): x[np.array(rows)], task.support)
            loss, grads = jax.value_and_grad(LOSS)(thetas[-1], batch)
            grads = {k: g + pull * (thetas[-1][k] - PARAMS[k]) for k, g in grads.items()}
            now = {k: w - RATE * grads[k] if k in moved_by(spec) else w for k, w in thetas[-1].items()}
            thetas.append(now)
            losses.append(loss)
        outer = OUTER if spec.reads_query else LOSS
        return ByHand(thetas, jnp.stack(losses), jnp.stack([outer(theta, task.query) for theta in thetas]))

    return jax.jit(found)


def by_hand(spec: AlgorithmSpec, task: Task, minibatch: int | None = None) -> ByHand:
    return definition(spec.name, minibatch)(task)


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5), a, b)


CASES = [*((spec, None) for spec in EVERY), (ALGORITHMS["reptile"], EACH), (ALGORITHMS["anil"], EACH)]


@pytest.mark.parametrize(("spec", "minibatch"), CASES, ids=str)
def test_evaluate_matches_algorithm_definition(spec: AlgorithmSpec, minibatch: int | None):
    """Scored after every step, on the tasks that the key decides; the reported loss is the algorithm's own."""
    algorithm = made(spec, minibatch=minibatch)
    curve = evaluate(algorithm, algorithm.init(PARAMS), Tasks(), key=KEY, num_tasks=2)
    for number in range(2):
        task = sample(jax.random.fold_in(KEY, number))
        close(curve.scores["loss"][number], by_hand(spec, task, minibatch).query_losses)


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_learner_matches_algorithm_definition(spec: AlgorithmSpec):
    """ANIL's body stands still, and BOIL's head; no second loss or inner loop is there to say otherwise."""
    task = sample(KEY)
    algorithm = made(spec)
    learner = Learner(algorithm.init(PARAMS), algorithm).fit(task.support.inputs, task.support.targets)
    assert not learner.classification
    for part in PARAMS:
        assert np.array_equal(learner.params_[part], PARAMS[part]) == (part not in moved_by(spec))
    found = by_hand(spec, task)
    close(learner.params_, found.thetas[-1])
    close(learner.losses_, found.support_losses)
    close(learner.predict(task.query.inputs), apply(found.thetas[-1], task.query.inputs))


def test_learner_minibatches_visit_shuffled_examples():
    """In an order of its own, since people sort by class."""
    task, spec = sample(KEY), ALGORITHMS["reptile"]
    learner = Learner(PARAMS, made(spec, minibatch=EACH)).fit(task.support.inputs, task.support.targets)
    order = np.random.default_rng(0).permutation(6)
    shuffled = task._replace(support=jax.tree.map(lambda x: x[order], task.support))
    close(learner.params_, by_hand(spec, shuffled, EACH).thetas[-1])


@jax.jit
def with_moments_by_hand(support: Batch, moments: dict) -> tuple[dict, dict]:
    theta = PARAMS
    for _ in range(STEPS):
        grads = jax.grad(LOSS)(theta, support)
        moments = {k: 0.999 * moments[k] + 0.001 * grads[k] ** 2 for k in moments}
        theta = {k: theta[k] - RATE * grads[k] / (jnp.sqrt(moments[k]) + 1e-8) for k in theta}
    return theta, moments


def test_reptile_moments_are_meta_parameters():
    """`init` adds them, training learns them, adaptation begins with them, and what is adapted is the model alone."""
    algorithm = made(ALGORITHMS["reptile"], rule=persistent_adam(RATE))
    loop = OuterLoop(algorithm, optax.sgd(1.0), Tasks(), meta_batch=1)
    state = loop.init(PARAMS, KEY)
    close(algorithm.initialization(state.params), PARAMS)
    first = {k: jnp.full_like(w, FIRST) for k, w in PARAMS.items()}
    close(state.params.moments, first)
    task = sample(jax.random.key(5))
    theta, _ = with_moments_by_hand(task.support, first)
    close(Learner(state.params, algorithm).fit(task.support.inputs, task.support.targets).params_, theta)
    curve = evaluate(algorithm, state.params, Tasks(), key=KEY, num_tasks=2)
    own = sample(jax.random.fold_in(KEY, 0))
    close(curve.scores["loss"][0, -1], LOSS(with_moments_by_hand(own.support, first)[0], own.query))
    learnt = loop.run(state, 1)[0].params
    drawn = sample(jax.random.split(jax.random.fold_in(KEY, 0), 1)[0])
    theta, moments = with_moments_by_hand(drawn.support, first)
    close((learnt.model, learnt.moments), (theta, moments))


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_with_inner_keeps_algorithm_and_losses(spec: AlgorithmSpec):
    algorithm = made(spec)
    longer = algorithm.with_inner(steps=7)
    assert type(longer) is type(algorithm)
    assert (longer.inner.steps, longer.inner.select) == (7, algorithm.inner.select)
    assert (longer.loss_fn, longer.outer_loss_fn) == (algorithm.loss_fn, algorithm.outer_loss_fn)
    assert algorithm.inner.steps == STEPS


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_described_names_algorithm(spec: AlgorithmSpec):
    """As its constructor does; BOIL and ANIL, too, which are MAML with a selection."""
    told = described(made(spec))
    name = str(told["algorithm"]).lower().replace("plusplus", "++").replace("metasgd", "meta-sgd")
    assert name in spec.title.lower().split()[0]
    selected = {"body": "all but head"}.get(spec.adapts, spec.adapts)
    assert (told["inner_steps"], told["adapts"]) == (STEPS, selected)
    assert told["inner_step_size"] == (1.0 if spec.learns_rates else RATE)
    assert ("rates" in told) == spec.learns_rates


@pytest.mark.parametrize("spec", EVERY, ids=lambda spec: spec.name)
def test_meta_grad_reports_outer_loss(spec: AlgorithmSpec):
    task = sample(KEY)
    algorithm, found = made(spec), by_hand(spec, task)
    info = jax.jit(algorithm.meta_grad)(algorithm.init(PARAMS), task)[1]
    trained = found.query_losses[-1 if spec.adapts_in_training else 0]
    close(info.outer_loss, trained if spec.reads_query else found.support_losses[-1])


def test_learner_rejects_loss_without_model():
    opaque = lambda params, batch: LOSS(params, batch)
    with pytest.raises(InnerloopError, match=r"does not expose its model, got .*; use .*BatchLoss"):
        Learner(PARAMS, ALGORITHMS["anil"].make(opaque, InnerLoop(optax.sgd(RATE), STEPS)))


def test_learner_supports_binary_classification_with_one_output():
    """The binary loss of the outputs in use is the algorithm's own."""
    params, loss = PARAMS | {"head": PARAMS["head"][:, :1]}, binary_cross_entropy(apply)
    algorithm = ALGORITHMS["anil"].make(loss, InnerLoop(optax.sgd(RATE), STEPS))
    x, y = draw(6, 3), np.arange(6) % 2
    close(
        Learner(params, algorithm).fit(x, y).params_, jax.jit(algorithm.adapt)(params, Batch(x, y[:, None]))
    )


def test_loss_error_reports_data_shapes():
    """Not those of the parameters, which come first."""

    def loss(params: Any, batch: Any) -> Any:
        raise TypeError("of the loss")

    algorithm, params = maml(loss, InnerLoop(optax.sgd(0.1))), {"w": jnp.ones((2, 1))}
    with pytest.raises(InnerloopError, match=r"\(of the loss\), got a batch of float32\[5,2\]; give"):
        algorithm.adapt(params, jnp.ones((5, 2)))
    with pytest.raises(InnerloopError, match=r"\(of the loss\), got a batch of float32\[5,2\]; give"):
        algorithm.meta_grad(params, Task(jnp.ones((5, 2)), jnp.ones((3, 2))))


def test_missing_argument_error_names_method():
    algorithm: Any = maml(LOSS, InnerLoop(optax.sgd(RATE)))
    with pytest.raises(TypeError, match=r"adapt\(\): missing a required argument: 'support'"):
        algorithm.adapt(PARAMS)
