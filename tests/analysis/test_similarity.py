"""Similarity of activations: before and after adaptation, and across models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from analysis_cases import KEY, own, small
from training_cases import EPISODES, SPLITS  # pyright: ignore[reportMissingImports]

from innerloop import analysis
from innerloop.algorithms import maml
from innerloop.analysis import AnalyzedModel, NamedLayers
from innerloop.analysis.similarity import MEASURES, _measures_of
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.training.trained import Trained


def test_similarity_before_and_after():
    """A frozen body is itself; a linear layer that only scales stays alike; shuffled points are not."""
    lines = analysis.similarity_before_and_after(
        replace(small(), algorithm=small().with_frozen(("hidden1",))), num_tasks=3, key=KEY
    )
    body, head = lines
    assert (body["layer"], body["head"], head["layer"], head["head"]) == ("hidden1", False, "head", True)
    for name in MEASURES:
        assert body[name] == {"mean": 1.0, "ci95": 0.0}
        assert head[name]["mean"] <= 1 + 1e-6
    assert head["cka"]["mean"] < 1 - 1e-4
    assert body["chance"]["cka"]["mean"] < 0.8
    assert (body["points"], body["neurons"], head["neurons"]) == (
        18,
        4,
        3,
    )  # 3 ways x 6 queries: all there are


def test_activation_tasks_use_all_queries_of_their_split():
    """Of validation classes with four pictures, two are shots, however many the test classes have."""
    validation = ClassArrays.from_lists([np.zeros((4, 4, 4, 1), np.uint8)] * 3, list("abc"))
    few = replace(EPISODES, splits=SPLITS._replace(validation=validation))
    model = AnalyzedModel.from_trained(Trained(EPISODES.init_params(), few, "here", {}), split="validation")
    assert model.activation_tasks is not None
    assert model.activation_tasks.sample(KEY).query.targets.shape == (3 * 2,)


def test_similarity_matches_cka_of_activations():
    model = small()
    assert model.activation_tasks is not None
    found = analysis.similarity_before_and_after(model, num_tasks=2, key=KEY)
    assert model.activation_tasks is not None
    values = []
    for i in range(2):
        task = model.activation_tasks.sample(jax.random.fold_in(KEY, i))
        after = model.algorithm.adapt(model.params, task.support)
        pair = (model.layers.activations(p, task.query.inputs)["hidden1"] for p in (model.params, after))
        values.append(analysis.linear_cka(*pair))
    assert found[0]["cka"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)


def test_similarity_across_models():
    """A model against itself is 1 everywhere; against another one it is not; other layers are refused."""
    a = small()
    b = replace(a, params=jax.tree.map(lambda x: jnp.flip(x) + 0.1, a.params))
    assert all(
        x["cka"]["mean"] == pytest.approx(1, abs=1e-10)
        for x in analysis.similarity_across_models(a, a, num_tasks=2, key=KEY)
    )
    assert analysis.similarity_across_models(a, b, num_tasks=2, key=KEY)[0]["cka"]["mean"] < 0.99
    assert analysis.similarity_across_models(a, a, num_tasks=2, key=KEY, adapted=True)[1]["cca"][
        "mean"
    ] == pytest.approx(1, abs=1e-10)
    with pytest.raises(InnerloopError, match="need the same layers, got hidden1, head and first, out"):
        analysis.similarity_across_models(a, own(), num_tasks=2, key=KEY)


def magnified(times: int):
    """A model of pictures of 2 x 2 whose first layer says everything `times` times along each axis."""

    def activations(params, x):
        seen = jnp.repeat(jnp.repeat(x.reshape(-1, 2, 2, 1) @ params["first"], times, 1), times, 2)
        return {"first": seen, "out": seen.mean((1, 2)) @ params["out"]}

    class Pictures:
        def sample(self, key):
            x = jax.random.normal(key, (6, 4))
            return Task(Batch(x, x), Batch(x, x))

    loss = lambda params, batch: jnp.mean(activations(params, batch.inputs)["out"] ** 2)
    return AnalyzedModel(
        {"first": jnp.ones((1, 2)), "out": jnp.ones((2, 1))},
        NamedLayers({"first": "first", "out": "out"}, activations),
        maml(loss, InnerLoop(optax.sgd(0.1), 1)),
        lambda params, task: {"loss": loss(params, task.query)},
        Pictures(),
    )


@pytest.mark.parametrize("maximum", [1000, 20], ids=["all points", "some points"])
def test_different_resolutions_are_rejected(monkeypatch, maximum):
    """Whether or not both have more points than are compared; with whole examples as points they can be compared."""
    monkeypatch.setattr("innerloop.analysis.similarity.MOST_POINTS", maximum)
    message = r"layer first must have the same points in both, got outputs of shape \(6, 2, 2, 2\) and \(6, 4, 4, 2\)"
    with pytest.raises(InnerloopError, match=message):
        analysis.similarity_across_models(magnified(1), magnified(2), num_tasks=2, key=KEY)


def test_flatten_layout_compares_different_resolutions():
    found = analysis.similarity_across_models(
        magnified(1), magnified(2), num_tasks=2, key=KEY, layout="flatten"
    )
    assert found[0]["cca"]["mean"] == pytest.approx(1, abs=1e-5)
    assert found[0]["points"] == 6


def test_model_with_incompatible_inputs_is_rejected():
    wide = lambda model: replace(model, params={**model.params, "first": jnp.ones((3, 2))})
    with pytest.raises(
        InnerloopError, match=r"a model cannot read the queries \(.*got \(6, 4\); compare models"
    ):
        analysis.similarity_across_models(magnified(1), wide(magnified(1)), num_tasks=2, key=KEY)


def test_each_model_adapts_with_its_own_inner_loop():
    """Models of one network, one with three steps and one with a single long one."""
    a = small()
    assert a.activation_tasks is not None
    b = replace(a, algorithm=a.algorithm.with_inner(steps=1, rule=optax.sgd(2.0)))
    found = analysis.similarity_across_models(a, b, num_tasks=2, key=KEY, adapted=True)
    values = []
    for i in range(2):
        task = a.activation_tasks.sample(jax.random.fold_in(KEY, i))
        after = [s.algorithm.adapt(s.params, task.support) for s in (a, b)]
        values.append(
            analysis.linear_cka(*(a.layers.activations(p, task.query.inputs)["head"] for p in after))
        )
    assert found[-1]["cka"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert found[-1]["cka"]["mean"] < 1 - 1e-4


def test_measures_match_their_functions():
    """One layer on one task: each measure is what the function of its name says, with its published settings."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(40, 6)) * [30, 10, 3, 1, 0.3, 0.1]).astype(np.float32)
    y = (x + rng.normal(size=(40, 6)) * [1, 3, 3, 2, 1, 1]).astype(np.float32)
    found = _measures_of(x, y)
    expected = {
        "cca": analysis.mean_cca(x, y),
        "svcca": analysis.svcca(x, y, variance=0.99),
        "pwcca": analysis.pwcca(x, y),
        "cka": analysis.linear_cka(x, y),
        "cka_debiased": analysis.linear_cka(x, y, debiased=True),
        "cka_rbf": analysis.rbf_cka(x, y),
    }
    assert {name: found[name] for name in MEASURES} == pytest.approx(expected)
    assert abs(analysis.svcca(x, y, variance=0.9) - expected["svcca"]) > 0.01
    assert found["chance_cka"] < 0.5 < found["cka"]


def test_non_finite_activations_are_rejected():
    x = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]])
    with pytest.raises(InnerloopError, match="activations must be finite; lower the inner step size"):
        _measures_of(x, x)
