"""Fitting, predicting and scoring, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.learner.learners import ALGORITHM, INNER, blobs, line, regressor

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.unroll import unroll
from innerloop.engine.types import Batch
from innerloop.errors import InnerloopError
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import BatchLoss, cross_entropy, mean_squared_error
from innerloop.nn.normalization import predict

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "names",
    [["b", "a", "c"], [30, 10, 20], [("x", 1), ("x", 0), ("w", 2)], [2.5, -1.0, 0.0], ["a", 1, ("b",)]],
    ids=["strings", "ints", "tuples", "floats", "mixed"],
)
def test_fit_accepts_any_hashable_labels(learner, names):
    x, number = blobs()
    y = [names[i] for i in number]
    assert learner.fit(x, y) is learner
    more, other = blobs(seed=1)
    assert learner.predict(more).tolist() == [names[i] for i in other]
    assert learner.score(more, [names[i] for i in other]) == 1.0
    assert set(learner.classes_.tolist()) == set(names)
    assert learner.losses_.shape == (20,)
    assert learner.losses_[-1] < learner.losses_[0]
    assert learner.n_steps == 20


def test_fit_accepts_numpy_and_jax_labels(learner):
    x, number = blobs()
    want = learner.fit(x, number).predict_proba(x)
    assert learner.classes_.tolist() == [0, 1, 2]
    got = learner.fit(jnp.asarray(x), jnp.asarray(number)).predict_proba(jnp.asarray(x))
    np.testing.assert_allclose(want, got, rtol=1e-6)
    assert learner.fit(x, np.array(["p", "q", "r"])[number]).predict(x[:3]).tolist() == ["p", "q", "r"]


def test_fit_and_predict_proba_use_only_fitted_classes(learner):
    x, number = blobs()
    learner.fit(x, np.array(["c", "a", "b"])[number])
    found = learner.predict_proba(x)
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert learner.classes_[found.argmax(1)].tolist() == learner.predict(x).tolist()
    before, after = learner.params.head, learner.params_.head
    np.testing.assert_array_equal(before.weight[:, 3:], after.weight[:, 3:])
    np.testing.assert_array_equal(before.bias[3:], after.bias[3:])


def test_fewer_classes_match_inner_loop_of_smaller_model(learner):
    x, number = blobs()
    learner.fit(x, number)
    small = lambda params, inputs: params(inputs)[:, :3]
    batch = Batch(jnp.asarray(x, jnp.float32), jnp.asarray(number))
    want = unroll(cross_entropy(small), INNER, learner.params, batch)
    np.testing.assert_allclose(learner.losses_, want.losses, rtol=1e-5)
    np.testing.assert_allclose(learner.params_.head.weight, want.adapted.head.weight, rtol=1e-5, atol=1e-6)


def test_refit_starts_from_initialisation(learner):
    x, number = blobs()
    first = learner.fit(x, number).losses_
    learner.fit(x, (number + 1) % 3)
    np.testing.assert_array_equal(learner.fit(x, number).losses_, first)


def test_single_output_model_fits_two_classes():
    learner = Learner(MLP(4, 1, hidden=(), key=jax.random.key(0)), ALGORITHM)
    x, number = blobs(classes=2)
    learner.fit(x, np.array(["no", "yes"])[number])
    assert learner.score(x, np.array(["no", "yes"])[number]) == 1.0
    log_odds = np.asarray(learner.params_(jnp.asarray(x, jnp.float32)))[:, 0]
    np.testing.assert_allclose(learner.predict_proba(x)[:, 1], 1 / (1 + np.exp(-log_odds)), rtol=1e-4)


def test_unseen_label_counts_as_error_in_score(learner):
    x, number = blobs()
    learner.fit(x, number)
    assert learner.score(x[:4], ["new", 1, 2, 0]) == 0.75


def test_second_fit_and_predict_do_not_trace_again():
    traced = []

    def apply(params, x):
        traced.append(x.shape)
        return x @ params

    learner = Learner(jnp.zeros((4, 5)), maml(cross_entropy(apply), INNER))
    x, number = blobs()
    learner.fit(x, number).predict(x[:5])
    count = len(traced)
    assert count > 0
    learner.fit(x + 1, np.array(["x", "y", "z"])[number])
    learner.predict(x[:7])
    learner.predict(x[:8])
    assert len(traced) == count


def test_minibatches_are_shuffled():
    """Sorted classes in minibatches of one class would be learnt one after the other, and forgotten."""
    inner = replace(INNER, minibatch=4, rule=optax.sgd(1.0))
    learner = Learner(MLP(4, 3, hidden=(), key=jax.random.key(0)), maml(cross_entropy(), inner))
    number = np.repeat(np.arange(3), 4)
    learner.fit(np.eye(4, dtype=np.float32)[number], number)
    assert set(np.asarray(learner.support_[:4]).argmax(1).tolist()) != {0}
    assert learner.score(np.eye(4)[number], number) == 1.0


@pytest.mark.parametrize("mode", ["inductive", "support"])
def test_prediction_is_independent_of_other_queries(normalized, mode):
    x, number = blobs()
    learner = Learner(normalized.params, ALGORITHM, normalization=mode).fit(x, number)
    queries = np.random.default_rng(1).normal(size=(70, 4))
    together = learner.predict_proba(queries)
    assert together.shape == (70, 3)
    for i in (0, 66, 69):
        np.testing.assert_allclose(learner.predict_proba(queries[i : i + 1])[0], together[i], rtol=1e-4)


def test_prediction_uses_support_set_only_if_needed(normalized):
    x, number = blobs(each=30)
    sizes = []

    def recorded(params, inputs):
        sizes.append(len(inputs))
        return inputs @ params

    linear = Learner(jnp.zeros((4, 3)), maml(cross_entropy(recorded), INNER)).fit(x, number)
    linear.predict(x[:3])
    sizes.clear()
    linear.predict(x[:5])  # traced again, for more queries
    assert sizes == [2]
    counting = lambda params, inputs: inputs @ params + jnp.log(len(inputs)) * jnp.arange(3)
    for params, apply in (
        (normalized.params, lambda params, inputs: params(inputs)),
        (jnp.zeros((4, 3)), counting),
    ):
        learner = Learner(params, maml(cross_entropy(apply), INNER)).fit(x, number)
        with_all = predict(apply, learner.params_, learner.support_, x[:3].astype(np.float32), "inductive")
        np.testing.assert_allclose(learner.predict_proba(x[:3]), jax.nn.softmax(with_all), rtol=1e-4)


def test_transductive_prediction_depends_on_other_queries(normalized):
    x, number = blobs()
    learner = Learner(normalized.params, ALGORITHM, normalization="transductive").fit(x, number)
    queries = np.random.default_rng(1).normal(size=(6, 4))
    assert np.abs(learner.predict_proba(queries)[:3] - learner.predict_proba(queries[:3])).max() > 1e-3


def test_regression_keeps_the_shape_of_y():
    x, y = line()
    learner = regressor().fit(x, y)
    assert learner.predict(x).shape == (20,)
    np.testing.assert_allclose(learner.predict(x), y, atol=1e-3)
    assert learner.score(x, y) > 0.999
    assert learner.fit(x, y[:, None]).predict(x).shape == (20, 1)
    assert learner.score(x, np.full(20, y.mean()) + [0.1, -0.1] * 10) < 0
    with pytest.raises(InnerloopError, match="R\\^2 needs values that differ"):
        learner.score(x, np.full(20, 1.0))
    with pytest.raises(InnerloopError, match="a regressor has no probabilities"):
        learner.predict_proba(x)


def test_float64_parameters_get_float64_data(tmp_path):
    """One step of gradient descent on data that float32 cannot hold, and the same from a file; bytes are divided."""
    x, y = 1 + 1e-9 * RNG.normal(size=(6, 2)), 1 + 1e-9 * RNG.normal(size=(6, 1))
    with jax.enable_x64(True):
        algorithm = maml(mean_squared_error(lambda w, x: x @ w), InnerLoop(optax.sgd(0.1), 1))
        learner = Learner(jnp.ones((2, 1)), algorithm).fit(x, y)
        w = 1 - 0.1 * 2 * x.T @ (x.sum(1, keepdims=True) - y) / 6
        np.testing.assert_allclose(learner.predict(x), x @ w, rtol=1e-14)
        assert learner.score(x, y) == pytest.approx(
            1 - np.sum((y - x @ w) ** 2) / np.sum((y - y.mean()) ** 2)
        )
        learner.save_adapted(tmp_path / "w")
        again = Learner(jnp.ones((2, 1)), algorithm).load_adapted(tmp_path / "w")
        np.testing.assert_array_equal(again.predict(x), learner.predict(x))
        assert learner.fit(np.array([[3, 5]], np.uint8), [1.0]).support_.tolist() == [[3 / 255, 5 / 255]]
    narrow = Learner(jnp.ones((2, 1)), algorithm).fit(x, y)
    assert narrow.support_.dtype == narrow.predict(x).dtype == np.float32


def test_regression_supports_custom_loss_and_two_outputs():
    x, y = line()
    both = np.stack([y, -y], 1)
    loss_fn = BatchLoss(lambda outputs, targets: jnp.mean(jnp.abs(outputs - targets) ** 1.5))
    learner = regressor(2, loss_fn, classification=False)
    learner.fit(x, both)
    assert learner.predict(x).shape == (20, 2)
    assert learner.score(x, both) > 0.99
    assert learner.fit(x, (both * 10).astype(np.uint8)).losses_[0] > 1


def test_regression_matches_inner_loop_on_squared_error():
    x, y = line()
    learner = regressor().fit(x, y)
    batch = Batch(jnp.asarray(x), jnp.asarray(y)[:, None])
    want = unroll(mean_squared_error(), learner.algorithm.inner, learner.params, batch)
    np.testing.assert_allclose(learner.losses_, want.losses, rtol=1e-4, atol=1e-6)


BAD_FITS = {
    "nan": (lambda x, y: (np.where(x > 1, np.nan, x), y), "x must be finite, got .* NaN or infinite values"),
    "empty": (lambda x, y: (x[:0], y[:0]), r"at least one example, got shape \(0, 4\)"),
    "scalar": (lambda x, y: (1.0, y), "at least one example"),
    "lengths": (lambda x, y: (x, y[:-1]), "differ in length, got 12 examples and 11 in y"),
    "one class": (lambda x, y: (x, y * 0), "needs at least two classes, got one class"),
    "many": (lambda x, y: (x, np.arange(12) % 6), "at most 5 classes, got 6; fit fewer classes"),
    "values": (lambda x, y: (x, np.sin(y)), "labels, not fractions, got .*; make the learner with `classif"),
    "one-hot": (lambda x, y: (x, np.eye(3)[y]), "one label per example, not one-hot rows"),
    "unhashable": (lambda x, y: (x, [[i] for i in y]), "labels must be hashable, got list; use strings"),
    "missing": (lambda x, y: (x, [float("nan"), *y[1:]]), "a label is missing, got nan"),
    "strings": (lambda x, y: (x.astype(str), y), "must hold real numbers"),
    "complex": (lambda x, y: (x.astype(complex), y), "must hold real numbers"),
    "ragged": (lambda x, y: ([[1.0], [1.0, 2.0]], y), "x must be one array"),
    "large": (lambda x, y: ((x * 1e12).astype(np.int64), y), "must fit 32 bits; pass them as floats"),
    "features": (lambda x, y: (x[:, :3], y), r"does not accept these inputs .* got x of shape \(12, 3\)"),
}


@pytest.mark.parametrize("case", BAD_FITS)
def test_invalid_fit_raises_and_keeps_fitted_params(learner, case):
    x, number = blobs()
    learner.fit(x, number)
    change, message = BAD_FITS[case]
    before = learner.params_
    with pytest.raises(InnerloopError, match=message):
        learner.fit(*change(x, number))
    assert learner.params_ is before


def test_invalid_use_of_learner_raises(learner):
    x, number = blobs()
    fresh = Learner(learner.params, ALGORITHM)
    for use in (lambda: fresh.predict(x), lambda: fresh.score(x, number), lambda: fresh.save_adapted("x")):
        with pytest.raises(InnerloopError, match="is not fitted; call fit"):
            use()
    learner.fit(x, number)
    with pytest.raises(InnerloopError, match=r"must have the shape \(4,\), got \(3,\)"):
        learner.predict(x[:, :3])
    with pytest.raises(InnerloopError, match="inner loop diverged"):
        Learner(learner.params, ALGORITHM.with_inner(rule=optax.sgd(1e30), steps=9)).fit(x * 1e9, number)
    with pytest.raises(
        InnerloopError, match="diverged in the parameters before any step, at `.*`, .*; check the p"
    ):
        Learner(jax.tree.map(lambda leaf: leaf + jnp.inf, learner.params), ALGORITHM).fit(x, number)
    with pytest.raises(InnerloopError, match="parameter `0` is not a float array"):
        Learner([jnp.arange(2)], ALGORITHM)
    with pytest.raises(InnerloopError, match=r"one output per example, got shape \(5,\)"):
        Learner(jnp.zeros((4, 5)), maml(cross_entropy(lambda p, x: (x @ p).mean(0)), INNER)).fit(x, number)
    with pytest.raises(InnerloopError, match="scores must be"):
        Learner(jnp.zeros(4), maml(cross_entropy(lambda p, x: x @ p), INNER)).fit(x, number)
    with pytest.raises(InnerloopError, match=r"y must have the shape \(20, 1\), got \(20, 2\)"):
        regressor().fit(line()[0], np.zeros((20, 2)))


@pytest.mark.parametrize(
    "name", ["inner", "algorithm", "params", "loss", "shape", "normalization", "n_steps"]
)
def test_learner_attributes_cannot_be_set(learner, name):
    """A setting that is changed after a fit, or one that there is not, would be ignored without a word."""
    with pytest.raises(InnerloopError, match=f"Learner: `{name}` cannot be set; call set_params"):
        setattr(learner, name, INNER)


@pytest.mark.parametrize(("first", "then"), [(np.uint8, np.int64), (np.int32, np.uint8)])
def test_predict_rejects_mix_of_bytes_and_other_integers(first, then):
    """Bytes are scaled and others are not: a mixture would be wrong by a factor of 255 without a word."""
    x, y = np.arange(12).reshape(6, 2) % 5, np.arange(6.0)[:, None]
    loss = mean_squared_error(lambda params, x: x.astype(jnp.float32) @ params)
    learner = Learner(jnp.ones((2, 1)), maml(loss, InnerLoop(optax.sgd(0.001), 1)))
    learner.fit(x.astype(first), y)
    assert np.isfinite(learner.predict(x.astype(first))).all()
    assert np.isfinite(learner.predict(x.astype(np.float32))).all()
    with pytest.raises(
        InnerloopError, match=r"x must hold (bytes|whole numbers), as in fit.*pass both as uint8"
    ):
        learner.predict(x.astype(then))
