"""Meta-SGD and MAML++: what is learned beside the initialisation, by hand, by finite differences, by MAML."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numeric_cases import Case, assert_close, differ, flat, mlp_case, normal

from innerloop.algorithms import anil, fomaml, maml, maml_plus_plus, meta_sgd
from innerloop.algorithms.maml_plus_plus import step_weights
from innerloop.algorithms.testing.meta_gradient import check_meta_gradient
from innerloop.engine.algorithm import Algorithm, MetaInfo
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.learned_rates import WithRates
from innerloop.engine.losses.loss import Loss
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError

RATE, STEPS = 0.1, 3
ONE, SGD = optax.sgd(1.0), optax.sgd(RATE)
MAKERS = {"meta_sgd": meta_sgd, "maml_plus_plus": maml_plus_plus}


@cache
def plain_maml(steps: int = STEPS) -> tuple[Any, MetaInfo]:
    """MAML's meta-gradient with the step size RATE, and what it logs."""
    loss, params, task = mlp_case()
    return jax.jit(maml(loss, InnerLoop(SGD, steps)).meta_grad)(params, task)


def made(name: str, **fields: Any) -> tuple[Algorithm, WithRates, Case]:
    """An algorithm on the small network, and meta-parameters with equal step sizes."""
    loss, params, task = mlp_case()
    algorithm = MAKERS[name](loss, InnerLoop(ONE, STEPS, **fields), rates=RATE)
    return algorithm, algorithm.init(params), (loss, params, task)


def uneven(meta: WithRates) -> WithRates:
    """The same with step sizes that all differ, one of them negative."""
    draw = np.random.default_rng(7).uniform
    return WithRates(meta.model, jax.tree.map(lambda r: jnp.asarray(draw(-0.02, 0.2, r.shape)), meta.rates))


@pytest.mark.parametrize("name", MAKERS)
def test_equal_learned_rates_match_maml(name: str):
    """In theta, and in what it adapts to; the step size is in the meta-parameters alone."""
    algorithm, meta, (loss, params, task) = made(name)
    grads, info = jax.jit(algorithm.meta_grad)(meta, task)
    expected, other = plain_maml()
    assert_close(grads.model, expected, 1e-12)
    np.testing.assert_allclose(info.outer_loss, other.outer_loss, rtol=1e-13)
    plain = maml(loss, InnerLoop(SGD, STEPS))
    assert_close(algorithm.adapt(meta, task.support), plain.adapt(params, task.support), 1e-13)


@pytest.mark.parametrize("name", MAKERS)
def test_default_learned_rates_match_maml_with_rule_step_size(name: str):
    loss, params, task = mlp_case()
    algorithm, plain = MAKERS[name](loss, InnerLoop(SGD)), maml(loss, InnerLoop(SGD))
    found, _ = algorithm.meta_grad(algorithm.init(params), task)
    assert_close(found.model, plain.meta_grad(params, task)[0], 1e-13)


def test_maml_plus_plus_default_update_works_without_x64():
    """The schedules of MAML++ have then ended, in float32 as well."""
    with jax.enable_x64(False):
        ones = {"w": jnp.ones(2, jnp.float32)}
        loss = lambda params, batch: jnp.sum(jnp.square(params["w"] - batch))
        algorithm = maml_plus_plus(loss, InnerLoop(optax.sgd(1.0), 2), rates=0.1)
        _, info = algorithm.meta_grad(algorithm.init(ones), Task(jnp.zeros(2), jnp.zeros(2)))
        np.testing.assert_allclose(info.outer_loss, 2 * 0.8**4, rtol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_meta_gradients_match_finite_differences(name: str):
    algorithm, meta, (_, _, task) = made(name)
    found = check_meta_gradient(algorithm, uneven(meta), task)
    assert found.passed, found
    assert sum(path.startswith("rates/") for path in found.by_parameter) == 4


def test_one_step_rate_gradient_is_negated_gradient_product():
    """d L(theta - a g) / d a = -g * grad L(theta - a g), whatever is differentiated through."""
    loss, params, task = mlp_case()
    algorithm = meta_sgd(loss, InnerLoop(ONE, 1))
    meta = uneven(algorithm.init(params))
    support = jax.grad(loss)(params, task.support)
    adapted = jax.tree.map(lambda p, r, g: p - r * g, params, meta.rates, support)
    query = jax.grad(loss)(adapted, task.query)
    found = jax.jit(algorithm.meta_grad)(meta, task)[0]
    assert_close(found.rates, jax.tree.map(lambda a, b: -a * b, support, query), 1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_first_order_rate_gradients_match_closed_form(name: str):
    """Minus the sum over steps (Meta-SGD), or each step's (MAML++), of support times query gradient."""
    algorithm, meta, (loss, params, task) = made(name, last=0)
    meta = uneven(meta)
    theta, support = params, []
    for i in range(STEPS):
        support.append(jax.grad(loss)(theta, task.support))
        rates = meta.rates if name == "meta_sgd" else jax.tree.map(lambda r, i=i: r[i], meta.rates)
        theta = jax.tree.map(lambda p, r, g: p - r * g, theta, rates, support[-1])
    query = jax.grad(loss)(theta, task.query)
    products = [jax.tree.map(lambda a, b: -a * b, one, query) for one in support]
    if name == "meta_sgd":
        expected = jax.tree.map(lambda *x: sum(x), *products)
    else:
        expected = jax.tree.map(lambda *x: jnp.stack([jnp.sum(one) for one in x]), *products)
    found = jax.jit(algorithm.meta_grad)(meta, task)[0]
    assert_close(found.rates, expected, 1e-12)
    assert_close(found.model, query, 1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_select_restricts_rates_to_adapted_parameters(name: str):
    """With a selection it is ANIL; step sizes of the rest have no gradient."""
    algorithm, meta, (loss, params, task) = made(name, select="head")
    grads = jax.jit(algorithm.meta_grad)(meta, task)[0]
    expected = jax.jit(anil(loss, InnerLoop(SGD, STEPS)).meta_grad)(params, task)[0]
    assert_close(grads.model, expected, 1e-12)
    assert not jax.tree.leaves(meta.rates["body"])
    assert np.all(np.abs(flat(grads.rates["head"])) > 0)
    with pytest.raises(InnerloopError, match="the adapted parameter `body/.*` has none; call `init`"):
        algorithm.with_inner(select=None).adapt(meta, task.support)
    everything = made(name)[1]  # such weights were written before
    assert_close(algorithm.adapt(everything, task.support), algorithm.adapt(meta, task.support), 1e-15)


def test_grouped_rates_match_manual_loop():
    """The first group that includes a parameter counts; gradients are those of a loop by hand."""
    loss, params, task = mlp_case()
    groups = {"head/w": 0.3, "**/b": 0.2, "**": 0.1}
    rates = {key: jnp.asarray(value) for key, value in groups.items()}
    algorithm = meta_sgd(loss, InnerLoop(ONE, STEPS), rates=groups)
    meta = algorithm.init(params)
    assert_close(meta.rates, rates, 0)

    def by_hand(params: Any, rates: Any) -> jax.Array:
        theta, b = params, rates["**/b"]
        own = {"body": {"w": rates["**"], "b": b}, "head": {"w": rates["head/w"], "b": b}}
        for _ in range(STEPS):
            grads = jax.grad(loss)(theta, task.support)
            theta = jax.tree.map(lambda p, r, g: p - r * g, theta, own, grads)
        return loss(theta, task.query)

    found, info = jax.jit(algorithm.meta_grad)(meta, task)
    value, expected = jax.jit(jax.value_and_grad(by_hand, (0, 1)))(params, rates)
    assert_close((found.model, found.rates), expected, 1e-13)
    np.testing.assert_allclose(info.outer_loss, value, rtol=1e-14)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"head": 0.1}, "no step size to the adapted parameter `body/.*, got head; add"),
        (
            {"**": 0.1, "head": 0.1},
            "'head' of `rates` matches no adapted parameter that is not in an earlier",
        ),
        ({"tail": 0.1, "**": 0.1}, "'tail' of `rates` matches no adapted"),
        ({"**": -1.0}, r"`rates\['\*\*'\]` must be 0 or more"),
    ],
)
def test_invalid_rate_groups_raise(rates: dict, message: str):
    loss, params, _ = mlp_case()
    with pytest.raises(InnerloopError, match=message):
        meta_sgd(loss, InnerLoop(ONE, STEPS), rates=rates).init(params)


def test_rates_scale_rule_updates():
    """Clipped momentum with equal rates is clipped momentum with that step size."""
    loss, params, task = mlp_case()
    rule = lambda rate: optax.chain(optax.clip(0.5), optax.sgd(rate, momentum=0.9))
    algorithm = meta_sgd(loss, InnerLoop(rule(1.0), STEPS), rates=RATE)
    plain = maml(loss, InnerLoop(rule(RATE), STEPS))
    found = jax.jit(algorithm.meta_grad)(algorithm.init(params), task)[0].model
    assert_close(found, jax.jit(plain.meta_grad)(params, task)[0], 1e-12)


@pytest.mark.parametrize("longer", [STEPS + 1, STEPS + 3])
def test_extra_steps_reuse_last_rate(longer: int):
    algorithm, meta, (loss, params, task) = made("maml_plus_plus")
    meta, theta = uneven(meta), params
    for i in range(longer):
        rates = jax.tree.map(lambda r, i=i: r[min(i, STEPS - 1)], meta.rates)
        theta = jax.tree.map(lambda p, r, g: p - r * g, theta, rates, jax.grad(loss)(theta, task.support))
    assert_close(algorithm.with_inner(steps=longer).adapt(meta, task.support), theta, 1e-13)


def official_weights(steps: int, epoch: int, epochs: int) -> np.ndarray:
    """The schedule of the authors' code: each weight is changed in place, from 1/steps on, and bounded."""
    if epoch >= epochs:
        return np.eye(steps)[-1]
    weights, rate = np.ones(steps) / steps, 1 / steps / epochs
    for i in range(steps - 1):
        weights[i] = np.maximum(weights[i] - epoch * rate, 0.03 / steps)
    maximum = 1 - (steps - 1) * 0.03 / steps
    weights[-1] = np.minimum(weights[-1] + epoch * (steps - 1) * rate, maximum)
    return weights


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("updates", [1, 50])
def test_step_weights_match_official_schedule(steps: int, updates: int):
    for update in [*range(updates + 2), 2**31 - 1]:
        found = step_weights(steps, jnp.asarray(update, jnp.int32), updates)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, official_weights(steps, update, updates), rtol=1e-13)


def test_multi_step_loss_is_weighted_sum_of_step_losses():
    """At the tenth of ten updates the last step alone has a weight, and it is MAML."""
    loss, params, task = mlp_case()
    algorithm = maml_plus_plus(loss, InnerLoop(ONE, STEPS), rates=RATE, multi_step_updates=10)
    weighted = jax.jit(lambda update: algorithm.at(update).meta_grad(algorithm.init(params), task))
    each = [plain_maml(k) for k in range(1, STEPS + 1)]
    losses = [i.outer_loss for _, i in each]
    for update in (0, 4, 9, 10):
        weights = official_weights(STEPS, update, 10)
        expected = jax.tree.map(
            lambda *g, w=weights: sum(w * x for w, x in zip(w, g, strict=True)), *[g for g, _ in each]
        )
        grads, info = weighted(jnp.asarray(update))
        assert_close(grads.model, expected, 1e-12)
        np.testing.assert_allclose(info.outer_loss, np.dot(weights, losses), rtol=1e-12)


def test_multi_step_loss_logs_aux_of_last_step():
    loss, params, task = mlp_case()
    seen = Loss(lambda p, b: (loss(p, b), {"loss": loss(p, b)}), aux=True)
    algorithm = maml_plus_plus(seen, InnerLoop(ONE, STEPS), rates=RATE, multi_step_updates=10)
    info = algorithm.at(jnp.asarray(0)).meta_grad(algorithm.init(params), task)[1]
    np.testing.assert_allclose(info.aux["loss"], plain_maml()[1].outer_loss, rtol=1e-13)
    assert info.inner_losses.shape == (STEPS,)


def test_schedules_are_finished_outside_outer_loop():
    loss, params, task = mlp_case()
    algorithm = maml_plus_plus(
        loss, InnerLoop(ONE, STEPS), rates=RATE, multi_step_updates=10, first_order_updates=10
    )
    found = jax.jit(algorithm.meta_grad)(algorithm.init(params), task)[0].model
    assert_close(found, plain_maml()[0], 1e-12)


class Fixed:
    """One task, whatever the key."""

    def sample(self, key: jax.Array) -> Task:
        draw = normal(5)
        shift = 0 * jax.random.normal(key, dtype=jnp.float64)
        return Task(Batch(draw(5, 3) + shift, draw(5, 2)), Batch(draw(6, 3), draw(6, 2)))


@pytest.mark.parametrize("multi_step_updates", [0, 8])
def test_derivative_order_is_annealed_during_training(multi_step_updates: int):
    """The first two updates are first-order MAML's, the third is MAML's."""
    loss, params, _ = mlp_case()
    task = Fixed().sample(jax.random.key(0))
    annealed = maml_plus_plus(
        loss, InnerLoop(ONE, STEPS), rates=RATE, multi_step_updates=multi_step_updates, first_order_updates=2
    )
    # Step sizes move too, so the other algorithm has to have them.
    other = lambda last: maml_plus_plus(
        loss, InnerLoop(ONE, STEPS, last=last), rates=RATE, multi_step_updates=multi_step_updates
    )
    first_order, second_order = (
        jax.jit(lambda update, params, last=last: other(last).at(update).meta_grad(params, task)[0])
        for last in (0, None)
    )
    loop = OuterLoop(annealed, optax.sgd(1e-2), Fixed(), meta_batch=2, chunk=1)
    state = loop.init(params, jax.random.key(0))
    for update in range(3):
        before = jax.tree.map(np.asarray, state.params)
        expected = (first_order if update < 2 else second_order)(jnp.asarray(update), before)
        state, _ = loop.run(state, 1)
        moved = jax.tree.map(lambda a, b: (a - b) / 1e-2, before, state.params)
        assert_close(moved, expected, 1e-10)


def test_first_order_updates_match_fomaml_and_differ_from_maml():
    """So the test above can tell them apart; and with equal rates the first is FOMAML."""
    loss, params, task = mlp_case()
    first = maml_plus_plus(loss, InnerLoop(ONE, STEPS), rates=RATE, first_order_updates=2)
    early = jax.jit(first.at(jnp.asarray(1)).meta_grad)(first.init(params), task)[0].model
    late = jax.jit(first.at(jnp.asarray(2)).meta_grad)(first.init(params), task)[0].model
    assert_close(early, jax.jit(fomaml(loss, InnerLoop(SGD, STEPS)).meta_grad)(params, task)[0], 1e-12)
    assert differ(early, late) > 1e-2


@pytest.mark.parametrize("field", ["multi_step_updates", "first_order_updates"])
def test_negative_update_counts_raise(field: str):
    options: dict[str, Any] = {field: -1}
    with pytest.raises(InnerloopError, match=f"`{field}` must be 0 or more, got -1"):
        maml_plus_plus(mlp_case()[0], InnerLoop(ONE), **options)
