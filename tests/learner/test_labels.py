"""Labels and values as people have them: scalars of every library, missing ones, and where a task cannot be kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy, mean_squared_error

INNER = InnerLoop(optax.sgd(0.5), steps=2)
ALGORITHM = maml(cross_entropy(), INNER)
X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
NUMBER = np.arange(7) % 3


@pytest.fixture(scope="module")
def learner():
    return Learner(MLP(4, 5, hidden=(), key=jax.random.key(0)), ALGORITHM)


SCALARS = {
    "int64": (np.int64, [0, 1, 2]),
    "float32": (np.float32, [0.0, 1.0, 2.0]),
    "str_": (lambda i: np.array(["a", "b", "c"])[i], ["a", "b", "c"]),
    "jax": (jnp.asarray, [0, 1, 2]),
    "jax in tuples": (lambda i: (jnp.asarray(i), "x"), [(0, "x"), (1, "x"), (2, "x")]),
    "int64 in tuples": (lambda i: (np.int64(i), "x"), [(0, "x"), (1, "x"), (2, "x")]),
}


@pytest.mark.parametrize("kind", SCALARS)
def test_scalar_labels_become_python_values(learner, tmp_path, kind):
    """In a list, as `[labels[i] for i in chosen]` makes them; the task can be saved."""
    scalar, plain = SCALARS[kind]
    labels = [scalar(i) for i in NUMBER]
    learner.fit(X, labels)
    assert learner.classes_.tolist() == plain
    assert learner.classes_.dtype == (object if isinstance(plain[0], tuple) else np.array(plain).dtype)
    assert {type(label) for label in learner.predict(X).tolist()} == {type(plain[0])}
    found = learner.predict(X).tolist()
    assert learner.score(X, labels) == np.mean([a == plain[i] for a, i in zip(found, NUMBER, strict=True)])
    learner.save_adapted(tmp_path / "task.safetensors")
    again = Learner(learner.params, ALGORITHM).load_adapted(tmp_path / "task.safetensors")
    assert again.classes_.tolist() == plain


class Neither:
    """pandas's NA: what compares with it has no truth."""

    def __ne__(self, other) -> Any:
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


MISSING = {
    "float32": np.float32("nan"),
    "jax": jnp.asarray(jnp.nan),
    "time": np.datetime64("NaT"),
    "in a tuple": (float("nan"), "x"),
    "NA": Neither(),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_label_raises(learner, kind):
    with pytest.raises(InnerloopError, match="Learner.fit: a label is missing, got .*; remove the example"):
        learner.fit(X, [MISSING[kind], *NUMBER[1:]])


def test_nat_label_in_array_raises(learner):
    days = np.array(["NaT", *["2026-01-01", "2026-01-02"] * 3], "datetime64[D]")
    with pytest.raises(InnerloopError, match="a label is missing, got NaT"):
        learner.fit(X, days)


@pytest.mark.parametrize("y", [None, 3], ids=["none", "number"])
def test_labels_must_be_a_sequence(learner, y):
    with pytest.raises(
        InnerloopError, match="Learner.fit: (requires y|y must hold one label per example, got .*; give a)"
    ):
        learner.fit(X, y)
    learner.fit(X, NUMBER)
    with pytest.raises(InnerloopError, match="Learner.score: (requires y|y must hold one label per example)"):
        learner.score(X, y)


def test_tuple_label_with_unhashable_item_raises(learner):
    with pytest.raises(InnerloopError, match="labels must be hashable, got list; use strings, numbers or"):
        learner.fit(X, [([i], "x") for i in NUMBER])


def test_score_of_constant_targets_raises():
    """Their mean as float32 is another number than they."""
    params = MLP(4, 1, hidden=(), key=jax.random.key(0))
    regressor = Learner(params, maml(mean_squared_error(), INNER)).fit(X, X[:, 0])
    with pytest.raises(InnerloopError, match="R\\^2 needs values that differ"):
        regressor.score(X, np.full(7, 0.1))


def test_save_adapted_to_unwritable_path_raises(learner, tmp_path):
    """No such folder, a file in its place, a folder in the place of the file; nothing is left behind."""
    learner.fit(X, NUMBER)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for name in ("missing/a.safetensors", "file/a.safetensors"):
        with pytest.raises(InnerloopError, match=f"{name}: cannot be written .*; give a path in a folder"):
            learner.save_adapted(tmp_path / name)
    with pytest.raises(InnerloopError, match="folder: is a folder; name a file in it"):
        learner.save_adapted(tmp_path / "folder", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
