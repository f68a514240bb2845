"""What users bring as a distribution: drawn from its key, whatever object it is; else told before anything runs."""

import inspect
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

from innerloop.algorithms import maml
from innerloop.engine.distribution import check_distribution, check_key, check_random, split_arrays
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Batch, Task, TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn.losses import mean_squared_error
from innerloop.tasks.sinusoid import Sinusoid

KEY = jax.random.key(0)
PARAMS = {"w": jnp.zeros((1, 1))}
ALGORITHM = maml(mean_squared_error(lambda params, x: x @ params["w"]), InnerLoop(optax.sgd(0.1), 1))
X = np.linspace(-1, 1, 4, dtype=np.float32)[:, None]


def task(slope: Any) -> Task:
    return Task(Batch(X, slope * X), Batch(X, slope * X))


class Own:
    """An object whose `sample` is any function."""

    def __init__(self, sample: Callable[[jax.Array], Any]):
        self.sample = sample


def slope(key: jax.Array) -> jax.Array:
    return jax.random.normal(key)


RNG = np.random.default_rng(0)


class Apart(TwoStageSampler):
    def draw(self, key: jax.Array) -> Any:
        return RNG.integers(3)

    def fetch(self, drawn: Any) -> Task:
        return task(drawn)


SEEN: list[float] = []


def counted(key: jax.Array) -> Task:
    SEEN.append(0.0)
    return task(slope(key) + len(SEEN))


WRONG = {
    "np.random": (
        Own(lambda key: task(RNG.normal())),
        "does not depend on its key: all tasks would be the same",
    ),
    "seeded": (Own(lambda key: task(np.random.default_rng(0).normal())), "does not depend on its key"),
    "a key of its own": (Own(lambda key: task(slope(jax.random.key(3)))), "does not depend on its key"),
    "the key's shape": (Own(lambda key: task(1.0 + key.ndim)), "does not depend on its key"),
    "compiled": (Own(jax.jit(lambda key: task(1.0))), "does not depend on its key"),
    "drawn first": (Apart(), "`Apart.sample` does not depend on its key"),
    "in part": (Own(lambda key: task(slope(key) + RNG.normal())), "draws different numbers for the same key"),
    "an array in part": (Own(lambda key: task(slope(key) + RNG.normal(size=(4, 1)))), "different numbers"),
    "in a loop": (
        Own(lambda key: task(jax.lax.fori_loop(0, 2, lambda i, x: x + RNG.normal(), slope(key)))),
        "draws different numbers",
    ),
    "a counter": (Own(counted), "draws different numbers"),
    "Python's branch": (Own(lambda key: task(1.0 if slope(key) > 0 else 2.0)), "cannot be compiled"),
    "Python's number": (Own(lambda key: task(float(slope(key)))), "cannot be compiled"),
    "a tuple": (
        Own(lambda key: tuple(task(slope(key)))),
        "must return a Task, got tuple; return innerloop.Task",
    ),
    "a dictionary": (Own(lambda key: task(slope(key))._asdict()), "must return a Task, got dict"),
}


@pytest.mark.parametrize("name", WRONG)
def test_sample_not_drawn_from_key_raises(name: str):
    """Told by `init`, by `run` of a state from elsewhere, and by `evaluate`."""
    tasks, message = WRONG[name]
    loop = OuterLoop(ALGORITHM, optax.sgd(0.1), tasks, meta_batch=2)
    with pytest.raises(InnerloopError, match=f"OuterLoop: .*{message}"):
        loop.init(PARAMS, KEY)
    state = OuterLoop(ALGORITHM, optax.sgd(0.1), Sinusoid(), meta_batch=2).init(PARAMS, KEY)
    with pytest.raises(InnerloopError, match=f"OuterLoop: .*{message}"):
        loop.run(state, 1)
    with pytest.raises(InnerloopError, match=f"evaluate: .*{message}"):
        evaluate(ALGORITHM, PARAMS, tasks, key=KEY, num_tasks=4)


NONE = {
    "a function": (lambda key: task(slope(key)), "got function; pass an object with a method `sample"),
    "a class": (Sinusoid, "got the class Sinusoid"),
    "a task": (task(1.0), "got Task"),
    "nothing": (None, "got NoneType"),
    "an environment": (
        SimpleNamespace(sample_task=slope),
        "got SimpleNamespace; train policies .*fit_policy",
    ),
}


@pytest.mark.parametrize("name", NONE)
def test_invalid_distribution_raises(name: str):
    """As met by users, whose programs do not check types at run time."""
    tasks, message = NONE[name]
    with pytest.raises(InnerloopError, match=f"who: `tasks` must be a distribution of tasks, {message}"):
        inspect.unwrap(check_distribution)(tasks, KEY, "who")
    held, with_arrays = inspect.unwrap(split_arrays)(tasks)
    assert type(with_arrays(held)) is type(tasks)


SLOPES = np.array([1.0, 2.0, 3.0], np.float64)


class Plain:
    """Arrays of NumPy as attributes, indexed by a number that is drawn."""

    def __init__(self):
        self.slopes, self.names = SLOPES, ("one", "two", "three")
        self.inner = {"x": X, "words": "none"}

    def sample(self, key: jax.Array) -> Task:
        chosen = self.slopes[jax.random.randint(key, (), 0, 3)]
        return Task(Batch(self.inner["x"], chosen * self.inner["x"]), Batch(X, chosen * X))


@dataclass(frozen=True)
class Frozen:
    slopes: Any
    steps: int = 3

    def sample(self, key: jax.Array) -> Task:
        return task(self.slopes[jax.random.randint(key, (), 0, self.steps)])


class Named(NamedTuple):
    slopes: Any

    def sample(self, key: jax.Array) -> Task:
        return task(self.slopes[jax.random.randint(key, (), 0, 3)])


class Module(eqx.Module):
    slopes: Any
    steps: int = eqx.field(static=True)

    def sample(self, key: jax.Array) -> Task:
        return task(self.slopes[jax.random.randint(key, (), 0, self.steps)])


class Slotted:
    __slots__ = ("slopes",)

    def __init__(self):
        self.slopes = jnp.asarray(SLOPES)

    def sample(self, key: jax.Array) -> Task:
        return task(self.slopes[jax.random.randint(key, (), 0, 3)])


RIGHT = {
    "plain": Plain(),
    "dataclass": Frozen(SLOPES),
    "dataclass of lists": Frozen(jnp.asarray(SLOPES)),
    "named tuple": Named(SLOPES),
    "module": Module(SLOPES, 3),
    "module of JAX": Module(jnp.asarray(SLOPES), 3),
    "slots": Slotted(),
}


@pytest.mark.parametrize(
    ("name", "key"), [*((name, KEY) for name in RIGHT), ("plain", jax.random.PRNGKey(0))]
)
def test_distributions_of_any_object_kind_match_manual_draws(name: str, key: jax.Array):
    """The tasks are those of the same numbers drawn by hand, in training and evaluation."""
    score = lambda params, task: {"slope": task.query.targets[-1, 0]}
    found = evaluate(ALGORITHM, PARAMS, RIGHT[name], score, key=key, num_tasks=8, record=(0,)).scores["slope"]
    drawn = [jax.random.randint(jax.random.fold_in(key, i), (), 0, 3) for i in range(8)]
    np.testing.assert_array_equal(found[:, 0], SLOPES[np.array(drawn)])
    loop = OuterLoop(ALGORITHM, optax.sgd(0.1), RIGHT[name], meta_batch=2)
    _, info = loop.run(loop.init(PARAMS, key), 1)
    own = jax.random.split(jax.random.fold_in(key, 0), 2)
    chosen = [SLOPES[jax.random.randint(k, (), 0, 3)] for k in own]
    losses = [ALGORITHM.meta_grad(PARAMS, task(jnp.float32(s)))[1].outer_loss for s in chosen]
    np.testing.assert_allclose(info.outer_loss[0], np.mean(losses), rtol=1e-6)


def test_numpy_distribution_runs_with_max_steps():
    """As `innerloop.fit` runs it: tasks are drawn without values to see how many meta-steps of them fit in a cache."""
    loop = OuterLoop(ALGORITHM, optax.sgd(0.1), Plain(), meta_batch=2)
    assert loop.granularity(KEY, 4) == 4
    loop.run(loop.init(PARAMS, KEY), 2, max_steps=4)


def test_user_distribution_is_not_modified():
    own = Plain()
    evaluate(ALGORITHM, PARAMS, own, key=KEY, num_tasks=2)
    assert own.slopes is SLOPES
    assert isinstance(own.inner["x"], np.ndarray)


def test_distribution_arrays_are_program_arguments():
    held, with_arrays = split_arrays(Plain())
    assert [x.shape for x in jax.tree.leaves(held)] == [(4, 1), (3,)]
    other: Any = with_arrays(jax.tree.map(lambda x: 0 * x, held))
    assert other.names == ("one", "two", "three")
    assert not np.any(other.sample(KEY).support.targets)
    half = Plain().slopes.astype(jnp.bfloat16)
    assert jax.tree.leaves(split_arrays(Frozen(half))[0]) == [half]
    waves = Sinusoid()
    assert split_arrays(waves)[1](split_arrays(waves)[0]) is waves


def test_arrays_in_nested_objects_raise():
    """Those of an object within the object are not looked for."""
    holder: Any = Own(lambda key: None)
    holder.slopes = SimpleNamespace(array=SLOPES)
    holder.sample = lambda key: task(holder.slopes.array[jax.random.randint(key, (), 0, 3)])
    with pytest.raises(InnerloopError, match="`Own.sample` cannot be compiled .*; hold arrays as attributes"):
        OuterLoop(ALGORITHM, optax.sgd(0.1), holder, meta_batch=2).init(PARAMS, KEY)


@pytest.mark.parametrize(
    ("key", "got"),
    [
        (0, "got 0"),
        (None, "got None"),
        (jnp.zeros(2), r"got float32 of shape \(2,\)"),
        (jnp.zeros((3, 2), jnp.uint32), r"got uint32 of shape \(3, 2\)"),
        (jax.random.split(KEY, 3), r"got key<fry> of shape \(3,\)"),
    ],
)
def test_invalid_key_raises(key: Any, got: str):
    with pytest.raises(InnerloopError, match=f"who: `key` must be a single jax.random key, {got}"):
        check_key(key, "who")
    check_key(jax.random.key(0, impl="rbg"), "who")
    raw = jax.random.PRNGKey(0)
    assert not jax.make_jaxpr(lambda key: check_key(key, "who"))(raw).eqns  # nothing is added to a program


def custom(function: Callable) -> Callable:
    """With a derivative of its own."""
    own = jax.custom_jvp(function)
    own.defjvps(lambda bar, out, key: 0 * out)
    return own


def test_key_dependence_is_traced_through_nested_functions():
    """What passes through a compiled, a checkpointed or a custom function may lose its key there."""
    lost = lambda key: 2.0
    for lift in (jax.jit, jax.checkpoint, custom):
        with pytest.raises(InnerloopError, match="does not depend"):
            check_random(lambda key, lift=lift: {"a": lift(lost)(key)}, KEY, "who", "draw")
        check_random(lambda key, lift=lift: {"a": lift(lambda key: slope(key))(key)}, KEY, "who", "draw")
    check_random(lambda key: jax.lax.cond(slope(key) > 0, lambda: 1.0, lambda: 2.0), KEY, "who", "draw")


def test_closed_over_key_is_accepted():
    """A key within the object, folded into the one given: the same at every call."""
    own = jax.random.key(7)
    check_random(lambda key: slope(key) + slope(own), KEY, "who", "draw")


@pytest.mark.parametrize("who", ["OuterLoop.init", "evaluate", "Learner"])
def test_state_in_place_of_parameters_raises(who: str):
    loop = OuterLoop(ALGORITHM, optax.sgd(0.1), Sinusoid(), meta_batch=2)
    state: Any = loop.init(PARAMS, KEY)
    calls = {
        "OuterLoop.init": lambda: loop.init(state, KEY),
        "evaluate": lambda: evaluate(ALGORITHM, state, Sinusoid(), key=KEY),
        "Learner": lambda: Learner(state, ALGORITHM),
    }
    with pytest.raises(
        InnerloopError, match=f"{who}: needs the parameters .* MetaState; pass `state.params`"
    ):
        calls[who]()


def test_parameters_in_place_of_state_raise():
    loop: Any = OuterLoop(ALGORITHM, optax.sgd(0.1), Sinusoid(), meta_batch=2)
    with pytest.raises(
        InnerloopError, match="needs a MetaState, got dict; pass the state that `init` or `run`"
    ):
        inspect.unwrap(OuterLoop.run)(loop, PARAMS, 1)
