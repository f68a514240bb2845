"""Adapted learners in files: what is saved, what is loaded again, and files that are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.learner.learners import ALGORITHM, blobs, line, regressor

from innerloop.algorithms import maml
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import BatchLoss, cross_entropy


def test_loaded_learner_predicts_like_saved_one(normalized, tmp_path):
    x, number = blobs()
    labels = [(("a", 1), ("b", 2), ("c", 3))[i] for i in number]
    want = normalized.fit(x, labels).predict_proba(x)
    normalized.save_adapted(tmp_path / "task.safetensors")
    other = Learner(normalized.params, ALGORITHM).load_adapted(tmp_path / "task.safetensors")
    np.testing.assert_allclose(other.predict_proba(x), want, rtol=1e-5)
    assert other.predict(x).tolist() == labels
    np.testing.assert_array_equal(other.losses_, normalized.losses_)


def arrays_in(path):
    return safetensors_reader.read(path, "adapted learner")[0]


@pytest.mark.parametrize("mode", ["inductive", "support", "transductive"])
@pytest.mark.parametrize("normalize", [False, True])
def test_file_holds_examples_only_if_normalisation_needs_them(tmp_path, mode, normalize):
    """They may be a patient's; what is predicted is the same with and without them."""
    x, number = blobs()
    params = MLP(4, 3, hidden=(6,), normalize=normalize, key=jax.random.key(0))
    learner = Learner(params, ALGORITHM, normalization=mode).fit(x, number)
    path = tmp_path / "task.safetensors"
    learner.save_adapted(path)
    needed = normalize and mode != "transductive"
    assert ("support" in arrays_in(path)) == needed
    wanted, more = x.astype(np.float32).tobytes() in path.read_bytes(), blobs(seed=1)[0]
    assert wanted == needed
    again = Learner(params, ALGORITHM, normalization=mode).load_adapted(path)
    np.testing.assert_allclose(again.predict_proba(more), learner.predict_proba(more), rtol=1e-5)
    with pytest.raises(InnerloopError, match="each example must have the shape"):
        again.predict(np.ones((2, 5)))
    again.save_adapted(tmp_path / "again.safetensors")
    assert arrays_in(tmp_path / "again.safetensors").keys() == arrays_in(path).keys()


def test_file_omits_integer_examples(tmp_path):
    table = BatchLoss(cross_entropy().measure, lambda params, x: params["rows"][x])
    params = {"rows": jnp.zeros((5, 2))}
    learner = Learner(params, maml(table, InnerLoop(optax.sgd(1.0), 2)))
    learner.fit(np.array([0, 3, 4]), ["a", "b", "b"]).save_adapted(tmp_path / "task.safetensors")
    assert "support" not in arrays_in(tmp_path / "task.safetensors")
    again = Learner(params, learner.algorithm).load_adapted(tmp_path / "task.safetensors")
    assert again.predict(np.array([4, 0])).tolist() == ["b", "a"]


def test_loading_file_without_needed_examples_raises(normalized, tmp_path):
    """It was saved by a learner of another normalisation; the learner stays as it was."""
    x, number = blobs()
    path = tmp_path / "task.safetensors"
    Learner(normalized.params, ALGORITHM, normalization="transductive").fit(x, number).save_adapted(path)
    before = normalized.fit(x, number).predict_proba(x)
    with pytest.raises(
        InnerloopError, match="holds no examples, which normalization `inductive` needs for this model"
    ):
        normalized.load_adapted(path)
    np.testing.assert_array_equal(normalized.predict_proba(x), before)


@pytest.mark.parametrize(
    "example",
    [None, 3, {}, {"shape": [4]}, {"shape": [-4], "dtype": "float32"}, {"shape": [4], "dtype": "O"},
     {"shape": [2**30, 2**30], "dtype": "float32"}, {"shape": [7], "dtype": "float32"}],
)  # fmt: skip
def test_loading_invalid_example_metadata_raises(learner, tmp_path, example):
    x, number = blobs()
    path = tmp_path / "task.safetensors"
    learner.fit(x, number).save_adapted(path)
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    facts = json.loads(metadata["learner"]) | {"example": example}
    safetensors_writer.write(path, arrays, {"learner": json.dumps(facts)}, hint="")
    with pytest.raises(InnerloopError, match="holds no adapted learner|another model"):
        learner.load_adapted(path)


def test_regressor_round_trips_and_mismatched_files_raise(learner, tmp_path):
    x, y = line()
    path = tmp_path / "task.safetensors"
    regressor().fit(x, y).save_adapted(path)
    np.testing.assert_allclose(regressor().load_adapted(path).predict(x), y, atol=1e-3)
    with pytest.raises(InnerloopError, match="one is a classifier, the other a regressor"):
        learner.load_adapted(path)
    with pytest.raises(InnerloopError, match="belongs to another model"):
        regressor(2).load_adapted(path)
    with pytest.raises(InnerloopError, match="holds no adapted learner"):
        learner.load_adapted(tmp_path / "absent.safetensors")
    points, number = blobs()
    learner.fit(points, [(b"x", b"y", b"z")[i] for i in number])
    with pytest.raises(InnerloopError, match="labels cannot be saved"):
        learner.save_adapted(tmp_path / "bytes.safetensors")
    assert not (tmp_path / "bytes.safetensors").exists()
