"""Movement, inner steps, loss landscape and paths of parameters against the same computed by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_cases import KEY, adapted, loss, own, small, tasks_of

from innerloop import analysis
from innerloop.analysis import AnalyzedModel
from innerloop.analysis.loss_landscape import _first_step
from innerloop.analysis.weight_movement import _angle
from innerloop.errors import InnerloopError


def test_layer_movement_matches_manual_computation():
    model = own(select="out")
    lines = analysis.layer_movement(model, num_tasks=5, key=KEY)
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


def test_zero_initialised_layer_has_no_relative_movement():
    model = headless()
    body, head = analysis.layer_movement(model, num_tasks=2, key=KEY)
    assert body["relative"] > 0
    assert (head["relative"], head["relative_ci95"], head["angle"], head["angle_ci95"]) == (None,) * 4
    still = replace(model, algorithm=model.algorithm.with_inner(select="deep/first"))
    assert analysis.layer_movement(still, num_tasks=2, key=KEY)[1]["relative"] == 0
    moved = analysis.inner_step_curves(model, num_tasks=2, key=KEY)["layers"]["out"]["moved"]
    assert moved == {"mean": [0.0, None, None, None], "ci95": [0.0, None, None, None]}


def test_paths_of_zero_initialised_part_are_absolute():
    model = headless()
    found = analysis.inner_paths(model, num_tasks=2, key=KEY)
    assert (found["body"]["relative"], found["head"]["relative"]) == (True, False)
    ends = [np.linalg.norm(adapted(model, t)["out"]) for t in tasks_of(model, 2)]
    assert found["head"]["lengths"]["inner"] == pytest.approx(np.mean(ends), rel=1e-3)
    with pytest.raises(InnerloopError, match="adaptation diverged; lower the inner step size"):
        analysis.inner_paths(own(rate=1e30), num_tasks=2, key=KEY)


def test_angle_resolves_small_angles():
    """1e-5 radians, which the arccos of a float32 cosine cannot tell from 0."""
    a, b = jnp.array([1.0, 0.0]), jnp.array([3.0, 3e-5])
    assert float(_angle(a, b)) == pytest.approx(np.degrees(1e-5), rel=1e-3)


def test_inner_step_curves_match_manual_computation():
    model = own()
    found = analysis.inner_step_curves(model, num_tasks=3, key=KEY)
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


def test_loss_landscape_matches_manual_computation():
    """At 0 and 1 the line has the losses before and after the first step; so has the plane at (1, 0) and (0, 1)."""
    model = own()
    line = analysis.loss_line(model, num_tasks=2, key=KEY, along=(0.0, 1.0))
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
    step = _first_step(model, model.params, tasks[0], KEY)
    assert jnp.allclose(step["out"], adapted(once, tasks[0])["out"] - model.params["out"], atol=1e-6)


def test_loss_plane_rejects_diverged_inner_loop():
    with pytest.raises(InnerloopError, match="the losses are not finite; lower the inner step size"):
        analysis.loss_plane(own(rate=1e30), key=KEY, grid=(0.0, 1.0))


def test_inner_paths_preserve_lengths_in_two_dimensions():
    """In a plane nothing is lost: with two parameters a part the projection keeps every length."""
    model = replace(own(), initial=jax.tree.map(lambda x: 2 * x, own().params))
    found = analysis.inner_paths(model, num_tasks=4, key=KEY)
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


def test_inner_paths_of_fixed_body_are_zero():
    found = analysis.inner_paths(own(select="out"), num_tasks=3, key=KEY)
    assert np.abs(found["body"]["close"]).max() == 0
    assert found["body"]["shown"] == {"wide": None, "close": None}
    assert found["body"]["outer"] == []
