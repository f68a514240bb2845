"""Known before anything is compiled: outputs for the classes, shapes that fit, a loss that can be learnt."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import anil, boil, fomaml, joint, maml, meta_sgd, protomaml, reptile
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.jaxprs import dependent
from innerloop.engine.losses.loss import Loss
from innerloop.engine.losses.loss_errors import loss_errors
from innerloop.engine.meta_state import MetaState
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.task_list import TaskList
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.episodes import Episodes

KEY = jax.random.key(0)
ROWS = [np.full((4, 2, 3, 1), i, np.float32) for i in range(6)]
EPISODES = Episodes(ClassArrays.from_lists(ROWS, list("abcdef")), ways=5, shots=1, queries=2)
INNER = InnerLoop(optax.sgd(0.1), 2)


def model(inputs: int = 6, outputs: int = 5) -> MLP:
    return MLP(inputs, outputs, hidden=(3,), key=KEY)


def start(algorithm: Any, params: Any, tasks: Any = EPISODES) -> MetaState:
    return OuterLoop(algorithm, optax.sgd(0.1), tasks, meta_batch=2).init(params, KEY)


def test_head_with_too_few_outputs_raises():
    """By the episodes' classes before training; by the labels themselves where only the data tell."""
    for call in (
        start,
        lambda algorithm, params: evaluate(algorithm, params, EPISODES, key=KEY, num_tasks=2),
    ):
        with pytest.raises(
            InnerloopError, match="the model has 3 outputs for 5 classes; give its head as many"
        ):
            call(maml(cross_entropy(), INNER), model(outputs=3))
    algorithm, support = maml(cross_entropy(), INNER), Batch(jnp.ones((3, 6)), jnp.array([0, 1, 4]))
    with pytest.raises(
        InnerloopError, match=r"step 0, at the loss \(the model has 3 outputs, but a target is 4\)"
    ):
        algorithm.adapt(model(outputs=3), support)
    start(algorithm, model(outputs=7))


@pytest.mark.parametrize("label", [-1.0, 3.0, 0.5])
def test_invalid_class_labels_give_nan_loss_and_gradient(label: float):
    """Loss and gradient are NaN, so that nothing goes on where no error can be raised."""
    batch = Batch(jnp.ones((3, 6)), jnp.array([0.0, label, 1.0]))
    value, grads = jax.jit(jax.value_and_grad(cross_entropy()))(model(outputs=3), batch)
    assert np.isnan(value)
    assert all(np.isnan(x).all() for x in jax.tree.leaves(grads.head))
    assert np.isfinite(cross_entropy()(model(outputs=3), batch._replace(targets=jnp.array([0.0, 2.0, 1.0]))))


@pytest.mark.parametrize("label", [-1, 2])
def test_non_binary_labels_raise(label: int):
    """They would give a loss without a bound."""
    batch = Batch(jnp.ones((2, 6)), jnp.array([[1], [label]]))
    algorithm = maml(binary_cross_entropy(), INNER)
    with pytest.raises(InnerloopError, match=r"at the loss \(the targets range from (-1 to 1|1 to 2)\)"):
        algorithm.adapt(model(outputs=1), batch)
    assert np.isfinite(
        binary_cross_entropy()(model(outputs=1), batch._replace(targets=jnp.array([[0.0], [0.3]])))
    )


def test_mismatched_feature_count_raises():
    got = (
        r"loss_fn: cannot be computed \(.*\), got a batch of float32\[5,2,3,1\], int32\[5\]; give the shapes"
    )
    algorithm = maml(cross_entropy(), INNER)
    task = EPISODES.sample(KEY)
    with pytest.raises(InnerloopError, match=got):
        start(algorithm, model(4))
    with pytest.raises(InnerloopError, match=got):
        evaluate(algorithm, model(4), EPISODES, key=KEY, num_tasks=2)
    with pytest.raises(InnerloopError, match=got):
        algorithm.adapt(model(4), task.support)
    with pytest.raises(InnerloopError, match="loss_fn: cannot be computed"):
        jax.jit(algorithm.adapt)(model(4), task.support)
    outer = maml(cross_entropy(), INNER, outer_loss_fn=cross_entropy())
    for who, one in {"loss_fn": algorithm, "outer_loss_fn": outer}.items():
        with pytest.raises(InnerloopError, match=f"^{who}: cannot be computed"):
            one.meta_grad(model(), task._replace(query=task.query._replace(inputs=task.query.inputs[:, :1])))


INNER_CALL: Any = lambda key: 0.0
LINE = Task((jnp.ones((4, 2)), jnp.ones((4, 1))), (jnp.ones((3, 2)), jnp.ones((3, 1))))
MASKED = Batch(jnp.ones((8, 6)), jnp.ones((8, 1)), [True] * 8)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("loss_fn", "told"),
    [
        (lambda p, b, key: 0.0, r"declare that it takes a key: Loss\(fn, random=True\)"),
        (lambda p, b, *, state: 0.0, r"declare the state that it starts from: Loss\(fn, state=...\)"),
        (lambda p, x, y: 0.0, r"it is called as loss_fn\(params, batch\)"),
        (lambda p: 0.0, r"it is called as loss_fn\(params, batch\)"),
        (lambda p, b: INNER_CALL(), r"give the shapes and the structure that it expects"),
    ],
)
def test_loss_with_wrong_signature_raises(loss_fn: Any, told: str):
    """The same is said of an outer loss, by its own name."""
    params = {"w": jnp.ones(())}
    with pytest.raises(InnerloopError, match=f"^loss_fn: cannot be computed .*; {told}"):
        jax.jit(maml(loss_fn, INNER).adapt)(params, LINE.support)
    square = lambda p, b: jnp.mean((p["w"] * b[0] - b[1]) ** 2)
    with pytest.raises(InnerloopError, match=f"^outer_loss_fn: cannot be computed .*; {told}"):
        maml(square, INNER, outer_loss_fn=loss_fn).meta_grad(params, LINE)


def line(p: Any, b: Any) -> jax.Array:
    return jnp.mean((b[0] @ p["w"] - b[1]) ** 2)


WEIGHTS = {"w": jnp.ones((2, 1))}


@pytest.mark.parametrize(
    ("params", "data", "told"),
    [
        (WEIGHTS, Task(LINE.support, MASKED), "pass the support set alone, `task.support`"),
        (meta_sgd(line, INNER).init(WEIGHTS), LINE.support, "without step sizes, `meta_params.model`"),
        (
            {"w": jnp.ones((4, 1))},
            (jnp.ones((3, 4, 2)), jnp.ones((3, 4, 1))),
            "that it expects; use jax.vmap if these are several tasks",
        ),
        (WEIGHTS, MASKED, r"True, \.\.\.; give the mask as an array, np.asarray\(mask\)"),
    ],
    ids=["a task", "step sizes", "several tasks", "a list for a mask"],
)
def test_adapt_rejects_invalid_arguments(params: Any, data: Any, told: str):
    with pytest.raises(InnerloopError, match=told):
        maml(line, INNER).adapt(params, data)


def test_positional_key_raises():
    with pytest.raises(TypeError, match=r"adapt\(\): too many positional arguments; give `key` by name"):
        maml(line, INNER).adapt(WEIGHTS, LINE.support, KEY)  # pyright: ignore[reportCallIssue]


class Lines(NamedTuple):
    """Slopes; support and query are pairs."""

    def sample(self, key: jax.Array) -> Task:
        x = jax.random.normal(key, (4, 1))
        return Task((x, 2 * x), (x + 1, 2 * x + 2))


def squares(outputs: jax.Array, batch: Any) -> jax.Array:
    return jnp.mean((outputs - batch[1]) ** 2)


PARAMS = {"w": jnp.ones((1, 1)), "unused": jnp.ones(3)}
CONSTANT: dict[str, Callable[[Any, Any], jax.Array]] = {
    "other parameters": lambda p, b: squares(b[0] * 3.0, b),
    "stop_gradient": lambda p, b: squares(b[0] @ jax.lax.stop_gradient(p["w"]), b),
    "rounded": lambda p, b: squares(b[0] @ jnp.round(p["w"]), b),
    "argmax": lambda p, b: squares(b[0] * jnp.argmax(p["w"]).astype(float), b),
    "no data": lambda p, b: jnp.sum(p["w"]),
    "another selection": lambda p, b: squares(b[0] @ p["w"], b),
}


@pytest.mark.parametrize("make", [maml, fomaml, reptile])
@pytest.mark.parametrize("name", CONSTANT)
def test_constant_loss_raises(make: Any, name: str):
    inner = InnerLoop(optax.sgd(0.1), 2, select="unused" if name == "another selection" else None)
    algorithm = make(CONSTANT[name], inner)
    on = "the support set, so" if name == "no data" else "the parameters that the inner loop"
    with pytest.raises(InnerloopError, match=f"OuterLoop: the loss does not depend on {on}"):
        start(algorithm, PARAMS, Lines())
    with pytest.raises(InnerloopError, match="evaluate: the loss does not depend"):
        evaluate(algorithm, PARAMS, Lines(), key=KEY, num_tasks=2)


@pytest.mark.parametrize("make", [maml, fomaml, joint])
def test_constant_query_loss_raises(make: Any):
    right = lambda p, b: squares(b[0] @ p["w"], b)
    start(make(right, INNER), PARAMS, Lines())
    wrong = make(right, INNER, outer_loss_fn=CONSTANT["rounded"])
    with pytest.raises(
        InnerloopError, match="OuterLoop: the loss on the query set does not depend on the parameters"
    ):
        start(wrong, PARAMS, Lines())


def test_zero_inner_steps_or_missing_query_set_is_accepted():
    """Neither is a fault."""
    state = start(
        maml(
            CONSTANT["rounded"],
            InnerLoop(optax.sgd(0.1), 0),
            outer_loss_fn=lambda p, b: squares(b[0] @ p["w"], b),
        ),
        PARAMS,
        Lines(),
    )
    assert state.step == 0

    class Half(Lines):
        def sample(self, key: jax.Array) -> Task:
            return super().sample(key)._replace(query=None)

    assert start(reptile(lambda p, b: squares(b[0] @ p["w"], b), INNER), PARAMS, Half()).step == 0


@pytest.mark.parametrize("make", [partial(anil, head=()), partial(boil, head=["w", "unused"])])
def test_empty_selection_is_accepted(make: Any):
    """The inner loop is meant to adapt nothing."""
    assert start(make(lambda p, b: squares(b[0] @ p["w"], b), INNER), PARAMS, Lines()).step == 0


def test_protomaml_head_size_is_set_by_task():
    """ProtoMAML's own head has as many outputs as an episode has classes, whatever the model's."""

    def with_head(model: MLP, weight: jax.Array, bias: jax.Array) -> MLP:
        return eqx.tree_at(lambda m: (m.head.weight, m.head.bias), model, (weight, bias))

    start(protomaml(cross_entropy(), INNER, ways=5, with_head=with_head), model(outputs=2))
    with pytest.raises(InnerloopError, match="the model has 3 outputs for 5 classes"):
        start(protomaml(cross_entropy(), INNER), model(outputs=3))


def padded(support: int, query: int) -> TaskList:
    """A task, and one with more examples in its support or query set."""
    batch = lambda examples: Batch(jnp.ones((examples, 2)), jnp.ones((examples, 1)))
    return TaskList([Task(batch(2), batch(2)), Task(batch(support), batch(query))])


@pytest.mark.parametrize("sizes", [(3, 2), (2, 3), (2, 2)])
def test_padding_that_affects_batch_statistics_warns(sizes: tuple[int, int]):
    """Batch normalisation reads it; a model that treats every example by itself does not."""
    algorithm, tasks = maml(mean_squared_error(), INNER), padded(*sizes)
    normalised = MLP(2, 1, hidden=(3,), normalize=True, key=KEY)
    told = pytest.warns(
        UserWarning, match="OuterLoop: the padding of a task changes its loss: .* whose mask is 0 or False"
    )
    with told if sizes != (2, 2) else nullcontext():
        start(algorithm, normalised, tasks)
    start(algorithm, MLP(2, 1, hidden=(3,), key=KEY), tasks)


def test_dependence_through_scan():
    """What is carried marks what it meets from step to step; what is not stays unmarked."""

    def turns(a: jax.Array, b: jax.Array, c: jax.Array) -> Any:
        return jax.lax.scan(
            lambda carry, x: ((carry[1], carry[2], carry[2], carry[3]), x + 1), (b, b, a, c), b[None]
        )

    traced = jax.make_jaxpr(turns)(1.0, jnp.ones(()), 3.0).jaxpr
    assert dependent(traced, [True, False, False]) == [True, True, True, False, False]
    assert dependent(traced, [False, True, False]) == [True, True, False, False, True]
    assert dependent(traced, [False, False, True]) == [False, False, False, True, False]


def test_dependence_through_function_call():
    """Of a function that is called, every result has its own."""
    called = jax.jit(lambda a, b: (a + 1, b + 1))
    traced = jax.make_jaxpr(lambda a, b: called(a, b))(1.0, 2.0).jaxpr
    assert dependent(traced, [True, False]) == [True, False]


def test_random_loss_is_accepted():
    noisy = lambda p, b, *, key: squares(b[0] @ p["w"], b) * (1 + jax.random.uniform(key))
    assert start(maml(Loss(noisy, random=True), INNER), PARAMS, Lines()).step == 0


def test_regression_ignores_ways():
    class Waves(Lines):
        ways = 5

        def sample(self, key: jax.Array) -> Task:
            x = jax.random.normal(key, (4, 6))
            return Task(Batch(x, x[:, :1]), Batch(x, x[:, :1]))

    assert start(maml(mean_squared_error(), INNER), model(outputs=1), Waves()).step == 0


@pytest.mark.parametrize("kind", [TypeError, ValueError, AttributeError, IndexError])
def test_loss_error_reports_first_line_and_batch_shapes(kind: type[Exception]):
    """With the shapes of the batch; what is said in our own words passes as it is."""
    told = r"^loss_fn: cannot be computed \(first\), got a batch of float32\[2\], int32\[3\]; give the shapes"
    with pytest.raises(InnerloopError, match=told), loss_errors({"a": jnp.ones(2), "b": jnp.arange(3)}):
        raise kind("first\nsecond")
    with pytest.raises(InnerloopError, match="^mine: is wrong"), loss_errors(None):
        raise InnerloopError("mine", "is wrong")


def test_immutable_flax_collection_error_suggests_mutable():
    error = type("ModifyScopeVariableError", (Exception,), {})
    told = r"loss_fn: writes to collections .*; apply .* mutable=\[...\]"
    with pytest.raises(InnerloopError, match=told), loss_errors({"a": jnp.ones(2)}):
        raise error('Cannot update variable "mean" because collection "batch_stats" is immutable.')
