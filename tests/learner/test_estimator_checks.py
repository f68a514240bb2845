"""scikit-learn's own checks of estimators, on a learner whose model takes any number of features."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

import innerloop as il
from innerloop.errors import InnerloopError

pytest.importorskip("sklearn", "1.6")  # which began to take exceptions
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "api" / "learner.md"

SETTINGS = "settings are checked when they are set, not in `fit`"
WORDS = "the error says the same in other words"
EXCEPTIONS = {
    "check_classifiers_regression_target": "labels may be floats",
    "check_complex_data": WORDS,
    "check_do_not_raise_errors_in_init_or_set_params": SETTINGS,
    "check_dtype_object": "arrays of Python objects are refused, even if all are numbers",
    "check_estimators_overwrite_params": "Optax's rules are closures, which only the learner's own pickle takes",
    "check_n_features_in_after_fitting": WORDS,
    "check_parameters_default_constructible": "`classification=None` is decided by the loss when it is set",
    "check_regressor_multioutput": "the outputs are the model's, here one",
    "check_set_params": SETTINGS,
    "check_supervised_y_2d": "labels in rows are refused, because they may be one-hot",
}
"""The checks that do not pass, and why. The page of the API has the same table."""

FEATURES = 100
"""The most features that the model takes."""


def any_features(params, x):
    """A network whose first matrix has a row for every feature there may be."""
    x = jnp.asarray(x, jnp.float32)
    return jnp.tanh(x @ params["body"][: x.shape[1]]) @ params["head"] + params["bias"]


def learner(classes: bool) -> il.Learner:
    outputs = 3 if classes else 1
    body = 0.3 * jax.random.normal(jax.random.key(0), (FEATURES, 16))
    params = {"body": body, "head": jnp.zeros((16, outputs)), "bias": jnp.zeros(outputs)}
    loss = il.cross_entropy(any_features) if classes else il.mean_squared_error(any_features)
    inner = il.InnerLoop(optax.sgd(0.5 if classes else 0.1), steps=50)
    return il.Learner(params, il.anil(loss, inner, head=("head", "bias")))


@pytest.mark.filterwarnings("ignore")
def test_check_estimator():
    """All checks pass but for the exceptions, and each exception is one."""
    failed = set()
    for classes in (True, False):
        results = estimator_checks.check_estimator(
            learner(classes), expected_failed_checks=EXCEPTIONS, on_skip=None, on_fail=None
        )
        assert len(results) > 40
        wrong = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
        assert not wrong, wrong
        failed |= {result["check_name"] for result in results if result["status"] == "xfail"}
    assert failed == set(EXCEPTIONS)


def test_docs_page_lists_expected_failed_checks():
    rows = [
        line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if "`check_" in line
    ]
    assert {name.strip("`"): reason for name, reason in rows} == EXCEPTIONS


def test_n_features_in_follows_last_fit(tmp_path: Path):
    """Only examples with one axis have one, whether they were fitted or loaded."""
    model = il.MLP(4, 2, hidden=(), key=jax.random.key(0))
    fitted = il.Learner(model, il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.1), 1)))
    x, y = np.arange(16.0).reshape(4, 4) / 16, [0, 1, 0, 1]
    assert not hasattr(fitted, "n_features_in_")
    fitted.fit(x, y).save_adapted(tmp_path / "vectors.safetensors")
    assert not hasattr(fitted.fit(x.reshape(4, 2, 2), y), "n_features_in_")
    assert fitted.load_adapted(tmp_path / "vectors.safetensors").n_features_in_ == 4


def test_learner_follows_estimator_conventions():
    x, y = np.arange(12.0).reshape(4, 3), np.arange(4) % 2
    with pytest.raises(NotFittedError, match="is not fitted; call fit"):
        learner(True).predict(x)
    assert learner(True).fit(x, y).n_features_in_ == 3
    assert hasattr(learner(True), "predict_proba")
    assert not hasattr(learner(False), "predict_proba")
    with pytest.raises(InnerloopError, match="requires y to be passed"):
        learner(True).fit(x, None)
    with pytest.raises(InnerloopError, match=r"0 feature\(s\)"):
        learner(True).fit(x[:, :0], y)
    with pytest.raises(InnerloopError, match="x must be dense, got a sparse matrix; call x.toarray"):
        learner(True).fit(csr_array(x), y)
