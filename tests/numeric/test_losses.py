"""Losses against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.engine.types import Batch
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import (
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
from innerloop.nn.masks import mean_over_examples


def test_squared_error():
    """Two examples of two outputs: (1 + 4 + 0 + 9) / 2; one output per example without an axis: (1 + 4) / 2."""
    outputs, targets = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[2.0, 0.0], [3.0, 1.0]])
    assert squared_error(outputs, targets) == 7.0
    assert squared_error(jnp.array([1.0, 2.0]), jnp.array([2.0, 0.0])) == 2.5


def test_softmax_cross_entropy():
    """Scores log(1, 2, 5) are probabilities 1/8, 2/8, 5/8; targets 2 and 0: -(log 5/8 + log 1/8) / 2."""
    scores = jnp.log(jnp.array([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]]))
    expected = -(np.log(5 / 8) + np.log(1 / 8)) / 2
    np.testing.assert_allclose(softmax_cross_entropy(scores, jnp.array([2, 0])), expected, rtol=1e-14)


def test_softmax_cross_entropy_of_large_scores():
    """No overflow: the loss of a score 1000 below the best is 1000."""
    np.testing.assert_allclose(
        softmax_cross_entropy(jnp.array([[1e3, 0.0]]), jnp.array([1])), 1e3, rtol=1e-14
    )


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, np.float64])
def test_sigmoid_cross_entropy(dtype):
    """f = 3/4 with target 1 and f = 1/4 with target 1: -(log 3/4 + log 1/4) / 2. Positive: it is minus a mean."""
    scores = jnp.log(jnp.array([3.0, 1 / 3]))
    expected = -(np.log(3 / 4) + np.log(1 / 4)) / 2
    found = sigmoid_cross_entropy(scores, jnp.asarray(np.array([1, 1], dtype)))
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found > 0


@pytest.mark.parametrize("loss", [squared_error, sigmoid_cross_entropy])
def test_targets_of_another_shape_are_not_broadcast(loss):
    """[n] against [n, 1] would be n x n differences."""
    with pytest.raises(InnerloopError, match=r"targets must have shape \(3, 1\), got \(3,\); reshape them"):
        loss(jnp.zeros((3, 1)), jnp.zeros(3))


def test_cross_entropy_of_invalid_class_targets():
    """One for each example, and below the number of scores; a number beyond would count as no class at all."""
    with pytest.raises(InnerloopError, match=r"targets must have shape \(3,\), got \(3, 1\)"):
        softmax_cross_entropy(jnp.zeros((3, 2)), jnp.zeros((3, 1), int))
    for wrong in (2, -1):
        assert np.isnan(softmax_cross_entropy(jnp.zeros((3, 2)), jnp.array([0, wrong, 1])))
    assert np.isfinite(softmax_cross_entropy(jnp.zeros((3, 2)), jnp.array([0, 1, 1])))


@pytest.mark.parametrize(
    ("dtype", "ways"),
    [(jnp.uint8, 256), (jnp.uint8, 300), (jnp.int8, 200), (jnp.bool_, 2), (jnp.bfloat16, 300)],
)
def test_cross_entropy_accepts_class_targets_of_narrow_dtypes(dtype, ways):
    """The numbers of all classes need not fit the dtype of the targets; NaN and doubled losses came of it."""
    scores = jnp.zeros((2, ways))
    targets = jnp.array([0, 1]).astype(dtype)
    np.testing.assert_allclose(softmax_cross_entropy(scores, targets), np.log(ways), rtol=1e-14)
    assert accuracy(scores.at[:, 1].set(1.0), targets) == 0.5


WITH_A_MASK = {
    squared_error: jnp.ones((3, 2)),
    sigmoid_cross_entropy: jnp.ones((3, 2)),
    softmax_cross_entropy: jnp.ones(3),
    accuracy: jnp.ones(3),
}


@pytest.mark.parametrize("measure", WITH_A_MASK)
def test_mask_of_wrong_shape_raises(measure):
    """A mask [n, 1] would be broadcast to n x n."""
    for mask in (jnp.ones((3, 1), bool), jnp.ones(1, bool), jnp.ones((3, 1))):
        advice = r"pass mask\[:, 0\]" if mask.ndim == 2 else "give one value per example"
        with pytest.raises(InnerloopError, match=rf"the mask must have shape \(3,\), got .*; {advice}"):
            measure(jnp.zeros((3, 2)), WITH_A_MASK[measure], mask)


@pytest.mark.parametrize("measure", WITH_A_MASK)
@pytest.mark.parametrize("mask", [[0.5, 0.0, 0.125], [3, 0, 1], [0.0, 0.0, 0.0]])
def test_numeric_masks_act_as_weights(measure, mask):
    """The weighted mean of the losses of single examples; one of weight 0 may be NaN."""
    weights, scores = jnp.array(mask), jnp.array([[0.3, 1.0], [2.0, -1.0], [0.9, 0.5]])
    targets = WITH_A_MASK[measure]

    def by_hand(scores, weights):
        single = jnp.stack([measure(scores[i : i + 1], targets[i : i + 1]) for i in (0, 2)])
        return jnp.sum(weights[jnp.array([0, 2])] * single) / jnp.maximum(jnp.sum(weights), 1e-3)

    weighted = lambda scores, weights: measure(scores, targets.at[1].set(jnp.nan), weights)
    digits = 1e-7 if measure is accuracy else 1e-14  # it counts in float32
    np.testing.assert_allclose(weighted(scores, weights), by_hand(scores, weights), rtol=digits)
    slope, expected = (jax.grad(f)(scores, weights * 1.0) for f in (weighted, by_hand))
    np.testing.assert_allclose(slope, expected, rtol=10 * digits, atol=1e-16)
    if any(mask):
        slope, expected = (jax.grad(f, 1)(scores, weights * 1.0)[::2] for f in (weighted, by_hand))
        np.testing.assert_allclose(slope, expected, rtol=10 * digits, atol=1e-15)


@pytest.mark.parametrize("measure", WITH_A_MASK)
@pytest.mark.parametrize("mask", [[0.5, 0.0, 0.125], [0.0, 0.0, 0.0]])
def test_gradient_of_zero_weight_matches_closed_form(measure, mask):
    """The loss of its example less the mean, over the sum; the loss itself if all are 0 (Ren et al. 2018)."""
    weights, scores = jnp.array(mask), jnp.array([[0.3, 1.0], [2.0, -1.0], [0.9, 0.5]])
    targets = WITH_A_MASK[measure]
    single = jnp.stack([measure(scores[i : i + 1], targets[i : i + 1]) for i in range(3)])
    expected = (single - weights @ single / 0.625) / 0.625 if any(mask) else single
    digits = 1e-6 if measure is accuracy else 1e-13  # it counts in float32
    slope = jax.grad(measure, 2)(scores, targets, weights)
    np.testing.assert_allclose(slope, expected, rtol=digits, atol=1e-16)


@pytest.mark.parametrize("wrong", [jnp.nan, -1.0])
def test_zero_weight_padding_has_finite_gradient(wrong):
    """Its target may be none: NaN, or a class or a probability that does not exist."""
    weights, scores = jnp.array([1.0, 0.0, 2.0]), jnp.array([[0.3, 1.0], [2.0, -1.0], [0.9, 0.5]])
    for measure, targets in WITH_A_MASK.items():
        slopes = jax.grad(measure, (0, 2))(scores, targets.at[1].set(wrong), weights)
        assert all(jnp.isfinite(slope).all() for slope in slopes)
        assert (slopes[0][1] == 0).all()


def test_task_without_examples_leaves_parameters_unchanged():
    """A user without a history: the losses over no example are 0, and so are their gradients."""
    model = MLP(3, 2, hidden=(4,), key=jax.random.key(0))
    none = Batch(jnp.zeros((0, 3)), jnp.zeros((0, 2)))
    for measure in (squared_error, sigmoid_cross_entropy, softmax_cross_entropy):
        targets = none.targets[:, 0].astype(int) if measure is softmax_cross_entropy else none.targets
        value, slopes = jax.value_and_grad(lambda p, m=measure, t=targets: m(p(none.inputs), t))(model)
        assert value == 0
        assert all((x == 0).all() for x in jax.tree.leaves(slopes))


def test_mean_over_examples_does_not_overflow_in_float16():
    """Their sum is infinite in float16, and the mean was NaN."""
    values = jnp.ones(70_000, jnp.float16)
    found = mean_over_examples(values, values)
    assert found == 1
    assert found.dtype == values.dtype


@pytest.mark.parametrize("loss", [squared_error, sigmoid_cross_entropy, softmax_cross_entropy])
def test_masked_targets_may_be_nan(loss):
    """Their rows have no gradient, the others that of a table without such rows."""
    mask, scores = jnp.array([True, False, True]), jnp.array([[0.3, 1.0], [2.0, -1.0], [0.1, 0.5]])
    targets = WITH_A_MASK[loss].at[1].set(jnp.nan)
    value, slope = jax.value_and_grad(loss)(scores, targets, mask)
    expected = jax.value_and_grad(loss)(scores[mask], targets[mask])
    np.testing.assert_allclose(value, expected[0], rtol=1e-14)
    np.testing.assert_allclose(slope[mask], expected[1], rtol=1e-14)
    assert (slope[1] == 0).all()


def test_binary_cross_entropy_decreases_towards_target():
    """Its sign: a gradient step raises the output where the target is 1 and lowers it where it is 0."""
    loss = binary_cross_entropy(lambda params, inputs: params["bias"] + inputs)
    batch = Batch(jnp.zeros(1), jnp.array([1]))
    params = {"bias": jnp.zeros(())}
    np.testing.assert_allclose(jax.grad(loss)(params, batch)["bias"], -0.5)
    np.testing.assert_allclose(jax.grad(loss)(params, batch._replace(targets=jnp.array([0])))["bias"], 0.5)


def test_softmax_gradient_is_probability_minus_target():
    scores = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    slope = jax.grad(softmax_cross_entropy)(scores, jnp.array([1]))
    np.testing.assert_allclose(slope, [[1 / 8, 2 / 8 - 1, 5 / 8]], rtol=1e-14)


def test_accuracy():
    assert (
        accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]), jnp.array([1, 0, 0, 0])) == 0.75
    )
    for targets in (jnp.zeros((3, 1), int), jnp.zeros(1, int)):
        with pytest.raises(InnerloopError, match=r"accuracy: targets must have shape \(3,\)"):
            accuracy(jnp.zeros((3, 2)), targets)


def test_accuracy_of_nonfinite_scores_is_nan():
    """Their first class would be the highest; a class that is excluded by -inf leaves the others' order."""
    scores, targets = jnp.array([[jnp.nan, 0.0], [0.0, 1.0], [jnp.inf, 0.0]]), jnp.array([0, 1, 0])
    assert np.isnan(accuracy(scores, targets))
    assert accuracy(scores, targets, jnp.array([False, True, False])) == 1
    assert accuracy(jnp.array([[-jnp.inf, 0.0]]), jnp.array([1])) == 1


def test_losses_accept_batches():
    """Parameters that are the model itself, and an `apply` beside them."""
    batch = Batch(jnp.ones((2, 1)), jnp.array([[3.0], [5.0]]))
    apply = lambda params, inputs: params * inputs
    assert mean_squared_error(apply)(jnp.array(1.0), batch) == (4 + 16) / 2
    scores = Batch(jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([1]))
    np.testing.assert_allclose(cross_entropy(apply)(jnp.array(1.0), scores), -np.log(3 / 4), rtol=1e-14)
