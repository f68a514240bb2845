"""A learner goes to another process and back; so does every Optax rule, though made of functions within functions."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.exceptions import NotFittedError

from innerloop.algorithms import anil, boil, maml
from innerloop.engine.diagnosis import Diverged
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.learner import pickling
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy, mean_squared_error

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.array(["p", "q"] * 4)
MODEL = MLP(3, 2, hidden=(4,), key=jax.random.key(0))

RULES: dict[str, Any] = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.1, eps_root=1e-8),
    "clipped, on a schedule": optax.chain(optax.clip(1.0), optax.sgd(optax.cosine_decay_schedule(0.1, 9))),
    "by hyperparameters": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "by labels": optax.multi_transform({"a": optax.sgd(0.1), "b": optax.adam(0.1)}, {"w": "a", "v": "b"}),
}


@pytest.mark.parametrize("name", RULES)
def test_pickled_optax_rule_gives_same_updates(name: str):
    rule, params = RULES[name], {"w": jnp.arange(3.0), "v": jnp.ones(2)}
    again = pickle.loads(pickling.dumps(rule))
    states = [rule.init(params), again.init(params)]
    for _ in range(2):
        moved = [r.update(params, s, params) for r, s in zip((rule, again), states, strict=True)]
        states = [state for _, state in moved]
        jax.tree.map(np.testing.assert_array_equal, moved[1][0], moved[0][0])


@pytest.mark.parametrize("make", [maml, anil, boil])
def test_pickled_learner_predicts_identically(make: Any):
    learner = Learner(MODEL, make(cross_entropy(), InnerLoop(optax.adam(0.1), 3)))
    fresh = pickle.loads(pickle.dumps(learner))
    wanted = learner.fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(fresh.fit(X, Y).predict_proba(X), wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(learner)).predict_proba(X), wanted)
    assert pickle.loads(pickle.dumps(learner)).predict(X).tolist() == learner.predict(X).tolist()


def test_errors_round_trip_through_pickle():
    """A worker of joblib or multiprocessing raises them in its parent."""
    diverged = Diverged("who", "wrong", got=3, hint="do")
    assert (diverged.who, diverged.problem) == ("who", "wrong, got 3; do.")
    diverged.before = lambda: None  # pyright: ignore[reportAttributeAccessIssue] (cannot be pickled)
    learner = Learner(MODEL, maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 1)))
    with pytest.raises(NotFittedError) as not_fitted:
        learner.predict(X)
    with pytest.raises(NotFittedError) as again:
        learner.predict(X)
    assert type(again.value) is type(not_fitted.value)
    for error in (InnerloopError("a", "b", hint="c"), diverged, not_fitted.value):
        found = pickle.loads(pickle.dumps(error))
        assert (type(found), str(found), found.who) == (type(error), str(error), error.who)  # pyright: ignore
    assert pickle.loads(pickle.dumps(diverged)).before is None


def test_learner_unpickles_in_another_process(tmp_path: Path):
    learner = Learner(MODEL, maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 3))).fit(X, Y)
    (tmp_path / "learner").write_bytes(pickle.dumps(learner))
    np.save(tmp_path / "x.npy", X)
    program = (
        "import pickle, numpy; learner = pickle.load(open('learner', 'rb'));"
        "print(learner.predict_proba(numpy.load('x.npy')).tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(eval(ran.stdout), learner.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copy_can_be_refitted_independently(how: Any):
    learner = Learner(MODEL, maml(cross_entropy(lambda p, x: p(x)), InnerLoop(optax.sgd(0.1), 3))).fit(X, Y)
    before, other = learner.predict(X).tolist(), how(learner)
    other.fit(X, ["r", "s"] * 4)
    assert learner.predict(X).tolist() == before
    assert set(other.predict(X)) <= {"r", "s"}


def test_pickling_unimportable_function_raises():
    """That of a cell, or a test: told, with what to do."""
    local: Any = lambda p, x: p(x)
    local.__qualname__, local.__module__ = "<lambda>", "__main__"
    learner = Learner(MODEL, maml(mean_squared_error(local), InnerLoop(optax.sgd(0.1), 1)))
    with pytest.raises(
        InnerloopError, match="pickle: an object cannot be pickled .*; define functions at the top level"
    ):
        pickle.dumps(learner)


def test_unpickling_missing_function_raises():
    with pytest.raises(
        InnerloopError, match="there is no function optax._src.base.gone.<locals>.update; load it with"
    ):
        pickling._blank("optax._src.base", "gone.<locals>.update", 0)


def nest(depth: int) -> Any:
    """A function within a function that closes over itself."""

    def inner(x: int, *, factor: int = 2) -> int:
        return factor * x if depth == 0 else inner(0) + nest(depth - 1)(x)

    return inner


def test_recursive_closure_round_trips_through_pickle():
    again = pickle.loads(pickling.dumps(nest(0)))
    assert (again(3), again(3, factor=5)) == (6, 15)
    assert again is not nest(0)
