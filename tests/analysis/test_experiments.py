"""Every experiment against the same computed by hand, on a built-in network and on a model of one's own."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from analysis_cases import KEY, LAYERS, Lines, activations, apply, loss, own, separable, small
from training_cases import EPISODES, SPLITS  # pyright: ignore[reportMissingImports]

from innerloop import analysis
from innerloop.algorithms import maml
from innerloop.analysis import AnalyzedModel, NamedLayers, named_layers
from innerloop.analysis.analyzed_model import task_count
from innerloop.analysis.loss_landscape import _first_step
from innerloop.analysis.nil import cosine_scores
from innerloop.analysis.similarity import MEASURES, _measures_of
from innerloop.analysis.weight_movement import _angle
from innerloop.engine.inner import InnerLoop
from innerloop.engine.pytree import paths
from innerloop.engine.types import Batch, FiniteTasks, Task
from innerloop.errors import InnerloopError
from innerloop.nn import MLP, Conv4
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.training.trained import Trained

T5 = 2.570581836
"""The 0.975 quantile of Student's t with 5 degrees of freedom."""


def tasks_of(model, count):
    return [model.tasks.sample(jax.random.fold_in(KEY, i)) for i in range(count)]


def adapted(model, task, frozen=()):
    """The inner loop by hand: plain gradient descent on the dictionary's layers that are not frozen."""
    params = {"first": model.params["deep"]["first"], "out": model.params["out"]}
    tree = lambda p: {"deep": {"first": p["first"]}, "out": p["out"]}
    for _ in range(model.algorithm.inner.steps):
        grads = jax.grad(lambda p: loss(tree(p), task.support))(params)
        params = {n: x if n in frozen else x - 0.05 * grads[n] for n, x in params.items()}
    return tree(params)


def test_freezing_is_plain_gradient_descent_on_the_other_layers():
    model = own()
    told = []
    lines = analysis.freezing(
        model, tasks=6, key=KEY, on_progress=lambda done, total: told.append((done, total))
    )
    assert [x["frozen"] for x in lines] == [[], ["first"], ["first", "out"]]
    assert told[-1] == (18, 18)
    values = []
    for line in lines:
        by_hand = [loss(adapted(model, t, line["frozen"]), t.query) for t in tasks_of(model, 6)]
        values.append(np.array(by_hand))
        assert line["loss"] == pytest.approx(np.mean(by_hand), rel=1e-5)
        assert line["ci95"] == pytest.approx(T5 * np.std(by_hand, ddof=1) / np.sqrt(6), rel=1e-4)
    paired = values[2] - values[0]
    assert lines[2]["change"] == pytest.approx(paired.mean(), rel=1e-4)
    assert lines[2]["change_ci95"] == pytest.approx(T5 * np.std(paired, ddof=1) / np.sqrt(6), rel=1e-4)


def test_freezing_chosen_sets_and_what_the_algorithm_moves():
    """A head-only inner loop (ANIL) is measured once for all body sets; all frozen is no adaptation at all."""
    head = own(select="out")
    lines = analysis.freezing(head, [(), ("first",), ("out",)], tasks=4, key=KEY)
    assert lines[0]["loss"] == lines[1]["loss"]
    before = [loss(head.params, t.query) for t in tasks_of(head, 4)]
    assert lines[2]["loss"] == pytest.approx(np.mean(before), rel=1e-5)
    with pytest.raises(InnerloopError, match="`layer` is unknown, got 'third'; choose among: first, out"):
        analysis.freezing(head, [("third",)], tasks=4, key=KEY)
    with pytest.raises(InnerloopError, match="at least two tasks"):
        analysis.freezing(head, tasks=1, key=KEY)


class Few(FiniteTasks):
    """Three tasks, each measured once."""

    def __len__(self):
        return 3

    def task(self, number, key):
        return Lines().sample(key)


def test_progress_over_few_tasks_reaches_its_total():
    """However many tasks are asked for; and one task gives no interval."""
    model, told = replace(own(), tasks=Few()), []
    listen = lambda done, total: told.append((done, total))
    for experiment in (analysis.layer_movement, analysis.freezing, analysis.similarity_before_and_after):
        experiment(model, tasks=200, key=KEY, on_progress=listen)
    assert [now for now in told if now[0] == now[1]] == [(3, 3), (9, 9), (3, 3)]
    with pytest.raises(InnerloopError, match="at least two tasks, got 1"):
        task_count(type("One", (Few,), {"__len__": lambda self: 1})(), 200)


def test_a_score_without_a_known_name():
    model = replace(own(), score=lambda params, task: {"mse": loss(params, task.query)})
    with pytest.raises(InnerloopError, match="score: must return `accuracy` or `loss`, got mse"):
        analysis.freezing(model, tasks=2, key=KEY)
    model = replace(own(), score=lambda params, task: loss(params, task.query))
    with pytest.raises(InnerloopError, match="score: must return scores by name, got float"):
        analysis.freezing(model, tasks=2, key=KEY)


def test_layers_of_the_built_in_networks():
    """Names, parameters and activations; the last activation is what the network answers."""
    conv = Conv4(5, image_shape=(16, 16, 1), filters=4, features="mean", key=KEY)
    mlp = MLP(16, 5, hidden=(8, 6), normalize=True, key=KEY)
    images = jax.random.normal(KEY, (7, 16, 16, 1))
    for model, inputs, names in ((conv, images, 5), (mlp, images[:, :4, :4], 3)):
        layers = named_layers(model)
        layers.check(model)
        parts = layers.parts(model)
        assert len(layers.names) == names
        assert sum(len(x) for x in parts.values()) == len(paths(model))
        seen = layers.activations(model, inputs)
        assert tuple(seen) == layers.names
        assert jnp.allclose(seen["head"], model(inputs), atol=1e-6)
        assert jnp.allclose(layers.embed(model, inputs), model.embed(inputs), atol=1e-6)
        once, whole = (jax.make_jaxpr(f)(model, inputs) for f in (layers.activations, type(model).__call__))
        assert len(once.eqns) == len(whole.eqns)  # the body is computed once
    assert jnp.allclose(seen["hidden2"], mlp.embed(images[:, :4, :4]), atol=1e-6)


def test_layers_of_ones_own():
    assert (LAYERS.body, LAYERS.head) == (("first",), "out")
    x = jnp.ones((3, 1))
    assert jnp.array_equal(LAYERS.embed(own().params, x), activations(own().params, x)["first"])
    with pytest.raises(InnerloopError, match="a body and a head, got \\['a'\\]"):
        NamedLayers({"a": "a"}, activations)
    with pytest.raises(InnerloopError, match="layer 'lost' has no parameter; choose among: deep/first, out"):
        replace(own(), layers=NamedLayers({"lost": "nowhere", "out": "out"}, activations))
    with pytest.raises(InnerloopError, match="the model is not a built-in one, got dict; name its layers"):
        named_layers({"a": 1})


def test_similarity_before_and_after():
    """A frozen body is itself; a linear layer that only scales stays alike; shuffled points are not."""
    lines = analysis.similarity_before_and_after(
        replace(small(), algorithm=small().with_frozen(("hidden1",))), tasks=3, key=KEY
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


def test_the_queries_of_a_close_up_are_all_that_its_own_classes_have():
    """Of validation classes with four pictures, two are shots, however many the test classes have."""
    validation = ClassArrays.from_lists([np.zeros((4, 4, 4, 1), np.uint8)] * 3, list("abc"))
    few = replace(EPISODES, splits=SPLITS._replace(validation=validation))
    model = AnalyzedModel.from_trained(Trained(EPISODES.init_params(), few, "here", {}), part="validation")
    assert model.activation_tasks is not None
    assert model.activation_tasks.sample(KEY).query.targets.shape == (3 * 2,)


def test_similarity_is_that_of_the_activations():
    model = small()
    assert model.activation_tasks is not None
    found = analysis.similarity_before_and_after(model, tasks=2, key=KEY)
    assert model.activation_tasks is not None
    values = []
    for i in range(2):
        task = model.activation_tasks.sample(jax.random.fold_in(KEY, i))
        after = model.algorithm.adapt(model.params, task.support)
        pair = (model.layers.activations(p, task.query.inputs)["hidden1"] for p in (model.params, after))
        values.append(analysis.linear_cka(*pair))
    assert found[0]["cka"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)


def test_similarity_of_two_models():
    """A model against itself is 1 everywhere; against another one it is not; other layers are refused."""
    a = small()
    b = replace(a, params=jax.tree.map(lambda x: jnp.flip(x) + 0.1, a.params))
    assert all(
        x["cka"]["mean"] == pytest.approx(1, abs=1e-10)
        for x in analysis.similarity_across_models(a, a, tasks=2, key=KEY)
    )
    assert analysis.similarity_across_models(a, b, tasks=2, key=KEY)[0]["cka"]["mean"] < 0.99
    assert analysis.similarity_across_models(a, a, tasks=2, key=KEY, adapted=True)[1]["cca"][
        "mean"
    ] == pytest.approx(1, abs=1e-10)
    with pytest.raises(InnerloopError, match="need the same layers, got hidden1, head and first, out"):
        analysis.similarity_across_models(a, own(), tasks=2, key=KEY)


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
def test_layers_of_other_resolutions_have_no_points_in_common(monkeypatch, maximum):
    """Whether or not both have more points than are compared; with whole examples as points they can be compared."""
    monkeypatch.setattr("innerloop.analysis.similarity.MOST_POINTS", maximum)
    message = r"layer first must have the same points in both, got outputs of shape \(6, 2, 2, 2\) and \(6, 4, 4, 2\)"
    with pytest.raises(InnerloopError, match=message):
        analysis.similarity_across_models(magnified(1), magnified(2), tasks=2, key=KEY)


def test_whole_examples_are_compared_at_any_resolution():
    found = analysis.similarity_across_models(magnified(1), magnified(2), tasks=2, key=KEY, layout="flatten")
    assert found[0]["cca"]["mean"] == pytest.approx(1, abs=1e-5)
    assert found[0]["points"] == 6


def test_a_model_of_other_inputs_is_refused():
    wide = lambda model: replace(model, params={**model.params, "first": jnp.ones((3, 2))})
    with pytest.raises(
        InnerloopError, match=r"a model cannot read the queries \(.*got \(6, 4\); compare models"
    ):
        analysis.similarity_across_models(magnified(1), wide(magnified(1)), tasks=2, key=KEY)


def test_each_of_two_models_adapts_by_its_own_inner_loop():
    """Models of one network, one with three steps and one with a single long one."""
    a = small()
    assert a.activation_tasks is not None
    b = replace(a, algorithm=a.algorithm.with_inner(steps=1, rule=optax.sgd(2.0)))
    found = analysis.similarity_across_models(a, b, tasks=2, key=KEY, adapted=True)
    values = []
    for i in range(2):
        task = a.activation_tasks.sample(jax.random.fold_in(KEY, i))
        after = [s.algorithm.adapt(s.params, task.support) for s in (a, b)]
        values.append(
            analysis.linear_cka(*(a.layers.activations(p, task.query.inputs)["head"] for p in after))
        )
    assert found[-1]["cka"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert found[-1]["cka"]["mean"] < 1 - 1e-4


def test_measures_are_those_of_their_functions():
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


def test_activations_of_a_diverged_inner_loop():
    x = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]])
    with pytest.raises(InnerloopError, match="activations must be finite; lower the inner step size"):
        _measures_of(x, x)


def test_cosine_scores_by_hand():
    query, support = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    found = cosine_scores(query, support, jnp.array([0, 1, 1]), 2)
    weights = np.exp([1.0, 0.0, -1.0])
    assert found[0] == pytest.approx(
        [weights[0] / weights.sum(), weights[1:].sum() / weights.sum()], abs=1e-6
    )
    narrow = cosine_scores(query, support, jnp.array([0, 1, 1], jnp.uint8), 257)  # 257 wraps to 1 in a byte
    assert narrow[0].sum() == pytest.approx(1, abs=1e-6)


def test_nil():
    """Classes that any features tell apart are told apart without a head; a constant body is at chance or worse."""
    model = replace(small(), tasks=separable())
    scrambled = jax.tree.map(jnp.zeros_like, model.params)
    told = []
    bodies = {"trained": model.params, "none": scrambled}
    lines = analysis.nil(model, bodies, tasks=4, key=KEY, on_progress=lambda *now: told.append(now))
    assert [(x["body"], x["inner_loop"]) for x in lines] == [
        ("trained", True),
        ("trained", False),
        ("none", False),
    ]
    assert lines[1]["accuracy"] > 0.9
    assert lines[2]["accuracy"] == pytest.approx(1 / 3)
    assert lines[1]["change"] == pytest.approx(lines[1]["accuracy"] - lines[0]["accuracy"])
    assert told[-1] == (12, 12)
    with pytest.raises(InnerloopError, match="there is no NIL for regression"):
        analysis.nil(own(), {}, tasks=4, key=KEY)


def test_movement():
    model = own(select="out")
    lines = analysis.layer_movement(model, tasks=5, key=KEY)
    assert (lines[0]["relative"], lines[0]["angle"]) == (0, 0)
    old = model.params["out"]
    moved = [adapted(model, t, ("first",))["out"] for t in tasks_of(model, 5)]
    relative = [float(jnp.linalg.norm(new - old) / jnp.linalg.norm(old)) for new in moved]
    cosines = [float(jnp.vdot(new, old) / jnp.linalg.norm(new) / jnp.linalg.norm(old)) for new in moved]
    assert lines[1]["relative"] == pytest.approx(np.mean(relative), rel=1e-4)
    assert lines[1]["angle"] == pytest.approx(np.mean(np.degrees(np.arccos(cosines))), rel=1e-2)
    assert (lines[0]["parameters"], lines[1]["head"]) == (2, True)


def headless() -> AnalyzedModel:
    """The same model with a head of zeros, as after joint training; its body has no gradient at the first step."""
    model = own()
    return replace(model, params={**model.params, "out": jnp.zeros((2, 1))})


def test_a_layer_that_starts_at_zero_has_no_relative_movement():
    model = headless()
    body, head = analysis.layer_movement(model, tasks=2, key=KEY)
    assert body["relative"] > 0
    assert (head["relative"], head["relative_ci95"], head["angle"], head["angle_ci95"]) == (None,) * 4
    still = replace(model, algorithm=model.algorithm.with_inner(select="deep/first"))
    assert analysis.layer_movement(still, tasks=2, key=KEY)[1]["relative"] == 0
    moved = analysis.inner_step_curves(model, tasks=2, key=KEY)["layers"]["out"]["moved"]
    assert moved == {"mean": [0.0, None, None, None], "ci95": [0.0, None, None, None]}


def test_paths_of_a_part_that_starts_at_zero_have_absolute_lengths():
    model = headless()
    found = analysis.inner_paths(model, tasks=2, key=KEY)
    assert (found["body"]["relative"], found["head"]["relative"]) == (True, False)
    ends = [np.linalg.norm(adapted(model, t)["out"]) for t in tasks_of(model, 2)]
    assert found["head"]["lengths"]["inner"] == pytest.approx(np.mean(ends), rel=1e-3)
    with pytest.raises(InnerloopError, match="adaptation diverged; lower the inner step size"):
        analysis.inner_paths(own(rate=1e30), tasks=2, key=KEY)


def test_small_angles():
    """1e-5 radians, which the arccos of a float32 cosine cannot tell from 0."""
    a, b = jnp.array([1.0, 0.0]), jnp.array([3.0, 3e-5])
    assert float(_angle(a, b)) == pytest.approx(np.degrees(1e-5), rel=1e-3)


def test_steps():
    model = own()
    found = analysis.inner_step_curves(model, tasks=3, key=KEY)
    assert found["steps"] == [0, 1, 2, 3]
    tasks = tasks_of(model, 3)
    for steps in (0, 2):
        after = [adapted(replace(model, algorithm=model.algorithm.with_inner(steps=steps)), t) for t in tasks]
        for name, part in (("loss", "query"), ("support_loss", "support")):
            values = [loss(p, getattr(t, part)) for p, t in zip(after, tasks, strict=True)]
            assert found[name]["mean"][steps] == pytest.approx(np.mean(values), rel=1e-4)
        norms = [
            jnp.linalg.norm(jax.grad(loss)(p, t.support)["out"]) for p, t in zip(after, tasks, strict=True)
        ]
        assert found["layers"]["out"]["gradient"]["mean"][steps] == pytest.approx(np.mean(norms), rel=1e-4)
    assert found["layers"]["first"]["moved"]["mean"][0] == 0


def test_landscape():
    """At 0 and 1 the line has the losses before and after the first step; so has the plane at (1, 0) and (0, 1)."""
    model = own()
    line = analysis.loss_line(model, tasks=2, key=KEY, along=(0.0, 1.0))
    plane = analysis.loss_plane(model, key=KEY, grid=(0.0, 1.0))
    tasks = tasks_of(model, 2)
    once = replace(model, algorithm=model.algorithm.with_inner(steps=1))
    for at, params in ((0, [model.params] * 2), (1, [adapted(once, t) for t in tasks])):
        values = [float(loss(p, t.query)) for p, t in zip(params, tasks, strict=True)]
        assert line["query_loss"]["mean"][at] == pytest.approx(np.mean(values), rel=1e-5)
        assert plane["losses"][0][0][at] == pytest.approx(values[0], rel=1e-5)
        assert plane["losses"][1][at][0] == pytest.approx(values[1], rel=1e-5)
    paths = np.array(
        analysis.loss_plane(small(), key=KEY, grid=(0.0,))["paths"]
    )  # these tasks' steps are not parallel
    assert paths[:, 0] == pytest.approx(np.zeros((2, 2)), abs=1e-5)
    assert paths[:, 1] == pytest.approx(np.eye(2), abs=1e-3)
    step = _first_step(model, model.params, tasks[0])
    assert jnp.allclose(step["out"], adapted(once, tasks[0])["out"] - model.params["out"], atol=1e-6)


def test_the_losses_of_a_diverged_inner_loop():
    with pytest.raises(InnerloopError, match="the losses are not finite; lower the inner step size"):
        analysis.loss_plane(own(rate=1e30), key=KEY, grid=(0.0, 1.0))


def test_paths():
    """In a plane nothing is lost: with two parameters a part the projection keeps every length."""
    model = replace(own(), initial=jax.tree.map(lambda x: 2 * x, own().params))
    found = analysis.inner_paths(model, tasks=4, key=KEY)
    for part, name in (("body", "first"), ("head", "out")):
        get = lambda p, name=name: np.ravel(p["deep"]["first"] if name == "first" else p["out"])
        norm = np.linalg.norm(get(model.params))
        ends = [get(adapted(model, t)) - get(model.params) for t in tasks_of(model, 4)]
        lengths = np.linalg.norm(ends, axis=1) / norm
        shown = found[part]
        assert shown["lengths"]["inner"] == pytest.approx(lengths.mean(), rel=1e-3)
        assert shown["lengths"]["outer"] == pytest.approx(1, rel=1e-5)  # from 2 theta to theta
        for view in ("wide", "close"):
            assert np.linalg.norm(np.array(shown[view])[:, -1], axis=1) == pytest.approx(lengths, rel=1e-3)
            assert shown["shown"][view] == pytest.approx(1, abs=1e-4)
        assert np.array(shown["outer"]) == pytest.approx(np.array([[-1, 0], [0, 0]]), abs=1e-5)


def test_paths_of_what_does_not_move():
    found = analysis.inner_paths(own(select="out"), tasks=3, key=KEY)
    assert np.abs(found["body"]["close"]).max() == 0
    assert found["body"]["shown"] == {"wide": None, "close": None}
    assert found["body"]["outer"] == []


def test_along_training():
    """Each snapshot's lines are those of the same experiments on it."""
    model = own()
    other = jax.tree.map(lambda x: 0.5 * x, model.params)
    found = analysis.along_training(model, {0: other, 7: model.params}, tasks=4, close_tasks=2, key=KEY)
    assert [x["meta_step"] for x in found] == [0, 7]
    expected = analysis.freezing(model, [(), ("first",)], tasks=4, key=KEY)
    assert found[1]["freeze"] == expected
    assert found[0]["freeze"] != expected
    assert found[1]["similarity"] == analysis.similarity_before_and_after(model, tasks=2, key=KEY)


def test_the_lines_task_is_what_it_says():
    task = Lines().sample(KEY)
    slope = task.support.targets / task.support.inputs
    assert jnp.allclose(slope, slope[0], rtol=1e-5)
    assert apply(own().params, task.support.inputs).shape == (4, 1)
