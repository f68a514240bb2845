"""Data as people have it: unequal numbers of examples, lists of tasks, iterators, dictionaries, tokens."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import innerloop as il
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.diagnosis import Diverged
from innerloop.errors import InnerloopError
from innerloop.nn.losses import accuracy, sigmoid_cross_entropy, softmax_cross_entropy, squared_error

RNG = np.random.default_rng(0)
SGD = optax.sgd(0.1)


def batch(examples: int) -> il.Batch:
    inputs, targets = (RNG.normal(size=(examples, n)).astype(np.float32) for n in (2, 1))
    return il.Batch(inputs, targets)


RAGGED = [il.Task(batch(support), batch(query)) for support, query in ((3, 4), (5, 2), (1, 6), (4, 4))]


def line(params, batch: il.Batch):
    return squared_error(batch.inputs @ params["w"] + params["b"], batch.targets, batch.mask)


def start():
    return {"w": jnp.ones((2, 1)), "b": jnp.zeros(1)}


def algorithm(steps: int = 3) -> Algorithm:
    return il.maml(line, il.InnerLoop(SGD, steps))


def same(a, b, tolerance: float = 2e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


@pytest.mark.parametrize(
    ("measure", "targets"),
    [
        (squared_error, RNG.normal(size=(5, 3))),
        (softmax_cross_entropy, np.array([0, 2, 1, 1, 0])),
        (sigmoid_cross_entropy, RNG.integers(0, 2, (5, 3))),
        (accuracy, np.array([0, 2, 1, 1, 0])),
    ],
)
def test_mask_excludes_rows(measure, targets):
    """Value and gradient are those of the rows that count, whatever stands in the others."""
    outputs, targets = jnp.asarray(RNG.normal(size=(5, 3))), jnp.asarray(targets)
    mask = jnp.array([True, False, True, True, False])
    odd = jnp.where(mask[:, None], outputs, 1e6)
    same(measure(odd, targets, mask), measure(outputs[mask], targets[mask]))
    if measure is not accuracy:
        same(jax.grad(measure)(odd, targets, mask)[mask], jax.grad(measure)(outputs[mask], targets[mask]))
        same(jax.grad(measure)(odd, targets, mask)[~mask], jnp.zeros((2, 3)))
    assert measure(outputs, targets, jnp.zeros(5, bool)) == 0


def test_padded_tasks_match_unpadded_tasks():
    tasks = il.TaskList(RAGGED)
    assert len(tasks) == 4
    for number, task in enumerate(RAGGED):
        (padded, info), (alone, expected) = (
            algorithm().meta_grad(start(), t) for t in (tasks.task(number), jax.tree.map(jnp.asarray, task))
        )
        same((padded, info), (alone, expected))


def test_batch_loss_applies_mask():
    model = il.MLP(2, 1, hidden=(4,), key=jax.random.key(0))
    learned = il.maml(il.mean_squared_error(), il.InnerLoop(SGD, 2))
    padded, alone = il.TaskList(RAGGED).task(0), jax.tree.map(jnp.asarray, RAGGED[0])
    same(learned.meta_grad(model, padded), learned.meta_grad(model, alone))


def test_evaluate_visits_each_listed_task_once():
    tasks = il.TaskList(RAGGED)
    curve = il.evaluate(algorithm(), start(), tasks, key=jax.random.key(0))
    assert curve.tasks == 4
    for number, task in enumerate(jax.tree.map(jnp.asarray, RAGGED)):
        adapted = algorithm().adapt(start(), task.support)
        same(curve.scores["loss"][number, -1], line(adapted, task.query))
    first = il.evaluate(algorithm(), start(), tasks, key=jax.random.key(3), num_tasks=3)
    same(first.scores["loss"], curve.scores["loss"][:3])
    with pytest.raises(InnerloopError, match="the set has 4 tasks, got 5"):
        il.evaluate(algorithm(), start(), tasks, key=jax.random.key(0), num_tasks=5)


def test_training_samples_all_tasks_of_list():
    tasks = il.TaskList(RAGGED)
    drawn = {int(jnp.sum(tasks.sample(key).support.mask)) for key in jax.random.split(jax.random.key(0), 50)}
    assert drawn == {1, 3, 4, 5}
    loop = il.OuterLoop(algorithm(), optax.adam(1e-2), tasks, meta_batch=4)
    _, info = loop.run(loop.init(start(), jax.random.key(0)), 50)
    assert info.outer_loss[-10:].mean() < info.outer_loss[:10].mean()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "at least one task"),
        (
            [il.Task(batch(2), np.ones(2, [("x", "f4"), ("y", "f4")]))],
            "must be an array of numbers, got dtype",
        ),
        ([il.Task(batch(2), {"x": np.ones(2)}), il.Task(batch(2), {"x": np.ones(3)})], "must be batches"),
        ([il.Task(il.Batch(np.ones((2, 1)), np.ones((3, 1))), batch(2))], r"same length, got \[2, 3\]"),
        (
            [il.Task(batch(2), batch(2)), il.Task(il.Batch(np.ones((2, 3)), np.ones((2, 1))), batch(2))],
            "of task 1",
        ),
        (
            [il.Task(batch(2), batch(2)), il.Task({"x": np.ones(2)}, batch(2))],
            "of task 1 must have the structure",
        ),
    ],
)
def test_task_list_rejects_unstackable_tasks(tasks, message: str):
    with pytest.raises(InnerloopError, match=message):
        il.TaskList(tasks)


def meta_batches(count: int, tasks: int = 4):
    numbers = lambda n: RNG.normal(size=(tasks, 3, n)).astype(np.float32)
    draw = lambda: il.Batch(numbers(2), numbers(1))
    return [il.Task(draw(), draw()) for _ in range(count)]


@pytest.mark.parametrize("kind", ["list", "generator", "pairs", "tensors"])
def test_iterator_outer_loop_matches_manual_updates(kind: str):
    """The update is that of the mean by hand, one meta-batch after the other, across calls of `run`."""
    batches = meta_batches(3)
    given = {
        "list": lambda: batches,
        "generator": lambda: (b for b in batches),
        "pairs": lambda: [[b.support, b.query] for b in batches],
        "tensors": lambda: [jax.tree.map(Tensor, b) for b in batches],
    }[kind]()
    loop = il.IteratorOuterLoop(algorithm(), optax.sgd(0.5), given, meta_batch=4, chunk=1)
    state, info = loop.run(loop.init(start(), jax.random.key(0)), 2)
    state, _ = loop.run(state, 1)
    expected, meta_grads = start(), jax.jit(jax.vmap(algorithm().meta_grad, (None, 0)))
    for b in batches:
        grads, _ = meta_grads(expected, b)
        expected = jax.tree.map(lambda p, g: p - 0.5 * g.mean(0), expected, grads)
    same(state.params, expected)
    assert info.outer_loss.shape == (2,)
    with pytest.raises(InnerloopError, match="ended after 3 meta-batches"):
        loop.run(state, 1)


def test_divergence_does_not_consume_next_meta_batch():
    """Its tasks cannot be drawn again, so the inner step is named and the next meta-batch stays the next one."""
    given = meta_batches(3)
    spoilt = jax.tree.map(lambda x: np.full_like(x, np.nan), given[0])
    batches = iter([given[0], spoilt, *given[1:]])
    loop = il.IteratorOuterLoop(algorithm(), SGD, batches, meta_batch=4, chunk=1)
    with pytest.raises(Diverged, match="update 2 diverged, in inner step 0, got") as error:
        loop.run(loop.init(start(), jax.random.key(0)), 2)
    assert next(batches) is given[1]
    assert error.value.before is not None


class Tensor:
    """An array of another library, which NumPy can read."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (3, "must be iterable, got int"),
        ([np.ones(3)], "must yield tasks, got ndarray"),
        (meta_batches(1, tasks=3), r"axis of 4 tasks, got shape \(3, 3, 2\)"),
    ],
)
def test_invalid_iterators_raise(batches: object, message: str):
    with pytest.raises(InnerloopError, match=message):
        run_once(batches)


def test_iterator_factory_restarts_from_any_state():
    """Two calls in a row go on, and an earlier state begins where it was."""
    given, begun = list(meta_batches(4)), []
    batches = lambda step: begun.append(step) or iter(given[step:])
    loop = il.IteratorOuterLoop(algorithm(), SGD, batches, meta_batch=4, chunk=1)
    fresh = lambda: loop.init(start(), jax.random.key(0))
    state, _ = loop.run(fresh(), 2)
    earlier = jax.tree.map(jnp.array, state)
    whole, _ = loop.run(state, 2)
    again, _ = loop.run(earlier, 2)
    other, _ = loop.run(fresh(), 4)
    assert begun == [0, 2, 0]
    same(whole.params, again.params, 0.0)
    same(whole.params, other.params)
    with pytest.raises(InnerloopError, match="ended after 4 meta-batches"):
        loop.run(other, 1)
    with pytest.raises(InnerloopError, match="must be iterable, got int"):
        run_once(lambda step: step)


def test_failed_run_retries_same_meta_batches():
    """A malformed meta-batch, after a good one of the same call was taken."""
    given = list(meta_batches(4))
    damaged = [*given[:3], (given[3], given[3], given[3])]
    batches = lambda step: iter((damaged if step == 0 else given)[step:])
    loop = il.IteratorOuterLoop(algorithm(), SGD, batches, meta_batch=4, chunk=1)
    state, _ = loop.run(loop.init(start(), jax.random.key(0)), 2)
    with pytest.raises(InnerloopError, match="must yield tasks, got tuple"):
        loop.run(state, 2)
    state, _ = loop.run(state, 2)
    whole, _ = loop.run(loop.init(start(), jax.random.key(0)), 2)
    same(
        state.params,
        il.IteratorOuterLoop(algorithm(), SGD, given[2:], meta_batch=4, chunk=1).run(whole, 2)[0].params,
    )


def test_meta_batches_of_changing_shapes_require_single_steps():
    whole, half = meta_batches(2)
    half = half._replace(query=jax.tree.map(lambda x: x[:, :1], half.query))
    batches = lambda step: iter([whole, half][step:])
    loop = il.IteratorOuterLoop(algorithm(), SGD, batches, meta_batch=4, chunk=1)
    fresh = loop.init(start(), jax.random.key(0))
    with pytest.raises(
        InnerloopError, match=r"have the same shapes, got float32\[4, 1.*run\(state, steps=1\)"
    ):
        loop.run(fresh, 2)
    state, _ = loop.run(loop.run(fresh, 1)[0], 1)
    assert state.step == 2


def run_once(batches: object) -> None:
    loop = il.IteratorOuterLoop(algorithm(), SGD, batches, meta_batch=4)
    loop.run(loop.init(start(), jax.random.key(0)), 1)


def test_training_on_dictionaries_with_integer_tokens():
    """Inputs of several kinds, integer tokens among them, and a learned table."""
    params = {"table": jnp.ones((7, 2)) / 2, "slope": jnp.zeros(1)}

    def loss(params, examples):
        found = params["table"][examples["tokens"]].sum((-1, -2)) + examples["x"] @ params["slope"]
        return jnp.mean(jnp.square(found - examples["y"]))

    def examples(n: int):
        tokens = RNG.integers(0, 7, (2, n, 3))
        return {"tokens": tokens, "x": RNG.normal(size=(2, n, 1)), "y": RNG.normal(size=(2, n))}

    batches = itertools.cycle([il.Task(examples(4), examples(5))])
    learned = il.maml(loss, il.InnerLoop(SGD, 2))
    loop = il.IteratorOuterLoop(learned, optax.adam(1e-2), batches, meta_batch=2)
    _, info = loop.run(loop.init(params, jax.random.key(0)), 40)
    assert info.outer_loss[-1] < 0.8 * info.outer_loss[0]
