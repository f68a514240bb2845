"""Freezing, NIL and training dynamics against the same computed by hand, and the tasks of every experiment."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_cases import (
    KEY,
    LAYERS,
    Lines,
    adapted,
    apply,
    loss,
    own,
    separable,
    small,
    tasks_of,
    with_noise_and_state,
)

from innerloop import analysis
from innerloop.analysis.analyzed_model import task_count
from innerloop.analysis.nil import cosine_scores
from innerloop.engine.algorithm import loss_key
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.task_list import TaskList
from innerloop.engine.types import FiniteTasks, Task
from innerloop.errors import InnerloopError

T5 = 2.570581836


"""The 0.975 quantile of Student's t with 5 degrees of freedom."""


def test_freezing_matches_gradient_descent_on_other_layers():
    model = own()
    told = []
    lines = analysis.freezing(
        model, num_tasks=6, key=KEY, on_progress=lambda done, total: told.append((done, total))
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


def test_freezing_accepts_chosen_layer_sets():
    """A head-only inner loop (ANIL) is measured once for all body sets; all frozen is no adaptation at all."""
    head = own(select="out")
    lines = analysis.freezing(head, [(), ("first",), ("out",)], num_tasks=4, key=KEY)
    assert lines[0]["loss"] == lines[1]["loss"]
    before = [loss(head.params, t.query) for t in tasks_of(head, 4)]
    assert lines[2]["loss"] == pytest.approx(np.mean(before), rel=1e-5)
    with pytest.raises(InnerloopError, match="`layer` is unknown, got 'third'; choose among: first, out"):
        analysis.freezing(head, [("third",)], num_tasks=4, key=KEY)
    with pytest.raises(InnerloopError, match="at least two tasks"):
        analysis.freezing(head, num_tasks=1, key=KEY)


class Few(FiniteTasks):
    """Three tasks, each measured once."""

    def __len__(self):
        return 3

    def task(self, number, key):
        return Lines().sample(key)


def test_progress_reaches_total_with_few_tasks():
    """However many tasks are asked for; and one task gives no interval."""
    model, told = replace(own(), tasks=Few()), []
    listen = lambda done, total: told.append((done, total))
    for experiment in (analysis.layer_movement, analysis.freezing, analysis.similarity_before_and_after):
        experiment(model, num_tasks=200, key=KEY, on_progress=listen)
    assert [now for now in told if now[0] == now[1]] == [(3, 3), (9, 9), (3, 3)]
    with pytest.raises(InnerloopError, match="at least two tasks, got 1"):
        task_count(type("One", (Few,), {"__len__": lambda self: 1})(), 200)


def test_scores_without_known_name_are_rejected():
    model = replace(own(), score=lambda params, task: {"mse": loss(params, task.query)})
    with pytest.raises(InnerloopError, match="score: must return `accuracy` or `loss`, got mse"):
        analysis.freezing(model, num_tasks=2, key=KEY)
    model = replace(own(), score=lambda params, task: loss(params, task.query))
    with pytest.raises(InnerloopError, match="score: must return scores by name, got float"):
        analysis.freezing(model, num_tasks=2, key=KEY)


def test_results_of_own_model_hold_what_the_verdict_needs():
    """Beside the experiments, the facts about a model that a run has from its config."""
    model = own()
    found = model.results(freeze=analysis.freezing(model, num_tasks=6, key=KEY))
    facts = {"metric": "loss", "layers": ["first", "out"], "moves": "all", "ways": None}
    assert {**found, "freeze": None} == {**facts, "freeze": None}
    verdict = analysis.judge(found)
    assert verdict is not None
    assert verdict.sentences[-1].endswith("the verdict also needs the experiment similarity.")
    assert [own(select=part).moves for part in ("out", "deep")] == ["head", "body"]
    assert small().results() == {**facts, "metric": "accuracy", "layers": ["hidden1", "head"], "ways": 3}


def test_experiments_take_random_losses_and_model_state():
    """Every experiment adapts with the key that `evaluate` uses; scores and activations get the state."""
    model, tasks = with_noise_and_state(own()), tasks_of(own(), 2)
    asked = {"num_tasks": 2, "key": KEY}
    keys = [loss_key(jax.random.fold_in(KEY, i)) for i in range(2)]
    pairs = list(zip(tasks, keys, strict=True))
    ends = [model.algorithm.adapt(model.params, t.support, key=k).params["out"] for t, k in pairs]
    curve = evaluate(model.algorithm, model.params, model.tasks, model.score, key=KEY, num_tasks=2)
    scores = curve.mean("loss")
    steps = analysis.inner_step_curves(model, **asked)
    assert steps["loss"]["mean"] == pytest.approx(scores, rel=1e-5)
    assert steps["steps_taken"]["mean"] == [0, 1, 2, 3]
    frozen = analysis.freezing(model, [LAYERS.names, ()], **asked)
    assert [x["loss"] for x in frozen] == pytest.approx(scores[[0, -1]], rel=1e-5)
    out = model.params["out"]
    moved = np.mean([jnp.linalg.norm(end - out) / jnp.linalg.norm(out) for end in ends])
    assert analysis.layer_movement(model, **asked)[1]["relative"] == pytest.approx(moved, rel=1e-4)
    assert analysis.inner_paths(model, **asked)["head"]["lengths"]["inner"] == pytest.approx(moved, rel=1e-4)
    line = analysis.loss_line(model, along=(0.0,), **asked)["query_loss"]["mean"]
    before = [model.algorithm.query_loss(model.params, t.query, key=k) for t, k in pairs]
    assert line == pytest.approx([np.mean(before)], rel=1e-5)
    plane = analysis.loss_plane(model, key=KEY, grid=(0.0,))["losses"]
    assert np.ravel(plane) == pytest.approx(np.array(before), rel=1e-5)
    same = analysis.similarity_across_models(model, model, adapted=True, **asked)
    assert [x["cka"]["mean"] for x in same] == [1, 1]
    (along,) = analysis.along_training(model, {7: model.params}, num_tasks=2, num_close_tasks=2, key=KEY)
    assert along["similarity"] == analysis.similarity_before_and_after(model, **asked)


def test_cosine_scores_match_manual_computation():
    query, support = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    found = cosine_scores(query, support, jnp.array([0, 1, 1]), 2)
    weights = np.exp([1.0, 0.0, -1.0])
    assert found[0] == pytest.approx(
        [weights[0] / weights.sum(), weights[1:].sum() / weights.sum()], abs=1e-6
    )
    narrow = cosine_scores(query, support, jnp.array([0, 1, 1], jnp.uint8), 257)  # 257 wraps to 1 in a byte
    assert narrow[0].sum() == pytest.approx(1, abs=1e-6)


def test_nil_scores_body_features_without_head():
    """Classes that any features tell apart are told apart without a head; a constant body is at chance or worse."""
    model = replace(small(), tasks=separable())
    scrambled = jax.tree.map(jnp.zeros_like, model.params)
    told = []
    bodies = {"trained": model.params, "none": scrambled}
    lines = analysis.nil(model, bodies, num_tasks=4, key=KEY, on_progress=lambda *now: told.append(now))
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
        analysis.nil(own(), {}, num_tasks=4, key=KEY)


def test_masked_examples_do_not_count():
    """NIL takes neither padded support examples nor padded queries; similarity, which has no mask, refuses them."""
    model, sizes = small(), [(3, 9), (5, 4), (6, 7)]
    whole = [separable().sample(jax.random.fold_in(KEY, i)) for i in range(3)]
    first = lambda batch, n: jax.tree.map(lambda x: x[:n], batch)
    unequal = [Task(first(t.support, n), first(t.query, q)) for t, (n, q) in zip(whole, sizes, strict=True)]
    model = replace(model, tasks=TaskList(unequal), activation_tasks=None, normalization="inductive")
    line = analysis.nil(model, {"trained": model.params}, num_tasks=3, key=KEY)[1]
    embed, right = lambda batch: model.layers.embed(model.params, batch.inputs), []
    for task in unequal:
        found = cosine_scores(embed(task.query), embed(task.support), task.support.targets, 3)
        right.append(np.mean(np.argmax(found, axis=1) == task.query.targets))
    assert line["accuracy"] == pytest.approx(np.mean(right))
    with pytest.raises(InnerloopError, match="similarity: the queries have a mask"):
        analysis.similarity_before_and_after(model, num_tasks=2, key=KEY)


def test_along_training_matches_single_experiments():
    """Each snapshot's lines are those of the same experiments on it."""
    model = own()
    other = jax.tree.map(lambda x: 0.5 * x, model.params)
    found = analysis.along_training(
        model, {0: other, 7: model.params}, num_tasks=4, num_close_tasks=2, key=KEY
    )
    assert [x["meta_step"] for x in found] == [0, 7]
    expected = analysis.freezing(model, [(), ("first",)], num_tasks=4, key=KEY)
    assert found[1]["freeze"] == expected
    assert found[0]["freeze"] != expected
    assert found[1]["similarity"] == analysis.similarity_before_and_after(model, num_tasks=2, key=KEY)


def test_lines_tasks_have_constant_slope():
    task = Lines().sample(KEY)
    slope = task.support.targets / task.support.inputs
    assert jnp.allclose(slope, slope[0], rtol=1e-5)
    assert apply(own().params, task.support.inputs).shape == (4, 1)
