"""The contract of algorithms: `check_algorithm(make)` tests the built-in algorithms and your own.

It does not test the mathematics; use an identity test and `innerloop.algorithms.testing.meta_gradient` for that.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.distribution import same_bits
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.types import Batch, LossFn, Task
from innerloop.errors import InnerloopError
from innerloop.nn.losses import softmax_cross_entropy

MakeAlgorithm = Callable[[LossFn, InnerLoop], Algorithm]
"""`make(loss_fn, inner) -> Algorithm`, like the constructors of `innerloop.algorithms`."""

STEPS = 5
"""As many as there are support examples, which are the items of a stream."""


def _affine_loss(params: PyTree, batch: Batch) -> jax.Array:
    """Mean loss of a two-layer network, a nested dictionary or a pair of pairs, for class or float targets."""
    if isinstance(params, dict):
        params = tuple((layer["weight"], layer["bias"]) for layer in (params["body"], params["head"]))
    (body, body_bias), (head, head_bias) = params
    outputs = jnp.tanh(batch.inputs @ body + body_bias) @ head + head_bias
    if jnp.issubdtype(batch.targets.dtype, jnp.integer):
        return softmax_cross_entropy(outputs, batch.targets)
    return jnp.mean(jnp.sum(jnp.square(outputs - batch.targets), axis=-1))


def _example(dtype: type, nested: bool, classes: bool) -> tuple[PyTree, Task]:
    """Parameters and three stacked tasks: 3 inputs, 4 hidden units, 2 outputs or classes."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    layers = ((draw(3, 4), draw(4)), (draw(4, 2), draw(2)))
    named = {name: {"weight": w, "bias": b} for name, (w, b) in zip(("body", "head"), layers, strict=True)}
    wanted = lambda n: jnp.arange(3 * n).reshape(3, n) % 2 if classes else draw(3, n, 2)
    batch = lambda examples: Batch(draw(3, examples, 3), wanted(examples))
    return (named if nested else layers), Task(batch(5), batch(4))


def check_algorithm(
    make: MakeAlgorithm,
    *,
    rule: optax.GradientTransformation | None = None,
    zero_steps: bool = True,
    classes: bool = False,
    tuple_make: MakeAlgorithm | None = None,
    dtypes: tuple[type, ...] = (jnp.float32, jnp.float64),
) -> None:
    """Check that `make(loss_fn, inner)` returns an algorithm that the engine can use.

    Args:
        make: the constructor.
        rule: the inner rule (None: gradient descent).
        zero_steps: whether the algorithm accepts an inner loop without steps, which must leave the parameters
            unchanged; otherwise it must raise InnerloopError.
        classes: whether targets are class numbers, of two classes, instead of pairs of floats.
        tuple_make: for algorithms that select parameters by path, the constructor with the paths of a tuple: `0` for
            `body` and `1` for `head` (None: `make`).
        dtypes: the dtypes to check.

    Raises:
        AssertionError: if the contract is broken; the message says how.
    """
    rule = optax.sgd(0.1) if rule is None else rule
    _check_names(make(_affine_loss, InnerLoop(rule, STEPS)))
    _check_zero_steps(make, rule, zero_steps, classes)
    for dtype in dtypes:
        with jax.enable_x64(dtype == jnp.float64):
            _check_numbers(make(_affine_loss, InnerLoop(rule, STEPS)), _example(dtype, True, classes))
    other = make if tuple_make is None else tuple_make
    example = _example(jnp.float32, False, classes)
    _check_numbers(other(_affine_loss, InnerLoop(rule, STEPS)), example, lifted=False)
    _check_zero_gradient(make, rule, classes)


def _check_names(algorithm: Algorithm) -> None:
    """The methods' arguments have the names that the engine and its readers expect."""
    assert isinstance(algorithm, Algorithm), f"expected an Algorithm, got {type(algorithm).__name__}"
    for function, expected in (
        (algorithm.adapt, ["meta_params", "support", "key"]),
        (algorithm.trajectory, ["meta_params", "support", "observe", "key"]),
        (algorithm.meta_grad, ["meta_params", "task", "key"]),
    ):
        names = list(inspect.signature(function).parameters)
        assert names == expected, f"{function.__name__} takes {names}, expected {expected}"


def _check_zero_steps(
    make: MakeAlgorithm, rule: optax.GradientTransformation, accepted: bool, classes: bool
) -> None:
    """An inner loop without steps leaves the parameters unchanged, or is rejected with a message."""
    params, tasks = _example(jnp.float32, True, classes)
    try:
        algorithm = make(_affine_loss, InnerLoop(rule, 0))
    except InnerloopError:
        assert not accepted, "refuses an inner loop of 0 steps"
        return
    assert accepted, "accepts an inner loop of 0 steps; pass zero_steps=True"
    meta_params, support = algorithm.init(params), jax.tree.map(lambda x: x[0], tasks.support)
    adapted, start = jax.jit(lambda *given: (algorithm.adapt(*given), algorithm.start(*given)))(
        meta_params, support
    )
    assert same_bits(jax.tree.leaves(adapted), jax.tree.leaves(start)), "0 steps moved the parameters"


def _check_numbers(algorithm: Algorithm, example: tuple[PyTree, Task], lifted: bool = True) -> None:
    """Under jit and vmap: traced once; right tree, shapes and dtypes; reproducible, finite; query set not read."""
    params, tasks = example
    meta_params, traces = algorithm.init(params), []
    _assert_like(algorithm.initialization(meta_params), params, "the initialisation")

    def both(meta_params: PyTree, task: Task) -> PyTree:
        traces.append(None)
        return algorithm.meta_grad(meta_params, task), algorithm.adapt(meta_params, task.support)

    compiled = jax.jit(both)
    single = [jax.tree.map(lambda x, i=i: x[i], tasks) for i in range(3)]
    found = [compiled(meta_params, task) for task in single]
    assert len(traces) == 1, f"traced {len(traces)} times for tasks of one shape"
    assert same_bits(jax.tree.leaves(found[0]), jax.tree.leaves(compiled(meta_params, single[0]))), (
        "the same inputs gave different bits"
    )
    (grads, info), adapted = found[0]
    _assert_like(grads, meta_params, "the meta-gradient")
    _assert_like(adapted, params, "adapt")
    assert info.outer_loss.shape == (), "outer_loss is not a scalar"
    assert info.inner_losses.shape in ((STEPS,), (0,)), "inner_losses is not one loss per inner step"
    unread = single[0]._replace(query=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), single[0].query))
    assert same_bits(jax.tree.leaves(adapted), jax.tree.leaves(compiled(meta_params, unread)[1])), (
        "adapt read the query set"
    )
    if lifted:
        together = jax.vmap(compiled, (None, 0))(meta_params, tasks)  # not traced again
        tolerance = 1e-4 if jax.tree.leaves(params)[0].dtype == jnp.float32 else 1e-10
        for a, *b in zip(jax.tree.leaves(together), *map(jax.tree.leaves, found), strict=True):
            assert np.allclose(a, np.stack(b), tolerance, tolerance), "vmap over tasks changes the result"


def _check_zero_gradient(make: MakeAlgorithm, rule: optax.GradientTransformation, classes: bool) -> None:
    """No NaN where the support loss is flat: a dead unit must not poison the meta-gradient."""
    params, tasks = _example(jnp.float32, True, classes)
    task = jax.tree.map(lambda x: x[0], tasks)
    flat = lambda params, batch: _affine_loss(jax.tree.map(lambda x: 0 * x, params), batch) * 0
    algorithm = make(flat, InnerLoop(rule, STEPS))
    grads, info = jax.jit(algorithm.meta_grad)(algorithm.init(params), task)
    finite = [bool(np.isfinite(x).all()) for x in jax.tree.leaves((grads, info))]
    assert all(finite), "NaN where the gradient is zero"


def _assert_like(tree: PyTree, params: PyTree, what: str) -> None:
    """`tree` has the structure, shapes and dtypes of `params`, and is finite."""
    assert jax.tree.structure(tree) == jax.tree.structure(params), f"{what} has a different tree from params"
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True):
        assert a.shape == b.shape, f"{what} has shape {a.shape} for parameters of shape {b.shape}"
        assert a.dtype == b.dtype, f"{what} is {a.dtype} for parameters of {b.dtype}"
        assert np.isfinite(a).all(), f"{what} is not finite"
