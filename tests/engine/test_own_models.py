"""What users bring with their models: states of any container, keys that are closed over, labels, a debugger."""

import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import maml, reptile
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Adapted, Loss
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.trainable import check_trainable
from innerloop.engine.types import Batch, Task
from innerloop.errors import InnerloopError
from innerloop.learner import Learner
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy, mean_squared_error
from innerloop.parallel.mesh import SPLIT, task_mesh
from innerloop.parallel.param_sharding import on_mesh
from innerloop.tasks.iterator_loop import IteratorOuterLoop
from innerloop.tasks.sinusoid import Sinusoid

KEY = jax.random.key(0)
INNER = InnerLoop(optax.sgd(0.1), 2)
MODEL = MLP(1, 1, hidden=(3,), key=KEY)
X = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
TASK = Task(Batch(X, np.sin(X)), Batch(X, np.cos(X)))


class Counter(eqx.Module):
    """A state whose structure is never equal to another one: it holds an object, or an array, that is no leaf."""

    count: jax.Array
    static: Any = eqx.field(static=True)


@pytest.mark.parametrize("make", [object, lambda: lambda: None], ids=["object", "function"])
def test_states_with_unequal_tree_structures_are_accepted(make: Any):
    def fn(model, batch, *, state):
        loss = jnp.mean((model(batch.inputs) - batch.targets) ** 2)
        return loss, Counter(state.count + 1, make())

    algorithm = maml(Loss(fn, state=Counter(jnp.zeros(()), make())), INNER)
    assert algorithm.adapt(MODEL, TASK.support).state.count == 2
    loop = OuterLoop(algorithm, optax.sgd(0.1), Sinusoid(5, 5), meta_batch=2)
    assert loop.run(loop.init(MODEL, KEY), 1)[1].outer_loss.shape == (1,)


def test_state_shape_change_error_names_path():
    loss = Loss(
        lambda p, b, state: (p.head.bias.sum(), {"mean": state["mean"][:1]}), state={"mean": jnp.ones(2)}
    )
    with pytest.raises(InnerloopError, match=r"got float32\[1\] after float32\[2\] at `mean`"):
        maml(loss, INNER).adapt(MODEL, TASK.support)


class Normed(eqx.Module):
    """With batch normalisation and dropout."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, outputs: int):
        self.first, self.head = eqx.nn.Linear(1, 4, key=KEY), eqx.nn.Linear(4, outputs, key=KEY)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch", momentum=0.5)
        self.dropout = eqx.nn.Dropout(0.3)

    def __call__(self, x: Any, state: Any, key: Any = None) -> Any:
        x, state = self.norm(self.first(x), state)
        return self.head(self.dropout(x, key=key)), state


def normed(make_loss: Any, outputs: int) -> tuple[Any, Loss, Any]:
    """Parameters, loss, and `predict(params, x, state)`."""
    model, state = eqx.nn.make_with_state(Normed)(outputs)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def batched(model, x, state, keys):
        each = jax.vmap(model, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
        return each(x, state, keys)

    def apply(params, x, key, state):
        return batched(eqx.combine(params, static), x, state, jax.random.split(key, len(x)))

    def predict(params, x, state):
        return batched(eqx.nn.inference_mode(eqx.combine(params, static)), x, state, None)[0]

    return params, Loss(make_loss(apply, predict), random=True, state=state), predict


def test_learner_with_dropout_and_batch_statistics(tmp_path: Path):
    """It predicts in inference mode, by the statistics of the fit; a fit can be repeated, and saved."""
    params, loss, predict = normed(mean_squared_error, 1)
    algorithm = maml(loss, INNER)
    learner = Learner(params, algorithm).fit(X, np.sin(X))
    adapted = learner.params_
    assert isinstance(adapted, Adapted)
    found = learner.predict(X)
    np.testing.assert_allclose(found, predict(*adapted[:1], X, adapted.state), rtol=1e-5)
    assert np.array_equal(learner.predict(X[:2]), found[:2])
    assert np.array_equal(Learner(params, algorithm).fit(X, np.sin(X)).predict(X), found)
    by_hand = algorithm.adapt(params, Batch(X, np.sin(X)), key=jax.random.key(0))
    np.testing.assert_allclose(adapted.params.head.bias, by_hand.params.head.bias, rtol=1e-5)
    learner.save_adapted(tmp_path / "learner")
    assert np.array_equal(Learner(params, algorithm).load_adapted(tmp_path / "learner").predict(X), found)


def test_classifier_with_dropout_and_batch_statistics():
    """Fewer classes than outputs: the last one, likeliest by far at first, takes no part."""
    params, loss, _ = normed(cross_entropy, 3)
    params = eqx.tree_at(lambda p: p.head.bias, params, jnp.array([0.0, 0.0, 50.0]))
    learner = Learner(params, maml(loss, INNER.__class__(optax.sgd(0.5), 20)))
    labels = np.where(X[:, 0] > 0, "right", "left")
    assert learner.fit(X, labels).score(X, labels) == 1.0
    assert learner.predict_proba(X).shape == (6, 2)
    assert learner.losses_[0] < 5


def test_new_keys_and_states_do_not_recompile(compilations: list[str]):
    """A new loss and algorithm for every call, as in a notebook; its initial state is made anew, too."""
    for seed in range(3):
        params, loss, _ = normed(mean_squared_error, 1)
        compilations.clear()
        maml(loss, INNER).adapt(params, TASK.support, key=jax.random.key(seed))
    assert not compilations


def noisy(key: jax.Array) -> Any:
    """A loss with noise from a key that is closed over."""

    def fn(model, batch, **own):
        noise = jax.random.normal(key, batch.targets.shape)
        return jnp.mean((model(batch.inputs) - batch.targets + noise) ** 2)

    return fn


@pytest.mark.parametrize(
    ("loss", "message"),
    [(noisy(KEY), "without being declared random"), (Loss(noisy(KEY), random=True), "without its `key`")],
)
def test_random_loss_with_constant_key_warns(loss: Any, message: str):
    algorithm = maml(loss, INNER)
    loop = OuterLoop(algorithm, optax.sgd(0.1), Sinusoid(5, 5), meta_batch=2)
    with pytest.warns(UserWarning, match=f"OuterLoop: .* {message}"):
        loop.init(MODEL, KEY)
    with pytest.warns(UserWarning, match="evaluate: "):
        evaluate(algorithm, MODEL, Sinusoid(5, 5), key=KEY, num_tasks=2)


def test_random_loss_with_step_key_does_not_warn():
    drawn = Loss(lambda model, batch, key: noisy(key)(model, batch), random=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = OuterLoop(maml(drawn, INNER), optax.sgd(0.1), Sinusoid(5, 5), meta_batch=2).init(MODEL, KEY)
    assert state.step == 0


def labels(model: MLP) -> Any:
    """A label for every parameter, in a tree that can be called as the model can."""
    name = lambda path: "head" if "head" in jax.tree_util.keystr(path) else "body"
    return jax.tree_util.tree_map_with_path(lambda path, _: name(path), model)


RULES: Any = {"head": optax.adam(0.1), "body": optax.set_to_zero()}


def test_multi_transform_accepts_label_function():
    rule = optax.multi_transform(RULES, labels)  # pyright: ignore[reportArgumentType]
    loop = OuterLoop(maml(mean_squared_error(), INNER), rule, Sinusoid(5, 5), meta_batch=2)
    state, _ = loop.run(loop.init(MODEL, KEY), 1)
    inner = maml(mean_squared_error(), InnerLoop(rule, 1)).adapt(MODEL, TASK.support)
    for model in (state.params, inner):
        assert np.array_equal(model.body[0].weight, MODEL.body[0].weight)
        assert not np.array_equal(model.head.bias, MODEL.head.bias)


def test_callable_label_tree_raises():
    rule = optax.multi_transform(RULES, labels(MODEL))
    loop = OuterLoop(maml(mean_squared_error(), INNER), rule, Sinusoid(5, 5), meta_batch=2)
    with pytest.raises(InnerloopError, match="OuterLoop: .* must be given by a function"):
        loop.init(MODEL, KEY)
    with pytest.raises(InnerloopError, match="InnerLoop: .* must be given by a function"):
        maml(mean_squared_error(), InnerLoop(rule)).adapt(MODEL, TASK.support)


@pytest.mark.parametrize(("algorithm", "devices"), [(maml, 1), (maml, 2), (reptile, 2)])
def test_disable_jit_gives_same_update(algorithm: Any, devices: int, compilations: list[str]):
    """Whatever the devices; `jax.shard_map` would compile each operation anew at every update, a thousand of them."""
    algorithm = algorithm(mean_squared_error(), InnerLoop(optax.sgd(0.01), 2))
    mesh = task_mesh(4, jax.devices()[:devices])
    loop = OuterLoop(algorithm, optax.sgd(0.1), Sinusoid(5, 5), meta_batch=4, mesh=mesh)
    state, info = loop.run(loop.init(MODEL, KEY), 1)
    with jax.disable_jit():
        eager, told = loop.run(loop.init(MODEL, KEY), 1)
        pairs = zip(*map(jax.tree.leaves, ((state.params, info), (eager.params, told))), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        compilations.clear()
        loop.run(eager, 1)
    assert len(compilations) < 10


def test_disable_jit_gives_same_evaluation_and_iterator_update():
    algorithm = maml(mean_squared_error(), INNER)
    measure = lambda: evaluate(algorithm, MODEL, Sinusoid(3, 3), key=KEY, num_tasks=4).scores["loss"]
    tasks = jax.vmap(Sinusoid(3, 3).sample)(jax.random.split(KEY, 4))

    def update() -> Any:
        loop = IteratorOuterLoop(algorithm, optax.sgd(1e-3), [tasks, tasks], meta_batch=4)
        return loop.run(loop.init(MODEL, KEY), 2)[0].params.head.bias

    compiled = measure(), update()
    with jax.disable_jit():
        eager = measure(), update()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), compiled, eager)


def test_on_mesh_joins_split_results_under_disable_jit():
    mesh = task_mesh(4, jax.devices()[:2])
    program = on_mesh(lambda x: x * (1 + jax.lax.axis_index("tasks")), mesh, SPLIT, SPLIT)
    x = jnp.arange(8.0).reshape(4, 2)
    with jax.disable_jit():
        assert np.array_equal(program(x), x * jnp.array([1, 1, 2, 2])[:, None])


def test_uncopied_flax_model_raises():
    nnx = pytest.importorskip("flax.nnx")
    graph, params, rest = nnx.split(
        nnx.Sequential(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))), nnx.Param, ...
    )
    loss = lambda params, batch: jnp.mean(nnx.merge(graph, params, rest)(batch.inputs) ** 2)
    with pytest.raises(InnerloopError, match=r"writes to variables .*; recreate the model .* copy=True"):
        maml(loss, INNER).adapt(params, TASK.support)


def with_statistics() -> dict[str, Any]:
    """Trees of parameters that hold running statistics, by where they do."""
    nnx = pytest.importorskip("flax.nnx")
    norm, ones = nnx.BatchNorm(2, rngs=nnx.Rngs(0)), {"layer": jnp.ones(2)}
    return {
        "state at `mean`, got BatchStat; .* nnx.split": norm,
        "state at `model/layers/0/mean`, got BatchStat; .* nnx.split": {
            "model": nnx.state(nnx.Sequential(norm))
        },
        "state, got dict; .*`variables": {"params": ones, "batch_stats": ones},
        "state at `norm/batch_state_index`, got StateIndex; .*make_with_state": eqx.filter(
            Normed(1), eqx.is_inexact_array
        ),
        "state at `1`, got State; .*make_with_state": eqx.nn.make_with_state(Normed)(1),
    }


def test_model_state_among_parameters_raises():
    """It would be moved by gradients and by weight decay, and not as the model does it."""
    for message, params in with_statistics().items():
        with pytest.raises(InnerloopError, match=f"hold model {message}.*Loss"):
            maml(mean_squared_error(), INNER).adapt(params, TASK.support)


def test_parameters_separated_from_model_state_are_accepted():
    nnx = pytest.importorskip("flax.nnx")
    _, own, _ = nnx.split(nnx.BatchNorm(2, rngs=nnx.Rngs(0)), nnx.Param, ...)
    model, _ = eqx.nn.make_with_state(Normed)(1)
    ones = {"layer": jnp.ones(2)}
    for params in (own, eqx.filter(model, eqx.is_inexact_array), {"params": ones}, {"batch_stats": ones}):
        check_trainable(params, "x")
