import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml
from innerloop.config.schema import Config, DataConfig, EvaluationConfig, ModelConfig
from innerloop.engine.inner import InnerLoop
from innerloop.engine.types import Batch
from innerloop.engine.unroll import unroll
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.learner.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import BatchLoss, cross_entropy, mean_squared_error
from innerloop.training.storage import weights

INNER = InnerLoop(optax.sgd(0.5), steps=20)
ALGORITHM = maml(cross_entropy(), INNER)


@pytest.fixture(scope="module")
def learner():
    """Five outputs on four features, without batch normalisation."""
    return Learner(MLP(4, 5, hidden=(), key=jax.random.key(0)), ALGORITHM)


@pytest.fixture(scope="module")
def normalized():
    return Learner(MLP(4, 3, hidden=(6,), normalize=True, key=jax.random.key(0)), ALGORITHM)


def blobs(classes=3, each=4, seed=0):
    """Examples around one corner per class."""
    rng = np.random.default_rng(seed)
    number = np.tile(np.arange(classes), each)
    return np.eye(4, dtype=np.float32)[number] + rng.normal(0, 0.1, (classes * each, 4)), number


@pytest.mark.parametrize(
    "names",
    [["b", "a", "c"], [30, 10, 20], [("x", 1), ("x", 0), ("w", 2)], [2.5, -1.0, 0.0], ["a", 1, ("b",)]],
    ids=["strings", "ints", "tuples", "floats", "mixed"],
)
def test_learns_any_hashable_labels(learner, names):
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


def test_arrays_of_labels_of_either_library(learner):
    x, number = blobs()
    want = learner.fit(x, number).predict_proba(x)
    assert learner.classes_.tolist() == [0, 1, 2]
    got = learner.fit(jnp.asarray(x), jnp.asarray(number)).predict_proba(jnp.asarray(x))
    np.testing.assert_allclose(want, got, rtol=1e-6)
    assert learner.fit(x, np.array(["p", "q", "r"])[number]).predict(x[:3]).tolist() == ["p", "q", "r"]


def test_columns_follow_classes_and_only_they_take_part(learner):
    x, number = blobs()
    learner.fit(x, np.array(["c", "a", "b"])[number])
    found = learner.predict_proba(x)
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert learner.classes_[found.argmax(1)].tolist() == learner.predict(x).tolist()
    before, after = learner.params.head, learner.params_.head
    np.testing.assert_array_equal(before.weight[:, 3:], after.weight[:, 3:])
    np.testing.assert_array_equal(before.bias[3:], after.bias[3:])


def test_fewer_ways_is_the_inner_loop_of_a_smaller_model(learner):
    x, number = blobs()
    learner.fit(x, number)
    small = lambda params, inputs: params(inputs)[:, :3]
    batch = Batch(jnp.asarray(x, jnp.float32), jnp.asarray(number))
    want = unroll(cross_entropy(small), INNER, learner.params, batch)
    np.testing.assert_allclose(learner.losses_, want.losses, rtol=1e-5)
    np.testing.assert_allclose(learner.params_.head.weight, want.adapted.head.weight, rtol=1e-5, atol=1e-6)


def test_fitting_again_starts_from_the_initialisation(learner):
    x, number = blobs()
    first = learner.fit(x, number).losses_
    learner.fit(x, (number + 1) % 3)
    np.testing.assert_array_equal(learner.fit(x, number).losses_, first)


def test_two_classes_from_one_output():
    learner = Learner(MLP(4, 1, hidden=(), key=jax.random.key(0)), ALGORITHM)
    x, number = blobs(classes=2)
    learner.fit(x, np.array(["no", "yes"])[number])
    assert learner.score(x, np.array(["no", "yes"])[number]) == 1.0
    log_odds = np.asarray(learner.params_(jnp.asarray(x, jnp.float32)))[:, 0]
    np.testing.assert_allclose(learner.predict_proba(x)[:, 1], 1 / (1 + np.exp(-log_odds)), rtol=1e-4)


def test_a_label_never_fitted_is_an_error_in_the_score(learner):
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
def test_one_answer_does_not_depend_on_the_other_queries(normalized, mode):
    x, number = blobs()
    learner = Learner(normalized.params, ALGORITHM, normalization=mode).fit(x, number)
    queries = np.random.default_rng(1).normal(size=(70, 4))
    together = learner.predict_proba(queries)
    assert together.shape == (70, 3)
    for i in (0, 66, 69):
        np.testing.assert_allclose(learner.predict_proba(queries[i : i + 1])[0], together[i], rtol=1e-4)


def test_transductive_answers_do(normalized):
    x, number = blobs()
    learner = Learner(normalized.params, ALGORITHM, normalization="transductive").fit(x, number)
    queries = np.random.default_rng(1).normal(size=(6, 4))
    assert np.abs(learner.predict_proba(queries)[:3] - learner.predict_proba(queries[:3])).max() > 1e-3


def regressor(outputs=1, loss_fn=mean_squared_error(), **options):  # noqa: B008 (a value)
    params = MLP(2, outputs, hidden=(), key=jax.random.key(0))
    return Learner(params, maml(loss_fn, InnerLoop(optax.sgd(0.2), steps=300)), **options)


def line(examples=20):
    x = np.random.default_rng(0).normal(size=(examples, 2)).astype(np.float32)
    return x, x @ np.array([2.0, -1.0], np.float32) + 3


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


def test_regression_with_its_own_loss_and_more_outputs():
    x, y = line()
    both = np.stack([y, -y], 1)
    loss_fn = BatchLoss(lambda outputs, targets: jnp.mean(jnp.abs(outputs - targets) ** 1.5))
    learner = regressor(2, loss_fn, classification=False)
    learner.fit(x, both)
    assert learner.predict(x).shape == (20, 2)
    assert learner.score(x, both) > 0.99
    assert learner.fit(x, (both * 10).astype(np.uint8)).losses_[0] > 1


def test_regression_is_the_inner_loop_on_squared_error():
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
def test_bad_fits_say_what_is_wrong_and_change_nothing(learner, case):
    x, number = blobs()
    learner.fit(x, number)
    change, message = BAD_FITS[case]
    before = learner.params_
    with pytest.raises(InnerloopError, match=message):
        learner.fit(*change(x, number))
    assert learner.params_ is before


def test_other_errors(learner):
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


def save_model(path, config, shape):
    from innerloop.training.models import fresh_model

    params = fresh_model(config, shape, jax.random.key(3))
    weights.save(path, params, config, {})
    return params


def image_config(**data):
    model = ModelConfig(filters=4, features="flatten", downsample="pool")
    return Config(data=DataConfig(**data), model=model, evaluation=EvaluationConfig(steps=1))


def test_from_pretrained_reads_no_data(tmp_path, monkeypatch):
    for name in ("INNERLOOP_DATA", "INNERLOOP_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    path = tmp_path / "weights.safetensors"
    params = save_model(path, image_config(dataset="omniglot", ways=5), (28, 28, 1))
    learner = Learner.from_pretrained(path)
    jax.tree.map(np.testing.assert_array_equal, learner.params, params)
    assert learner.n_steps == 1
    assert learner.normalization == "inductive"
    assert Learner.from_pretrained(path, steps=7).n_steps == 7
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
    found = learner.fit(images, ["a", "b", "c"] * 2).predict_proba(images[:3])
    again = learner.fit(images / 255, ["a", "b", "c"] * 2).predict_proba(images[:3] / 255)
    np.testing.assert_allclose(found, again, rtol=1e-5)
    for bad, message in (
        (images[..., 0], r"shape \(28, 28, 1\), got \(28, 28\); add the last axis: x\[..., None\]"),
        (images[:, :20], r"got \(20, 28, 1\); resize the images"),
        (np.repeat(images, 3, -1), r"got \(28, 28, 3\); images are \[height, width, channels\]"),
        (images[:, :, 0, 0], r"got \(28,\); images are"),
        (images.astype(np.float32), "pixels must lie in 0..1, got 0 to 255; pass bytes"),
    ):
        with pytest.raises(InnerloopError, match=message):
            learner.fit(bad, ["a", "b", "c"] * 2)


@pytest.mark.parametrize(("size", "shape"), [(0, (None, None, 3)), (32, (32, 32, 3))])
def test_from_pretrained_on_a_folder_that_is_gone(tmp_path, size, shape):
    config = image_config(dataset="folder", folder="gone", size=size, ways=3)
    save_model(tmp_path / "w.safetensors", config, (32, 48 if size == 0 else 32, 3))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors")
    assert learner.shape == shape
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 48 if size == 0 else 32, 3), np.uint8)
    if size == 0:
        assert learner.fit(images, [0, 1] * 2).predict(images).shape == (4,)
    with pytest.raises(InnerloopError, match="does not accept these inputs|each example must have the shape"):
        learner.fit(images[:, :, :16], [0, 1] * 2)


@pytest.mark.parametrize("size", [0, 8])
def test_from_pretrained_fully_connected_on_images(tmp_path, size):
    config = replace(image_config(dataset="folder", size=size), model=ModelConfig(kind="mlp", hidden=(4,)))
    save_model(tmp_path / "w.safetensors", config, (8, 8, 3))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors")
    assert learner.shape == ((8, 8, 3) if size else None)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert learner.fit(images, [1, 2]).predict(images).shape == (2,)


def test_from_pretrained_regression(tmp_path):
    model = ModelConfig(kind="mlp", hidden=(4,))
    save_model(tmp_path / "w.safetensors", Config(data=DataConfig(dataset="sinusoid"), model=model), (1,))
    learner = Learner.from_pretrained(tmp_path / "w.safetensors", steps=3)
    assert not learner.classification
    x = np.linspace(-5, 50, 9)[:, None]
    assert learner.fit(x / 10, np.sin(x[:, 0])).predict(x / 10).shape == (9,)
    with pytest.raises(InnerloopError, match=r"shape \(1,\), got \(\); add the last axis"):
        learner.fit(x[:, 0], x[:, 0])
    with pytest.raises(InnerloopError, match=r"got \(2,\); give the features"):
        learner.fit(np.hstack([x, x]), x[:, 0])
    with pytest.raises(InnerloopError, match="there is no such preset, folder or file"):
        Learner.from_pretrained("no-such-preset")


def test_saved_and_loaded_predicts_the_same(normalized, tmp_path):
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
def test_a_file_holds_examples_only_where_normalisation_needs_them(tmp_path, mode, normalize):
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


def test_examples_of_whole_numbers_are_left_out_too(tmp_path):
    table = BatchLoss(cross_entropy().measure, lambda params, x: params["rows"][x])
    params = {"rows": jnp.zeros((5, 2))}
    learner = Learner(params, maml(table, InnerLoop(optax.sgd(1.0), 2)))
    learner.fit(np.array([0, 3, 4]), ["a", "b", "b"]).save_adapted(tmp_path / "task.safetensors")
    assert "support" not in arrays_in(tmp_path / "task.safetensors")
    again = Learner(params, learner.algorithm).load_adapted(tmp_path / "task.safetensors")
    assert again.predict(np.array([4, 0])).tolist() == ["b", "a"]


def test_a_file_without_examples_is_refused_where_they_are_needed(normalized, tmp_path):
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
def test_files_that_lie_about_their_examples(learner, tmp_path, example):
    x, number = blobs()
    path = tmp_path / "task.safetensors"
    learner.fit(x, number).save_adapted(path)
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    facts = json.loads(metadata["learner"]) | {"example": example}
    safetensors_writer.write(path, arrays, {"learner": json.dumps(facts)}, hint="")
    with pytest.raises(InnerloopError, match="holds no adapted learner|another model"):
        learner.load_adapted(path)


def test_saved_regression_and_files_that_do_not_fit(learner, tmp_path):
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


@pytest.mark.parametrize(
    "name", ["inner", "algorithm", "params", "loss", "shape", "normalization", "n_steps"]
)
def test_settings_of_a_learner_stay_as_they_are(learner, name):
    """A setting that is changed after a fit, or one that there is not, would be ignored without a word."""
    with pytest.raises(InnerloopError, match=f"Learner: `{name}` cannot be set; call set_params"):
        setattr(learner, name, INNER)


@pytest.mark.parametrize(("first", "then"), [(np.uint8, np.int64), (np.int32, np.uint8)])
def test_bytes_and_other_whole_numbers_are_not_mixed(first, then):
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
