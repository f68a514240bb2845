"""The inner loop's observations, minibatches and errors; parameter trees by path."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import anil, boil, cavia, imaml, maml, reptile
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.inner.unroll import unroll
from innerloop.engine.pytree import Except, combine, partition, paths
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.nn.losses import mean_squared_error

SGD = optax.sgd(0.5)


def loss(params: Any, batch: Batch) -> jax.Array:
    return jnp.mean(jnp.square(params["w"] - batch.inputs)) / 2 + jnp.mean(
        params["head"]["b"] * batch.targets
    )


def problem(examples: int = 4) -> tuple[dict, Batch]:
    params = {"head": {"b": jnp.zeros(())}, "w": jnp.zeros(())}
    return params, Batch(jnp.arange(examples) * 1.0, jnp.ones(examples))


def test_observations_before_each_step_and_at_end():
    """w_{i+1} = w_i - 0.5 (w_i - 1.5); b falls by 0.5 a step."""
    params, batch = problem()
    seen = unroll(loss, InnerLoop(SGD, 3), params, batch, lambda p, i: (p["w"], p["head"]["b"], i))
    np.testing.assert_allclose(seen.observed[0], [0.0, 0.75, 1.125, 1.3125])
    np.testing.assert_allclose(seen.observed[1], [0.0, -0.5, -1.0, -1.5])
    np.testing.assert_array_equal(seen.observed[2], [0, 1, 2, 3])
    assert seen.adapted["w"] == 1.3125
    assert seen.losses.shape == (3,)
    assert unroll(loss, InnerLoop(SGD, 3), params, batch).observed is None


def test_observations_include_frozen_parameters():
    params, batch = problem()
    seen = unroll(
        loss, InnerLoop(SGD, 2, select="head"), params, batch, lambda p, i: (p["w"], p["head"]["b"])
    )
    np.testing.assert_array_equal(seen.observed[0], np.zeros(3))
    np.testing.assert_allclose(seen.observed[1], [0.0, -0.5, -1.0])


@pytest.mark.parametrize("select", [None, "w"])
def test_minibatches_cycle_through_support_set(select):
    """Steps of size 1 put w at the minibatch's mean: rows 0-2, 3-5, 6 0 1 of seven."""
    params, batch = problem(7)
    inner = InnerLoop(optax.sgd(1.0), 3, minibatch=3, select=select)
    seen = unroll(loss, inner, params, batch, lambda p, i: p["w"]).observed
    np.testing.assert_allclose(seen, [0.0, 1.0, 4.0, 7 / 3], rtol=1e-6)


def test_oversized_minibatch_uses_all_examples():
    params, batch = problem()
    seen = unroll(
        loss, InnerLoop(optax.sgd(1.0), 2, minibatch=9), params, batch, lambda p, i: p["w"]
    ).observed
    np.testing.assert_allclose(seen, [0.0, 1.5, 1.5])


@pytest.mark.parametrize(("counted", "size"), [([1, 3, 5], 2), ([0, 1], 3), ([6], 7), ([0, 1, 2, 3], 2)])
def test_minibatches_skip_masked_rows(counted: list[int], size: int):
    """The steps are those of the set without the excluded rows, wherever these lie."""
    mask = jnp.zeros(7, bool).at[jnp.array(counted)].set(True)
    _, batch = problem(7)
    padded = Batch(jnp.where(mask, batch.inputs, jnp.nan)[:, None], batch.targets[:, None], mask)
    short = Batch(*(x[jnp.array(counted)] for x in padded[:2]))
    fn = mean_squared_error(lambda params, inputs: params["w"] * jnp.ones_like(inputs) + 0 * inputs)
    inner = InnerLoop(optax.sgd(0.1), 4, minibatch=size)
    losses = [unroll(fn, inner, {"w": jnp.full((), 5.0)}, given).losses for given in (padded, short)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": -1}, "`steps` must be 0 or more, got -1"),
        ({"minibatch": 0}, "`minibatch` must be 1 or more, got 0"),
    ],
)
def test_invalid_settings_raise(fields: dict, message: str):
    with pytest.raises(InnerloopError, match=message):
        InnerLoop(SGD, **fields)


def test_invalid_rule_raises():
    inner = InnerLoop(SGD)
    object.__setattr__(inner, "rule", 0.1)
    with pytest.raises(InnerloopError, match="`rule` must be an Optax optimiser, got 0.1; pass optax.sgd"):
        inspect.unwrap(InnerLoop.__post_init__)(inner)


@pytest.mark.parametrize("rule", [optax.lbfgs(), optax.polyak_sgd(), optax.noisy_sgd(0.1, key=0)])
def test_rules_that_read_loss_reduce_it(rule: optax.GradientTransformation):
    """A line search reads the loss and evaluates it again; a step of Polyak's is as long as the loss is large."""
    params, batch = problem()
    bowl = lambda params, batch: jnp.mean(jnp.square(params["w"] - batch.inputs))
    found = unroll(bowl, InnerLoop(rule, 3, select="w"), params, batch)
    assert found.losses[-1] < found.losses[0]


def tells_the_loss_elsewhere(updates: Any, state: Any, params: Any = None, **given: Any) -> Any:
    """An update that is the loss one further on, if the loss is the same where it was evaluated before."""
    again = given["value_fn"]
    further = again(jax.tree.map(lambda x: x + 1, params))
    return jax.tree.map(lambda _: further + 1e3 * (again(params) - given["value"]), params), state


@pytest.mark.parametrize("fields", [{}, {"minibatch": 2}, {"stream": True}])
@pytest.mark.parametrize("derivative", ["unrolled", "mixed"])
def test_rule_value_fn_uses_batch_of_current_step(fields: dict, derivative: Any):
    """With the batch of that step: w <- w + L(w + 1; batch)."""
    rule = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), tells_the_loss_elsewhere)
    params, batch = problem(6)
    parts = [slice(0, 2), slice(2, 4)] if fields else [slice(None)] * 2
    support = jax.tree.map(lambda x: x.reshape(3, 2), batch) if "stream" in fields else batch
    inner = InnerLoop(rule, 2, select="w", derivative=derivative, **fields)
    adapted = unroll(loss, inner, params, support).adapted
    w = 0.0
    for part in parts:
        w += np.mean(np.square(w + 1 - np.asarray(batch.inputs[part]))) / 2
    np.testing.assert_allclose(adapted["w"], w, rtol=1e-6)


def takes_the_gradient_again(updates: Any, state: Any, params: Any = None, **given: Any) -> Any:
    """Gradient descent by a gradient that the rule takes itself."""
    return jax.tree.map(lambda g: -0.5 * g, jax.grad(given["value_fn"])(params)), state


@pytest.mark.parametrize("derivative", ["unrolled", "mixed"])
@pytest.mark.parametrize("last", [None, 0, 1])
def test_gradients_taken_by_rule_match_sgd_under_truncation(last: int | None, derivative: Any):
    """The result and its derivative are those of gradient descent."""
    params, batch = problem()
    steep = lambda params, batch: loss({**params, "w": params["w"] ** 2}, batch)
    own = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), takes_the_gradient_again)

    def after(w: jax.Array, rule: optax.GradientTransformation) -> jax.Array:
        inner = InnerLoop(rule, 2, select="w", last=last, derivative=derivative)
        return unroll(steep, inner, {**params, "w": w}, batch).adapted["w"]

    found, wanted = (
        jax.jit(jax.value_and_grad(lambda w, rule=rule: after(w, rule)))(0.3) for rule in (own, SGD)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_rule_error_is_attributed_to_rule():
    def wrong(updates: Any, params: Any) -> Any:
        raise ValueError("needs something else\nin detail")

    params, batch = problem()
    told = r"^InnerLoop: its rule cannot take a step \(needs something else\); give a rule whose `update"
    with pytest.raises(InnerloopError, match=told):
        maml(loss, InnerLoop(optax.stateless(wrong))).adapt(params, batch)


def test_rule_for_different_tree_raises():
    params, batch = problem()
    slow = optax.lookahead(optax.sgd(0.1), 2, 0.5)
    with pytest.raises(InnerloopError, match="InnerLoop: its rule cannot take a step .*no attribute 'fast'"):
        maml(loss, InnerLoop(slow)).adapt(params, batch)


@pytest.mark.parametrize("wrapped", [lambda rule: rule, lambda rule: optax.chain(optax.clip(1.0), rule)])
def test_sam_rule_matches_manual_loop(wrapped: Any):
    """Adversarial steps of SAM, and their meta-gradient, are those of the loop by hand, also in imaml."""
    params, batch = problem()
    params = {**params, "w": jnp.full((), 0.7)}
    steep = lambda params, batch: loss({**params, "w": params["w"] ** 2}, batch)
    rule = wrapped(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), sync_period=2))

    def by_hand(params: Any) -> jax.Array:
        state = rule.init(params)
        for _ in range(4):
            updates, state = rule.update(jax.grad(steep)(params, batch), state, params)
            params = optax.apply_updates(params, updates)
        return steep(params, batch)

    found, _ = maml(steep, InnerLoop(rule, 4)).meta_grad(params, Task(batch, batch))
    expected = jax.jit(jax.grad(by_hand))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert np.isfinite(imaml(steep, InnerLoop(rule, 2)).adapt(params, batch)["w"])


def test_rule_type_error_is_not_retried_without_extra_arguments():
    """It is not taken for a sign that the rule takes no extra arguments."""

    def update(updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any) -> Any:
        wrong: Any = optax.tree.scale
        return (updates if value is None else wrong(1.0, updates, oops=1)), state

    params, batch = problem()
    rule = optax.GradientTransformationExtraArgs(lambda params: (), update)
    with pytest.raises(InnerloopError, match="its rule cannot take a step .*'oops'"):
        maml(loss, InnerLoop(rule)).adapt(params, batch)


def test_maml_through_line_search_raises_under_jit():
    """As without `jax.jit`."""
    params, batch = problem()
    bowl = lambda params, batch: jnp.mean(jnp.square(params["w"] - batch.inputs))
    algorithm = maml(bowl, InnerLoop(optax.lbfgs(), select="w"))
    with pytest.raises(InnerloopError, match="meta-gradient: .* optax.lbfgs's line search; use fomaml"):
        jax.jit(algorithm.meta_grad)(params, Task(batch, batch))


def test_unknown_derivative_raises():
    """As met by users, whose programs do not check types at run time."""
    inner = InnerLoop(SGD)
    object.__setattr__(inner, "derivative", "forward")
    with pytest.raises(
        InnerloopError, match="`derivative` is unknown, got 'forward'; choose among: unrolled, remat"
    ):
        inspect.unwrap(InnerLoop.__post_init__)(inner)


@pytest.mark.parametrize(
    ("loss_fn", "got"),
    [
        (lambda p, b: jnp.square(p["w"] - b.inputs), r"shape \(4,\) of float32; take the mean"),
        (lambda p, b: jnp.argmax(b.inputs), r"shape \(\) of int32; compute it from the parameters"),
        (lambda p, b: None, "NoneType; return it"),
        (lambda p, b: (p["w"], 1.0), "tuple; use `Loss` to declare"),
    ],
)
def test_non_scalar_loss_raises(loss_fn, got: str):
    params, batch = problem()
    for algorithm in (maml(loss_fn, InnerLoop(SGD)), reptile(loss_fn, InnerLoop(SGD))):
        with pytest.raises(InnerloopError, match=f"loss must be one float, got {got}"):
            algorithm.adapt(params, batch)


def test_reptile_rejects_zero_steps():
    with pytest.raises(InnerloopError, match="at least one step, got 0"):
        reptile(loss, InnerLoop(SGD, 0))


@pytest.mark.parametrize("make", [anil, boil])
def test_misspelt_head_raises(make):
    """Both name what they select; BOIL's complement must not silently become everything."""
    params, batch = problem()
    with pytest.raises(InnerloopError, match="'haed' matches no parameter; choose among: head/b, w"):
        make(loss, InnerLoop(SGD), head="haed").adapt(params, batch)


@pytest.mark.parametrize(("make", "name"), [(anil, "head"), (boil, "head"), (cavia, "context")])
def test_none_as_head_or_context_raises(make, name: str):
    """As a selection it would be everything, which is another algorithm."""
    with pytest.raises(InnerloopError, match=f"`{name}` must be a selection of parameters, got None"):
        make(loss, InnerLoop(optax.sgd(0.1)), **{name: None})


def of_own(updates: Any, state: Any, params: Any = None) -> Any:
    return SGD.update(updates, state, params)


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (optax.sgd(0.1, momentum=0.9), 0.1),
        (optax.chain(optax.clip(1.0), optax.adam(0.01)), 0.01),
        (optax.rmsprop(0.1), 0.1),  # `identity` follows
        (optax.sgd(optax.cosine_decay_schedule(0.1, 10)), None),
        (optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, lambda params: params), None),
        (optax.sgd(-0.1), None),  # uphill
        (optax.chain(optax.sgd(0.1), optax.scale(0.5)), None),
        (optax.chain(optax.sgd(0.1), optax.scale_by_adam()), None),
        (optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)), None),
        (optax.lbfgs(), None),
        (optax.polyak_sgd(), None),
        (optax.masked(optax.sgd(0.1), {"w": False}), None),
        (optax.GradientTransformation(SGD.init, of_own), None),
    ],
)
def test_step_size_of_rule(rule: optax.GradientTransformation, size: float | None):
    assert InnerLoop(rule).step_size == size


def test_inner_loop_repr_shows_settings():
    shown = repr(InnerLoop(optax.sgd(0.1), 5, select="head"))
    assert shown == "InnerLoop(rule=<step size 0.1>, steps=5, select='head')"
    assert "select=array(['w', 'b']" in repr(InnerLoop(SGD, select=np.array(["w", "b"])))


@pytest.mark.parametrize("selection", ["", ("w", "haed"), Except(("haed", "w"))])
def test_partition_rejects_unmatched_name(selection):
    """A misspelt one beside a right one would change the algorithm without a word."""
    with pytest.raises(InnerloopError, match="matches no parameter; choose among: head/b, w"):
        partition(problem()[0], selection)


@pytest.mark.parametrize(
    "selection", [lambda path: False, Except(lambda path: True), lambda path: path == "head"]
)
def test_select_function_without_match_raises(selection):
    """Else the inner loop would move nothing, without a word; `()` says so."""
    params, batch = problem()
    with pytest.raises(
        InnerloopError, match=r"select: the function selects no parameter; the paths are: head/b, w; \(\)"
    ):
        maml(loss, InnerLoop(SGD, select=selection)).adapt(params, batch)
    same = maml(loss, InnerLoop(SGD, select=())).adapt(params, batch)
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_partition_and_combine():
    tree = {"body": [jnp.zeros(1), jnp.ones(2)], "head": jnp.ones(3), "headless": jnp.ones(4)}
    assert paths(tree) == ["body/0", "body/1", "head", "headless"]
    for selection, count in [
        (None, 4),
        ("head", 1),  # a whole name, not the start of one
        ("body/1", 1),
        ("body/", 2),
        (("head", "body/0"), 2),
        ((), 0),
        (lambda path: path.endswith("1"), 1),
        (Except("head"), 3),
        (Except(("head", "body")), 1),
        (Except(()), 4),
    ]:
        selected, rest = partition(tree, selection)
        assert len(jax.tree.leaves(selected)) == count
        assert len(jax.tree.leaves(rest)) == 4 - count
        jax.tree.map(np.testing.assert_array_equal, combine(selected, rest), tree)


def test_check_trainable_rejects_non_float_parameters():
    with pytest.raises(InnerloopError, match="tree has no array"):
        check_trainable({}, "x")
    with pytest.raises(InnerloopError, match="`a/1` is not a float array, got int32; keep only float arrays"):
        check_trainable({"a": [jnp.ones(1), jnp.ones(1, jnp.int32)]}, "x")
    with pytest.raises(InnerloopError, match="`a` is not a float array, got float"):
        check_trainable({"a": 1.0}, "x")
    layer = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
    with pytest.raises(
        InnerloopError, match=r"`activation` .* rest; eqx.partition\(model, eqx.is_inexact_array\)"
    ):
        check_trainable(layer, "x")
