"""A learner in scikit-learn's hands: copies, settings, pipelines, cross-validation and searches."""

import jax
import numpy as np
import optax
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import innerloop as il
from innerloop.errors import InnerloopError


def learner(classes: bool = True) -> il.Learner:
    model = il.MLP(4, 3 if classes else 1, hidden=(16,), key=jax.random.key(0))
    loss = il.cross_entropy() if classes else il.mean_squared_error()
    return il.Learner(model, il.maml(loss, il.InnerLoop(optax.sgd(0.5 if classes else 0.1), steps=20)))


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Thirty points around three centres, far from zero."""
    rng = np.random.default_rng(0)
    numbers = np.arange(30) % 3
    centres = rng.normal(size=(3, 4))
    names = np.array(["a", "b", "c"])[numbers]
    return 100 + 50 * (centres[numbers] + 0.1 * rng.normal(size=(30, 4))), names


def test_learner_estimator_type_and_repr():
    for classes in (True, False):
        assert is_classifier(learner(classes)) == classes
        assert is_regressor(learner(classes)) != classes
    assert repr(learner()) == (
        "Learner(params=<131 numbers>, algorithm=<MAML: inner_steps=20, inner_step_size=0.5, adapts='all'>, "
        "classification=True, normalization='inductive', shape=None, pixels=False)"
    )


def test_clone_copies_settings_but_is_not_fitted():
    x, y = clusters()
    first = learner().fit(StandardScaler().fit_transform(x), y)
    check_is_fitted(first)
    other: il.Learner = clone(first)  # pyright: ignore[reportAssignmentType]
    assert other.get_params() == first.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(other)
    again = other.fit(StandardScaler().fit_transform(x), y)
    np.testing.assert_array_equal(again.predict_proba(x / 100), first.predict_proba(x / 100))


def test_set_params_matches_constructor():
    x, y = clusters()
    one = learner().fit(x / 100, y)
    assert one.set_params() is one
    assert one.params_ is not None  # still fitted
    few = one.algorithm.with_inner(steps=1)
    changed = one.set_params(algorithm=few, normalization="transductive")
    assert changed is one
    assert (one.n_steps, one.normalization, one.params_) == (1, "transductive", None)
    expected = il.Learner(one.params, few, normalization="transductive").fit(x / 100, y)
    np.testing.assert_array_equal(one.fit(x / 100, y).predict_proba(x), expected.predict_proba(x))
    with pytest.raises(
        InnerloopError, match=r"Learner\.set_params: `setting` is unknown, got 'steps'; choose"
    ):
        one.set_params(steps=3)


def test_pipeline_applies_scaler_before_learner():
    """Without the scaler the same learner diverges or guesses: the inputs lie around 100."""
    x, y = clusters()
    whole = Pipeline([("scale", StandardScaler()), ("learn", learner())]).fit(x[:15], y[:15])
    by_hand = StandardScaler().fit(x[:15])
    alone = learner().fit(by_hand.transform(x[:15]), y[:15])
    np.testing.assert_array_equal(whole.predict(x), alone.predict(by_hand.transform(x)))
    assert whole.score(x[15:], y[15:]) > 0.8


def test_cross_val_score_matches_manual_folds():
    x, y = clusters()
    x = StandardScaler().fit_transform(x)
    order = np.arange(30)
    folds = [(order[order % 5 != i], order[order % 5 == i]) for i in range(5)]
    found = cross_val_score(learner(), x, y, cv=folds)
    expected = [learner().fit(x[a], y[a]).score(x[b], y[b]) for a, b in folds]
    np.testing.assert_array_equal(found, expected)
    assert found.mean() > 0.8


def test_grid_search_selects_number_of_steps():
    """No step at all is the worst choice."""
    x = StandardScaler().fit_transform(clusters()[0])
    algorithms = [learner().algorithm.with_inner(steps=n) for n in (0, 20)]
    search = GridSearchCV(learner(), {"algorithm": algorithms}, cv=3).fit(x, clusters()[1])
    assert search.best_params_["algorithm"].inner.steps == 20
    assert search.best_estimator_.n_steps == 20


def test_regressor_cross_val_score():
    x = np.linspace(-1, 1, 40)[:, None] * np.ones(4)
    y = x.sum(1)
    scores = cross_val_score(learner(classes=False), x, y, cv=[(np.arange(0, 40, 2), np.arange(1, 40, 2))])
    assert scores[0] > 0.5
