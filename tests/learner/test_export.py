"""Exported networks: the file, run by another program, gives what `Learner` predicts."""

import json
import sys
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import innerloop as il
from innerloop.config.schema import Normalization
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.learner.exporting.formats import format_of
from innerloop.learner.exporting.network import network_of
from innerloop.learner.samples import mixed, support_pairs
from innerloop.nn.kernels import max_pool
from innerloop.nn.kernels.backend import backend, portable_tracing

RNG = np.random.default_rng(0)
SIDE = (16, 16, 1)
CLOSE = 1e-5


def conv4(downsample: Literal["stride", "pool"] = "stride") -> il.Conv4:
    return il.Conv4(3, image_shape=SIDE, filters=4, downsample=downsample, key=jax.random.key(0))


def pictures(examples: int) -> np.ndarray:
    return RNG.integers(0, 256, (examples, *SIDE), np.uint8)


def classifier(model=None, loss=il.cross_entropy(), **settings) -> il.Learner:  # noqa: B008 (a value)
    """Fitted to six pictures of three classes."""
    algorithm = il.maml(loss, il.InnerLoop(optax.sgd(0.1), steps=2))
    learner = il.Learner(conv4() if model is None else model, algorithm, **settings)
    return learner.fit(pictures(6), ["b", "a", "c"] * 2)


def regressor(normalization: Normalization = "inductive", **settings) -> il.Learner:
    algorithm = il.maml(il.mean_squared_error(), il.InnerLoop(optax.sgd(0.1), steps=2))
    model = il.MLP(4, 1, hidden=(8,), key=jax.random.key(0), **settings)
    learner = il.Learner(model, algorithm, normalization=normalization)
    return learner.fit(RNG.normal(size=(6, 4)), RNG.normal(size=6))


def called(path: Path, inputs: np.ndarray) -> np.ndarray:
    """What another program gets of a StableHLO file."""
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(inputs))


def inferred(path: Path, inputs: np.ndarray) -> np.ndarray:
    """What another program gets of an ONNX file."""
    import onnxruntime

    return np.asarray(onnxruntime.InferenceSession(path.read_bytes()).run(None, {"inputs": inputs})[0])


@pytest.mark.parametrize("normalization", ["transductive", "inductive", "support"])
def test_stablehlo_export_matches_image_classifier(normalization, tmp_path: Path):
    """As bytes, in batches of sizes that were not known, with the batch statistics that the learner uses."""
    learner = classifier(conv4("pool"), normalization=normalization)
    learner.export(tmp_path / "x.stablehlo")
    for size in (1, 5) if normalization == "inductive" else (5,):
        new = pictures(size)
        found = called(tmp_path / "x.stablehlo", new)
        np.testing.assert_allclose(found, learner.predict_proba(new), atol=CLOSE)
    file = jax.export.deserialize(bytearray((tmp_path / "x.stablehlo").read_bytes()))
    assert file.platforms == ("cpu", "cuda", "tpu")
    assert "tf32" not in file.mlir_module().lower()
    assert file.mlir_module().count("HIGHEST") >= 4  # products are exact on a GPU too


@pytest.mark.optimised
def test_stablehlo_export_matches_regressor_bitwise(tmp_path: Path):
    """With the learner's own batch; one by one, its products are of other shapes."""
    learner = regressor("transductive")
    learner.export(tmp_path / "x", format="stablehlo")
    new = RNG.normal(size=(7, 4)).astype(np.float32)
    found = called(tmp_path / "x", new)
    assert found.shape == learner.predict(new).shape == (7,)
    np.testing.assert_array_equal(found, learner.predict(new))


@pytest.mark.parametrize("normalization", ["transductive", "support"])
def test_onnx_export_matches_image_classifier(normalization, tmp_path: Path):
    """Each batch by its own statistics; and with the examples inside, one by one, as `inductive` networks are too."""
    pytest.importorskip("jax2onnx")
    learner = classifier(normalization=normalization)
    learner.export(tmp_path / "x.onnx")
    new = pictures(5)
    np.testing.assert_allclose(inferred(tmp_path / "x.onnx", new), learner.predict_proba(new), atol=CLOSE)


def test_onnx_export_matches_regressor_and_has_metadata(tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    learner = regressor(context=2)
    cumsum = jnp.cumsum
    learner.export(tmp_path / "x.onnx")
    assert jnp.cumsum is cumsum  # the converter puts its own in its place
    new = RNG.normal(size=(7, 4)).astype(np.float32)
    np.testing.assert_allclose(inferred(tmp_path / "x.onnx", new), learner.predict(new), atol=CLOSE)
    classes = classifier(il.MLP(256, 3, key=jax.random.key(0)))
    classes.export(tmp_path / "y.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "y.onnx")
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("inputs", "tensor(uint8)", ["batch", *SIDE])
    assert (found.name, found.type, found.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    about = session.get_modelmeta().custom_metadata_map
    assert about == {"classes": '["a", "b", "c"]', "normalization": "inductive"}


def test_exported_network_holds_examples_only_if_needed():
    """Two fits on other examples that end in the same parameters are the same network, unless it normalises."""
    model = lambda normalize: il.MLP(256, 3, hidden=(8,), normalize=normalize, key=jax.random.key(0))
    without = classifier(model(False))
    assert not network_of(without).holds_examples
    assert network_of(classifier(model(True))).holds_examples
    assert not network_of(classifier(model(True), normalization="transductive")).holds_examples
    content = lambda learner: str(jax.make_jaxpr(network_of(learner).function)(pictures(2)))
    before = content(without)
    without.support_ = without.support_[::-1] * 0
    assert content(without) == before


def far_away(**settings) -> tuple[il.Learner, np.ndarray]:
    """Normalises what lies above 5, which no input in [0, 1] does; and new inputs."""

    def apply(params, x):
        kept = jax.nn.relu(x - 5)
        return (kept - kept.mean(0)) / (kept.std(0) + 1e-3) @ params

    x = np.random.default_rng(0).uniform(0, 100, (12, 4)).astype(np.float32)
    weights = 0.1 * jax.random.normal(jax.random.key(0), (4, 3))
    algorithm = il.maml(il.cross_entropy(apply), il.InnerLoop(optax.sgd(0.1), steps=3))
    return il.Learner(weights, algorithm, **settings).fit(x, ["a", "b", "c"] * 4), x[:3] + 1


def test_examples_outside_unit_range_are_kept_when_needed(tmp_path: Path):
    """A model may be indifferent to its batch for numbers in [0, 1] and not for the user's."""
    learner, new = far_away()
    learner.export(tmp_path / "x.stablehlo")
    wanted = learner.predict_proba(new)
    np.testing.assert_allclose(called(tmp_path / "x.stablehlo", new), wanted, atol=CLOSE)
    learner.save_adapted(tmp_path / "x.safetensors")
    fresh = il.Learner(learner.params, learner.algorithm).load_adapted(tmp_path / "x.safetensors")
    np.testing.assert_allclose(fresh.predict_proba(new), wanted, atol=CLOSE)
    far_away(normalization="transductive")[0].save_adapted(tmp_path / "y.safetensors")
    with pytest.raises(InnerloopError, match="holds no examples, which normalization `inductive`"):
        fresh.load_adapted(tmp_path / "y.safetensors")


@pytest.mark.parametrize("examples", [np.full((1, 4), 50.0), np.full((3, 2), 7), np.arange(6)])
def test_mixed_samples_stay_within_range_of_examples(examples: np.ndarray):
    examples = examples.astype(np.float32 if examples.dtype.kind == "f" else np.int32)
    found = mixed(examples, 20, np.random.default_rng(0))
    assert (found.shape, found.dtype) == ((20, *examples.shape[1:]), examples.dtype)
    assert examples.min() <= found.min() <= found.max() <= examples.max()
    for _, one, other in support_pairs(examples):
        assert (one != other).any() or examples.dtype.kind == "i"
        assert one.dtype == other.dtype == examples.dtype


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_network_differing_from_learner_is_not_written(format, tmp_path: Path, monkeypatch):
    """Here it lacks the examples that it needs."""
    monkeypatch.setattr("innerloop.learner.programs.Programs.needs_examples", lambda *given: False)
    with pytest.raises(
        InnerloopError, match="would not predict as the learner does, got outputs that differ"
    ):
        far_away()[0].export(tmp_path / "x", format=format)
    assert list(tmp_path.iterdir()) == []


def test_network_input_dtype_follows_fit():
    """The type of the input is the one that the learner was fitted on; bytes alone are scaled."""
    model = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
    algorithm = il.maml(il.cross_entropy(lambda w, x: x @ w), il.InnerLoop(optax.sgd(1e-4), steps=1))
    for dtype, wanted in {"uint8": "uint8", "int64": "int32", "float64": "float32"}.items():
        x = np.arange(12).reshape(4, 3).astype(dtype)
        learner = il.Learner(model, algorithm).fit(x, [0, 1, 0, 1])
        network = network_of(learner)
        assert network.dtype == wanted
        found = jax.jit(network.function)(x.astype(wanted))
        np.testing.assert_allclose(found, learner.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_loaded_learner_keeps_input_dtype(dtype, tmp_path: Path):
    model = jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32)
    algorithm = il.maml(il.cross_entropy(lambda w, x: x @ w), il.InnerLoop(optax.sgd(1e-4), steps=1))
    learner = il.Learner(model, algorithm).fit(np.arange(12).reshape(4, 3).astype(dtype), [0, 1, 0, 1])
    path = tmp_path / "x.safetensors"
    learner.save_adapted(path)
    again = il.Learner(model, algorithm)
    assert network_of(again.load_adapted(path)).dtype == dtype
    again.export(tmp_path / "x.stablehlo")  # tried on numbers at random: the file holds no examples
    arrays, metadata = safetensors_reader.read(path, "adapted learner")
    facts = json.loads(metadata["learner"])
    for numbers, refused in (
        (None, False),
        ("bytes" if dtype == "int32" else "whole numbers", True),
        (3, True),
    ):
        about = {"learner": json.dumps(facts | {"numbers": numbers})}
        safetensors_writer.write(path, arrays, about, hint="")
        with pytest.raises(InnerloopError, match="does not say what") if refused else nullcontext():
            again.load_adapted(path)
    assert again.numbers_ is None


def test_portable_tracing_uses_no_custom_kernels():
    """Operations of XLA alone, with the values that our own kernels give."""
    model, x = conv4("pool"), jnp.asarray(pictures(2) / 255, jnp.float32)
    function = jax.jit(lambda x: model(x))
    ours, text = function(x), str(jax.make_jaxpr(function)(x))
    with portable_tracing():
        assert backend() == "any"
        plain, plain_text = function(x), str(jax.make_jaxpr(function)(x))
    assert backend() == "cpu"
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    assert "max_pool_pick" in text
    assert not {"max_pool_pick", "scan", "linear["} & {word for word in plain_text.split() if word}
    odd = jnp.asarray(RNG.normal(size=(2, 7, 5, 3)), jnp.float32).at[0, 0, 0, 0].set(jnp.nan)
    with portable_tracing():
        plain = max_pool.max_pool(odd)
    np.testing.assert_array_equal(plain, max_pool.max_pool(odd))


def test_format_follows_file_name():
    assert (
        format_of(Path("x.ONNX"), None)
        == format_of(Path("x.onnx"), "onnx")
        == format_of(Path("x"), "onnx")
        == "onnx"
    )
    with pytest.raises(
        InnerloopError, match=r"the file name does not match onnx, got x\.StableHLO; give another"
    ):
        format_of(Path("x.StableHLO"), "onnx")


def test_invalid_exports_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learner = regressor()
    with pytest.raises(InnerloopError, match="not fitted"):
        il.Learner(learner.params, learner.algorithm).export(tmp_path / "x.onnx")
    with pytest.raises(InnerloopError, match=r"cannot tell the format.*got x\.bin; give `format`"):
        learner.export(tmp_path / "x.bin")
    (tmp_path / "x.stablehlo").write_text("mine")
    with pytest.raises(InnerloopError, match="already exists"):
        learner.export(tmp_path / "x.stablehlo")
    for name, file in {"flatbuffers": "y.stablehlo", "jax2onnx": "y.onnx"}.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(
                InnerloopError, match=f"export: needs the package `{name}`, which is not inst"
            ):
                learner.export(tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.stablehlo"]
    learner.export(tmp_path / "x.stablehlo", overwrite=True)


def test_onnx_export_accepts_integers_and_rejects_float64(tmp_path: Path):
    """ONNX multiplies only numbers of one type, and jax2onnx takes float64 for float32."""
    pytest.importorskip("jax2onnx")
    algorithm = il.maml(il.cross_entropy(lambda w, x: x @ w), il.InnerLoop(optax.sgd(0.01), steps=1))
    x, path = np.arange(12).reshape(4, 3), tmp_path / "x.onnx"
    learner = il.Learner(jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32), algorithm).fit(x, [0, 1, 0, 1])
    learner.export(path)
    np.testing.assert_allclose(inferred(path, x.astype(np.int32)), learner.predict_proba(x), atol=CLOSE)
    with jax.enable_x64(True):
        wide = il.Learner(jnp.asarray(RNG.normal(size=(3, 2))), algorithm).fit(x / 12, [0, 1, 0, 1])
        with pytest.raises(
            InnerloopError, match="computes in 64 bits but ONNX files use 32; cast the parameters"
        ):
            wide.export(tmp_path / "y.onnx")
        wide.export(tmp_path / "y.stablehlo")


def test_lookup_table_network_takes_integer_inputs():
    table = il.cross_entropy(lambda rows, x: rows[x])
    learner = il.Learner(jnp.zeros((5, 2)), il.maml(table, il.InnerLoop(optax.sgd(1.0), steps=1)))
    x = np.array([0, 3, 4])
    found = jax.jit(network_of(learner.fit(x, ["a", "b", "b"])).function)(x.astype(np.int32))
    np.testing.assert_allclose(found, learner.predict_proba(x), atol=CLOSE)


def test_onnx_export_rejects_unsupported_labels(tmp_path: Path):
    """They are the labels' fault, and told before anything is converted."""
    pytest.importorskip("jax2onnx")
    days = [date(2020, 1, 1), date(2020, 1, 2)]
    algorithm = il.maml(il.cross_entropy(lambda w, x: x @ w), il.InnerLoop(optax.sgd(0.1), steps=1))
    learner = il.Learner(jnp.zeros((3, 2)), algorithm).fit(np.eye(3)[:2], days)
    with pytest.raises(InnerloopError, match=r"labels cannot be saved .*date.*; use strings"):
        learner.export(tmp_path / "x.onnx")


def test_wrong_onnx_conversion_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """jax2onnx has been seen to convert a model to another one; onnxruntime tells."""
    pytest.importorskip("jax2onnx")
    import jax2onnx

    learner, convert = regressor(), jax2onnx.to_onnx
    wrong = lambda function, *given, **more: convert(lambda x: 1.001 * function(x), *given, **more)
    monkeypatch.setattr(jax2onnx, "to_onnx", wrong)
    with pytest.raises(InnerloopError, match="does not convert this model right, got outputs that differ"):
        learner.export(tmp_path / "x.onnx")
    fails = lambda *given, **more: (_ for _ in ()).throw(NotImplementedError("no such primitive"))
    monkeypatch.setattr(jax2onnx, "to_onnx", fails)
    with pytest.raises(InnerloopError, match=r"cannot convert this model \(no such primitive\)"):
        learner.export(tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []
