"""Small subjects with every experiment's needs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from training_cases import EPISODES  # pyright: ignore[reportMissingImports]

from innerloop.algorithms import maml
from innerloop.analysis import AnalyzedModel, NamedLayers
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.losses.loss import Loss
from innerloop.engine.types import Batch, Task
from innerloop.tasks import Episodes
from innerloop.training.trained import Trained

KEY = jax.random.key(0)


def small() -> AnalyzedModel:
    """The built-in network of the engine's tests on noisy images, as a trained run would give it."""
    return AnalyzedModel.from_trained(Trained(EPISODES.init_params(), EPISODES, "here", {}))


class Lines:
    """Tasks y = slope * x with four points: a linear model of two layers can be followed by hand."""

    def sample(self, key):
        slope_key, x_key = jax.random.split(key)
        slope = jax.random.uniform(slope_key, minval=1.0, maxval=3.0)
        x = jax.random.normal(x_key, (8, 1))
        batch = lambda x: Batch(x, slope * x)
        return Task(batch(x[:4]), batch(x[4:]))


def apply(params, x):
    return x @ params["deep"]["first"] @ params["out"]


def activations(params, x):
    return {"first": x @ params["deep"]["first"], "out": apply(params, x)}


def loss(params, batch):
    return jnp.mean((apply(params, batch.inputs) - batch.targets) ** 2)


LAYERS = NamedLayers({"first": "deep/first", "out": "out"}, activations)


def own(select=None, steps: int = 3, rate: float = 0.05) -> AnalyzedModel:
    """A model of one's own: a plain dictionary, regression."""
    rng = np.random.default_rng(0)
    params = {"deep": {"first": rng.normal(size=(1, 2))}, "out": rng.normal(size=(2, 1))}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    inner = InnerLoop(optax.sgd(rate), steps, select=select)
    algorithm = maml(loss, inner)
    return AnalyzedModel(params, LAYERS, algorithm, lambda p, task: {"loss": loss(p, task.query)}, Lines())


def with_noise_and_state(model: AnalyzedModel) -> AnalyzedModel:
    """A model of one's own with noise on the loss, a state that counts the steps, and another outer loss."""

    def noisy(params, batch, key, state):
        return loss(params, batch) * jax.random.uniform(key, minval=0.5), {"steps": state["steps"] + 1}

    inner_loss = Loss(noisy, random=True, state={"steps": jnp.zeros(())})
    outer_loss = replace(
        inner_loss, fn=lambda *given, state, **key: (3 * noisy(*given, state=state, **key)[0], state)
    )
    algorithm = maml(inner_loss, model.algorithm.inner, outer_loss_fn=outer_loss)
    score = lambda adapted, task: {
        "loss": loss(adapted.params, task.query),
        "steps_taken": adapted.state["steps"],
    }
    layers = replace(LAYERS, activations=lambda adapted, x: activations(adapted.params, x))
    return replace(model, layers=layers, algorithm=algorithm, score=score)


def separable() -> Episodes:
    """Episodes of classes that any features tell apart: one bright pixel each, without noise."""
    from innerloop.tasks.class_arrays import ClassArrays

    images = [
        np.tile(255 * np.eye(16, dtype=np.uint8)[i].reshape(1, 4, 4, 1), (8, 1, 1, 1)) for i in range(6)
    ]
    return Episodes(ClassArrays.from_lists(images, list("abcdef")), 3, 2, 3)


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
