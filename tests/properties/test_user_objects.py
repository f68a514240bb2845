"""Whatever object a user brings: the right value, or an InnerloopError; no error from within, and no NaN unsaid.

The right value is that of one step of gradient descent on w x = s x, in closed form: with m the mean of x^2 over the
support set, w' = w - 0.2 m (w - s), and the loss on the query set is m_q (w' - s)^2.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from innerloop.algorithms import anil, fomaml, maml, reptile
from innerloop.engine import distribution
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.evaluation.scores import score_shapes
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss, check_key
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.pytree import Except, check_selection, partition, paths
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn.losses import cross_entropy


def some(examples: int) -> Any:
    """So many examples, as they come: what is chosen from a list has nothing simpler to be shrunk to."""
    return settings(max_examples=examples, phases=(Phase.explicit, Phase.generate))


KEYS: dict[str, Any] = {
    "new": jax.random.key(3),
    "old": jax.random.PRNGKey(3),
    "of another generator": jax.random.key(3, impl="rbg"),
}
SLOPES = np.array([-1.0, 0.5, 2.0, 3.0], np.float32)

# --- tasks of every container ---------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A set that is no `Batch`."""

    y: Any
    x: Any


SETS: dict[str, Callable[[Any, Any], Any]] = {
    "batch": Batch,
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "dict": lambda x, y: {"x": x, "y": y},
    "named tuple": lambda x, y: Pair(y, x),
}


def parts(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of any of them."""
    if isinstance(batch, dict):
        return batch["x"], batch["y"]
    return (batch.x, batch.y) if isinstance(batch, Pair) else (batch[0], batch[1])


@dataclass
class TaskData:
    """Not registered as a pytree."""

    support: Any
    query: Any


NO_TASKS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda support, query: (support, query),
    "dict": lambda support, query: {"support": support, "query": query},
    "dataclass": TaskData,
    "namespace": lambda support, query: SimpleNamespace(support=support, query=query),
    "support alone": lambda support, query: support,
    "nothing": lambda support, query: None,
    "with a name": lambda support, query: Task((*parts(support), "sine"), query),
    "without a query": lambda support, query: Task(support, None),
}

# --- distributions of every shape -----------------------------------------------------------------------------

Draw = Callable[[Any, jax.Array], Any]
"""`draw(slopes, key)`, a task of one of the slopes."""


class Plain:
    def __init__(self, slopes: Any, draw: Draw):
        self.slopes, self.draw, self.name = slopes, draw, "plain"

    def sample(self, key: jax.Array) -> Any:
        return self.draw(self.slopes, key)


class Named(NamedTuple):
    slopes: Any
    draw: Draw

    def sample(self, key: jax.Array) -> Any:
        return self.draw(self.slopes, key)


@dataclass(frozen=True)
class Data:
    slopes: Any
    draw: Draw

    def sample(self, key: jax.Array) -> Any:
        return self.draw(self.slopes, key)


class Module(eqx.Module):
    slopes: Any
    draw: Draw = eqx.field(static=True)

    def sample(self, key: jax.Array) -> Any:
        return self.draw(self.slopes, key)


class Compiled(Plain):
    def __init__(self, slopes: Any, draw: Draw):
        self.sample = jax.jit(lambda key: draw(jnp.asarray(slopes), key))


def namespace(slopes: Any, draw: Draw) -> Any:
    """A function in the place of a method."""
    return SimpleNamespace(sample=lambda key: draw(jnp.asarray(slopes), key))


def bound(slopes: Any, draw: Draw) -> Any:
    """The method of another object."""
    return SimpleNamespace(sample=Module(jnp.asarray(slopes), draw).sample)


SHAPES: dict[str, Callable[[Any, Draw], Any]] = {
    "plain": Plain,
    "named tuple": Named,
    "dataclass": Data,
    "module": Module,
    "compiled": Compiled,
    "function": namespace,
    "bound method": bound,
}


def draws(set_of: str, task_of: Callable, x: np.ndarray, queries: np.ndarray, dtype: Any) -> Draw:
    """Draws y = s x with one of the slopes."""

    def draw(slopes: Any, key: jax.Array) -> Any:
        slope = slopes[jax.random.randint(key, (), 0, len(SLOPES))]
        sets = (SETS[set_of](v.astype(dtype), (slope * v).astype(dtype)) for v in (x, queries))
        return task_of(*sets)

    return draw


def loss(params: Any, batch: Any) -> jax.Array:
    x, y = parts(batch)
    return jnp.mean(jnp.square(params["w"] * x - y))


def model(rule: Any = None, steps: int = 1, make: Any = maml) -> Any:
    return make(loss, InnerLoop(optax.sgd(0.1) if rule is None else rule, steps))


WEIGHT = 1.0
PARAMS = {"w": jnp.asarray(WEIGHT)}
TYPES = st.sampled_from(["float32", "float16", "int32", "int8"])
"""Of examples that all of them hold exactly."""


def drawn_slopes(keys: list[Any]) -> np.ndarray:
    """The slopes that these keys draw."""
    return np.array([SLOPES[int(jax.random.randint(key, (), 0, len(SLOPES)))] for key in keys])


def mean_square(x: np.ndarray) -> float:
    """0 where there is no example: nothing is learnt then."""
    return float(np.mean(np.square(x))) if x.size else 0.0


def in_closed_form(slopes: np.ndarray, x: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The losses on the query sets before and after the step, and the derivatives of those after it."""
    after = WEIGHT - 0.2 * mean_square(x) * (WEIGHT - slopes)
    of = lambda w: mean_square(queries) * np.square(w - slopes)
    slope = 2 * mean_square(queries) * (after - slopes) * (1 - 0.2 * mean_square(x))
    return np.stack([of(WEIGHT), of(after)], 1), slope


@some(20)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    set_of=st.sampled_from(sorted(SETS)),
    key=st.sampled_from(sorted(KEYS)),
    held=st.sampled_from(["NumPy", "JAX", "float64"]),
    shots=st.integers(0, 3),
    queries=st.integers(1, 2),
)
def test_evaluate_matches_closed_form(shape, set_of, key, held, shots, queries):
    """Every shape and container is the same distribution; without examples nothing is learnt."""
    x, q = np.arange(1.0, shots + 1)[:, None], np.arange(1.0, queries + 1)[:, None]
    slopes = {"NumPy": SLOPES, "JAX": jnp.asarray(SLOPES), "float64": SLOPES.astype(float)}[held]
    tasks = SHAPES[shape](slopes, draws(set_of, Task, x, q, np.float32))
    found = evaluate(model(), PARAMS, tasks, key=KEYS[key], num_tasks=3)
    own = drawn_slopes([jax.random.fold_in(KEYS[key], i) for i in range(3)])
    np.testing.assert_allclose(found.scores["loss"], in_closed_form(own, x, q)[0], rtol=1e-4, atol=1e-5)


@some(15)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    set_of=st.sampled_from(sorted(SETS)),
    key=st.sampled_from(sorted(KEYS)),
    dtype=TYPES,
    meta_batch=st.integers(1, 2),
)
def test_outer_update_matches_closed_form(shape, set_of, key, dtype, meta_batch):
    """One step of the outer loop, whatever types the examples have; integers are promoted."""
    x = np.array([[1.0], [2.0]])
    tasks = SHAPES[shape](jnp.asarray(SLOPES * 2), draws(set_of, Task, x, x, dtype))
    loop = OuterLoop(model(), optax.sgd(0.5), tasks, meta_batch=meta_batch)
    state, info = loop.run(loop.init(PARAMS, KEYS[key]), 1)
    own = 2 * drawn_slopes(list(jax.random.split(jax.random.fold_in(KEYS[key], 0), meta_batch)))
    losses, slopes = in_closed_form(own, x, x)
    np.testing.assert_allclose(info.outer_loss[0], losses[:, 1].mean(), rtol=1e-3)
    np.testing.assert_allclose(state.params["w"], WEIGHT - 0.5 * slopes.mean(), rtol=1e-3, atol=1e-4)


@some(20)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    set_of=st.sampled_from(sorted(SETS)),
    task_of=st.sampled_from(sorted(NO_TASKS)),
    key=st.sampled_from(sorted(KEYS)),
)
def test_invalid_tasks_raise(shape, set_of, task_of, key):
    x = np.ones((2, 1))
    tasks = SHAPES[shape](jnp.asarray(SLOPES), draws(set_of, NO_TASKS[task_of], x, x, np.float32))
    with pytest.raises(InnerloopError):
        evaluate(model(), PARAMS, tasks, key=KEYS[key], num_tasks=2)
    loop = OuterLoop(model(), optax.sgd(0.5), tasks, meta_batch=2)
    with pytest.raises(InnerloopError):
        loop.run(loop.init(PARAMS, KEYS[key]), 1)


CALLS: dict[str, Any] = {
    "no key": lambda: Task(jnp.ones(1), jnp.ones(1)),
    "a keyword": lambda *, key: Task(jnp.ones(1), jnp.ones(1)),
    "more": lambda key, number: Task(jnp.ones(1), jnp.ones(1)),
    "an index into a list": lambda key: [0.0, 1.0][jax.random.bernoulli(key)],  # pyright: ignore
    "a value that is none": lambda key: jnp.reshape(jax.random.normal(key, (3,)), (2,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_invalid_sample_functions_raise(name: str):
    tasks: Any = SimpleNamespace(sample=CALLS[name])
    with pytest.raises(InnerloopError, match="`SimpleNamespace.sample` cannot be"):
        evaluate(model(), PARAMS, tasks, key=KEYS["new"], num_tasks=2)


NO_KEYS = [0, 1.5, "key", None, [0, 1], np.zeros(2), np.zeros((2, 2), np.uint32), np.uint32(3)]


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_invalid_keys_raise(key: Any):
    """Where tasks are drawn, and by the losses that need one."""
    noisy = Loss(lambda params, batch, key: loss(params, batch) + jax.random.normal(key), random=True)
    for check in (lambda: distribution.check_key(key, "Loss"), lambda: inspect.unwrap(check_key)(noisy, key)):
        with pytest.raises(InnerloopError, match="^Loss: .*key"):
            check()


# --- scores of every kind -------------------------------------------------------------------------------------

NUMBERS: dict[str, tuple[Callable[[jax.Array], Any], Callable[[float], float]]] = {
    "float32": (lambda w: w, lambda w: w),
    "float16": (lambda w: w.astype(jnp.float16), lambda w: w),
    "bfloat16": (lambda w: w.astype(jnp.bfloat16), lambda w: w),
    "integer": (lambda w: (4 * w).astype(int), lambda w: 4 * w),
    "truth": (lambda w: w > 0, lambda w: float(w > 0)),
    "Python's float": (lambda w: 1.5, lambda w: 1.5),
    "Python's integer": (lambda w: 3, lambda w: 3.0),
    "Python's truth": (lambda w: True, lambda w: 1.0),
    "NumPy's float64": (lambda w: np.float64(0.25), lambda w: 0.25),
    "NumPy's integer": (lambda w: np.int8(7), lambda w: 7.0),
    "NumPy's array": (lambda w: np.array(0.75), lambda w: 0.75),
}
NO_NUMBERS: dict[str, Callable[[jax.Array], Any]] = {
    "vector": lambda w: jnp.stack([w, w]),
    "one row": lambda w: w[None],
    "nothing": lambda w: None,
    "text": lambda w: "good",
    "complex": lambda w: w * 1j,
    "list": lambda w: [w],
    "nested": lambda w: {"b": w},
    "key": lambda w: jax.random.key(0),
    "Python's float of it": lambda w: float(w),
    "NumPy's array of it": lambda w: np.asarray(w),
}
NO_NAMES: dict[str, Callable[[Any], Any]] = {
    "bare": lambda value: value,
    "tuple": lambda value: (value,),
    "list": lambda value: [value],
    "named tuple": lambda value: Pair(value, value),
    "empty": lambda value: {},
    "nothing": lambda value: None,
}


@some(12)
@given(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=3, unique=True), st.integers(1, 2))
def test_evaluate_supports_every_score_type(names: list[str], chunk: int):
    """At parameters 1 and 0.25, which all types hold exactly."""
    tasks = Plain(SLOPES, draws("batch", Task, np.ones((2, 1)), np.ones((2, 1)), np.float32))
    still = model(optax.stateless(lambda grads, params: jax.tree.map(lambda g: 0 * g - 0.75, grads)))
    score = lambda params, task: {name: NUMBERS[name][0](params["w"]) for name in names}
    found = evaluate(still, PARAMS, tasks, score, key=KEYS["new"], num_tasks=2, chunk=chunk)
    assert set(found.scores) == set(names)
    for name in names:
        expected = [NUMBERS[name][1](w) for w in (1.0, 0.25)]
        np.testing.assert_array_equal(found.scores[name].astype(float), [expected, expected])
        np.testing.assert_array_equal(found.mean(name), expected)
        np.testing.assert_array_equal(found.ci95(name), 0.0)


@some(40)
@given(
    st.one_of(
        st.tuples(st.just("named"), st.sampled_from(sorted(NO_NUMBERS))),
        st.tuples(st.sampled_from(sorted(NO_NAMES)), st.sampled_from(sorted(NUMBERS))),
    )
)
def test_invalid_scores_raise(kinds: tuple[str, str]):
    container, number = kinds
    value = NO_NUMBERS[number] if container == "named" else NUMBERS[number][0]
    put = NO_NAMES.get(container, lambda value: {"first": 1.0, "a": value})
    batch = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(InnerloopError, match=r"^score: .*; return a dictionary of numbers, such as"):
        score_shapes(lambda params, task: put(value(params["w"])), PARAMS, Task(batch, batch))


def test_score_error_shows_first_line_of_cause():
    """Those of JAX have many."""
    of_python: Any = lambda params, task: {"a": float(params["w"])}
    batch = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    with pytest.raises(
        InnerloopError, match=r"score: cannot be computed \(Abstract tracer value encountered"
    ):
        score_shapes(of_python, PARAMS, Task(batch, batch))


def test_score_with_wrong_signature_raises():
    tasks = Plain(SLOPES, draws("batch", Task, np.ones((2, 1)), np.ones((2, 1)), np.float32))
    one: Any = lambda params: {"a": 1.0}
    with pytest.raises(InnerloopError, match="score: cannot be computed .*takes 1 positional argument"):
        evaluate(model(), PARAMS, tasks, one, key=KEYS["new"], num_tasks=2)


# --- selections of every form ---------------------------------------------------------------------------------

TREE = {
    "body": [{"w": jnp.ones(1), "b": jnp.ones(2)}, {"w": jnp.ones(3)}],
    "head": (jnp.ones(4), {"w": jnp.ones(5)}),
    "heads": {"w": jnp.ones(6)},
}
PATHS = paths(TREE)
FORMS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "keys": lambda names: dict.fromkeys(names).keys(),
    "NumPy's text": lambda names: np.array(names, str),
    "function": lambda names: lambda path: path in names,
    "NumPy's truth": lambda names: lambda path: np.bool_(path in names),
    "pattern": lambda names: re.compile("|".join(f"^{re.escape(name)}$" for name in names)).search,
    "complement": lambda names: Except([path for path in PATHS if path not in names]),
    "complement of a function": lambda names: Except(lambda path: path not in names),
    "complement of the complement": lambda names: Except(Except(names)),
}


@some(60)
@given(
    st.lists(st.sampled_from(PATHS), min_size=1, max_size=len(PATHS) - 1, unique=True),
    st.sampled_from(sorted(FORMS)),
)
def test_equivalent_selections_partition_identically(names: list[str], form: str):
    """All of them choose the same parameters, and leave the others in the rest."""
    fast, rest = partition(TREE, FORMS[form](names))
    assert sorted(paths(fast)) == sorted(names)
    assert sorted(paths(rest)) == sorted(set(PATHS) - set(names))


@pytest.mark.parametrize(("name", "inside"), [("body", 3), ("body/0", 2), ("head/", 2), ("heads", 1)])
def test_selection_name_matches_complete_path_parts(name: str, inside: int):
    assert len(paths(partition(TREE, name)[0])) == len(paths(partition(TREE, (name,))[0])) == inside


class Mask(eqx.Module):
    """A model of booleans: callable, as models are."""

    body: Any
    head: Any

    def __call__(self, x: Any) -> Any:
        return x


NO_SELECTIONS: dict[str, Any] = {
    "dictionary of booleans": {"body": True, "head": False},
    "tree of booleans": jax.tree.map(lambda x: True, TREE),
    "model of booleans": Mask(False, True),
    "model of arrays": Mask(jnp.zeros(1), jnp.ones(1)),
    "list of booleans": [True, False],
    "array of booleans": np.array([True, False]),
    "boolean": True,
    "number": 0,
    "pattern": re.compile("head"),
    "generator": (name for name in ["head"]),
    "nested": [["head"], "body"],
    "bytes": b"head",
}


@pytest.mark.parametrize("name", NO_SELECTIONS)
def test_invalid_selections_raise(name: str):
    """Its keys are no names, and what can be read once would be empty the second time."""
    complement = Except(None)
    object.__setattr__(complement, "selection", NO_SELECTIONS[name])
    for selection in (NO_SELECTIONS[name], complement):
        with pytest.raises(InnerloopError, match="select: is not a selection of parameters, got .*; give "):
            check_selection(selection)
    inner = InnerLoop(optax.sgd(0.1))
    object.__setattr__(inner, "select", NO_SELECTIONS[name])
    with pytest.raises(InnerloopError, match="select: is not a selection"):
        inspect.unwrap(InnerLoop.__post_init__)(inner)


# --- parameters of several types, and labelled data -----------------------------------------------------------


@some(8)
@given(
    st.sampled_from([maml, fomaml, anil, reptile]),
    st.lists(st.sampled_from(["float32", "float16", "bfloat16"]), min_size=2, max_size=2),
)
def test_algorithms_preserve_parameter_dtypes(make: Any, dtypes: list[str]):
    """In the adapted parameters and in the meta-gradient, with the values of float32."""
    values = {"body": jnp.array([[0.5]]), "head": jnp.array([[2.0]])}
    mixed = {name: x.astype(dtype) for (name, x), dtype in zip(values.items(), dtypes, strict=True)}
    square = lambda params, batch: jnp.mean(jnp.square(batch[0] @ params["body"] @ params["head"] - batch[1]))
    x = jnp.array([[1.0], [2.0]])
    algorithm, task = make(square, InnerLoop(optax.sgd(0.05), 2)), Task((x, 3 * x), (x, 2 * x))
    for found, wanted in (
        (algorithm.adapt(mixed, task.support), algorithm.adapt(values, task.support)),
        (algorithm.meta_grad(mixed, task)[0], algorithm.meta_grad(values, task)[0]),
    ):
        for name, x in mixed.items():
            assert found[name].dtype == x.dtype
            np.testing.assert_allclose(found[name].astype("f4"), wanted[name], rtol=0.05, atol=0.05)


DRAW = np.random.default_rng(0).normal
WEIGHTS = {
    name: jnp.asarray(DRAW(size=size), jnp.float32) for name, size in {"body": (2, 4), "head": (4, 3)}.items()
}
TWO_LAYERS = cross_entropy(lambda params, x: jnp.tanh(x @ params["body"]) @ params["head"])
LEARNER = Learner(WEIGHTS, maml(TWO_LAYERS, InnerLoop(optax.sgd(0.5), 3)))
ROWS = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [0.0, 2.0]]
"""All types hold them exactly. (Bytes are pixels, and scaled.)"""
HOLD: dict[str, Callable[[list], Any]] = {
    "lists": lambda rows: rows,
    "tuples": lambda rows: tuple(map(tuple, rows)),
    "float32": lambda rows: np.array(rows, np.float32),
    "float64": lambda rows: np.array(rows),
    "float16": lambda rows: np.array(rows, np.float16),
    "integers": lambda rows: np.array(rows, int),
    "JAX": lambda rows: jnp.array(rows),
    "bfloat16": lambda rows: jnp.array(rows, jnp.bfloat16),
    "columns first": lambda rows: np.asfortranarray(np.array(rows)),
}
LABELS: dict[str, Callable[[list[int]], Any]] = {
    "lists": lambda labels: labels,
    "integers": lambda labels: np.array(labels),
    "bytes": lambda labels: np.array(labels, np.uint8),
    "JAX": lambda labels: jnp.array(labels),
    "text": lambda labels: ["abc"[label] for label in labels],
    "NumPy's text": lambda labels: np.array(["abc"[label] for label in labels]),
    "objects": lambda labels: np.array(["abc"[label] for label in labels], object),
}


@some(12)
@given(st.sampled_from(sorted(HOLD)), st.sampled_from(sorted(HOLD)), st.sampled_from(sorted(LABELS)))
def test_learner_accepts_every_container(train: str, test: str, labels: str):
    """The classes are those that were given, and the probabilities those of float32."""
    given, plain = LABELS[labels]([0, 1, 2, 0]), np.array(ROWS, np.float32)
    expected = LEARNER.fit(plain, np.array([0, 1, 2, 0])).predict_proba(plain)
    learner = LEARNER.fit(HOLD[train](ROWS), given)
    np.testing.assert_allclose(learner.predict_proba(HOLD[test](ROWS)), expected, rtol=1e-5, atol=1e-6)
    chosen = np.asarray(given)[[0, 1, 2]][expected.argmax(1)]
    np.testing.assert_array_equal(learner.predict(HOLD[test](ROWS)), chosen)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        (np.zeros((0, 2)), np.zeros(0, int)),
        (ROWS, [0, 1, 2]),
        (ROWS, [0, 1, 2, 3]),
        (ROWS, None),
        (ROWS, [[0], [1], [2], [0]]),
        (ROWS, [0, 1, 2, np.nan]),
        (["a", "b", "c", "d"], [0, 1, 2, 0]),
        ([[0.0, np.nan]] * 4, [0, 1, 2, 0]),
        ([[0.0], [1.0, 2.0]], [0, 1]),
        (None, [0]),
        (np.array(ROWS) * 1j, [0, 1, 2, 0]),
        ({"a": 1}, [0]),
    ],
)
def test_learner_rejects_invalid_examples_and_labels(x: Any, y: Any):
    with pytest.raises(InnerloopError):
        LEARNER.fit(x, y)


@pytest.mark.parametrize("error", [ValueError(), TypeError("")])
def test_score_error_without_message_shows_its_type(error: Exception):
    def silent(*arguments: object):
        raise error

    task = Task(Batch(jnp.ones((2, 1)), jnp.ones((2, 1))), Batch(jnp.ones((2, 1)), jnp.ones((2, 1))))
    with pytest.raises(InnerloopError, match=rf"score: cannot be computed \({type(error).__name__}\)"):
        score_shapes(silent, jnp.ones(1), task)


def test_score_error_distinguishes_empty_dict_from_list():
    batch = Batch(jnp.ones((1, 1)), jnp.ones((1, 1)))
    cases: list[tuple[Any, str]] = [({}, "an empty dict"), ([1.0], "a list")]
    for value, told in cases:
        with pytest.raises(InnerloopError, match=f"got {told}"):
            score_shapes(lambda params, task, value=value: value, PARAMS, Task(batch, batch))
