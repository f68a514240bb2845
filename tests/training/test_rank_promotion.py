"""The library under `jax_numpy_rank_promotion="raise"`, which users set to find broadcasts that they did not mean."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.config.presets.registry import all_presets
from innerloop.config.schema import Config
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.engine.types import Batch, Task
from innerloop.learner.learner import Learner
from innerloop.nn import Conv4
from innerloop.nn.losses import binary_cross_entropy, cross_entropy
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.episodes import Episodes, with_rotations
from innerloop.tasks.sinusoid import Sinusoid
from innerloop.training.experiments.models import fresh_model, sinusoid_shape
from innerloop.training.experiments.reinforcement import RLExperiment
from innerloop.training.experiments.supervised import SupervisedExperiment

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def ranks_are_not_promoted() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


def kinds() -> dict[str, Config]:
    """One preset for every combination of algorithm, kind of data, parts of the model and outer step.

    Images of one channel and of three; how many classes, pixels and units there are does not change any rank.
    """
    found: dict[object, tuple[str, Config]] = {}
    for name, c in all_presets().items():
        m, spec = c.model, c.data.spec
        parts = (m.kind, m.normalize, m.downsample, m.features, m.context > 0)
        images = spec.image_shape[-1:] if spec.image_shape else spec.kind
        kind = (c.algorithm, images, parts, c.inner.optimizer, c.rl.outer, c.rl.surrogate)
        found.setdefault(kind, (name, c))
    return dict(found.values())


KINDS = kinds()
SUPERVISED = {name: c for name, c in KINDS.items() if not c.reinforcement}
POLICIES = {name: c for name, c in KINDS.items() if c.data.dataset == "navigation"}


@pytest.mark.parametrize("name", SUPERVISED)
def test_preset_losses_and_scores_avoid_rank_promotion(name: str):
    """Traced only, for the shapes of their data."""
    config = SUPERVISED[name]
    e, regression = SupervisedExperiment(config), config.data.spec.kind == "regression"
    shape = sinusoid_shape(config) if regression else config.data.spec.image_shape or (28, 28, 1)
    params = jax.eval_shape(lambda: e.algorithm.init(fresh_model(config, shape, KEY)))
    targets = (
        jax.ShapeDtypeStruct((5, 1), jnp.float32) if regression else jax.ShapeDtypeStruct((5,), jnp.int32)
    )
    batch = Batch(jax.ShapeDtypeStruct((5, *shape), jnp.float32), targets)
    jax.eval_shape(e.algorithm.meta_grad, params, Task(batch, batch))
    score = lambda params, task: e.score()(e.algorithm.initialization(params), task)
    jax.eval_shape(score, params, Task(batch, batch))


@pytest.mark.parametrize("name", POLICIES)
def test_policy_meta_iterations_avoid_rank_promotion(name: str):
    config = POLICIES[name]
    small = replace(config.rl, horizon=4, trajectories=4, test_trajectories=4)
    outer = replace(config.outer, meta_batch=2)
    e = RLExperiment(replace(config, rl=small, outer=outer, evaluation=replace(config.evaluation, steps=1)))
    loop = e.outer_loop()
    jax.eval_shape(loop.program(1), loop.start(e.init_params(), KEY), None, None)
    jax.eval_shape(lambda params: e.test_sampler.collect(params, *drawn(e)), e.init_params())


def drawn(e: RLExperiment) -> tuple[jax.Array, object]:
    keys = jax.random.split(KEY, 2)
    return keys, jax.vmap(e.environment.sample_task)(keys)


@pytest.mark.parametrize("downsample", ["stride", "pool"])
@pytest.mark.parametrize("features", ["mean", "flatten"])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_convolutions_avoid_rank_promotion(downsample: str, features: str, channels: int):
    """Few channels take another way than many."""
    shape = (32, 32, channels)
    model = Conv4(2, image_shape=shape, filters=8, downsample=downsample, features=features, key=KEY)  # pyright: ignore
    batch = Batch(jnp.ones((4, *shape)), jnp.arange(4) % 2)
    jax.eval_shape(jax.hessian(lambda s: cross_entropy()(jax.tree.map(lambda x: s * x, model), batch)), 1.0)


def test_samplers_and_binary_losses_avoid_rank_promotion():
    rows = [np.full((6, 4, 4, 1), 40 * i, np.uint8) for i in range(6)]
    arrays = ClassArrays.from_lists(rows, list("abcdef"))
    for distribution in (
        Episodes(arrays, 5, 1, 2),
        Episodes(with_rotations(arrays), 5, 1, 2),
        *[Sinusoid(5, 5, protocol=protocol) for protocol in ("maml", "reptile")],
        Sinusoid(5, 5, oracle=True),
    ):
        jax.eval_shape(lambda key, d=distribution: d.sample(key), KEY)
    batch = Batch(jnp.ones((4, 2)), jnp.ones((4, 1)), jnp.ones(4, bool))
    jax.eval_shape(binary_cross_entropy(lambda params, x: x @ params), jnp.ones((2, 1)), batch)


def test_training_and_learner_avoid_rank_promotion():
    e = SupervisedExperiment(next(c for c in SUPERVISED.values() if c.data.dataset == "sinusoid"))
    loop = OuterLoop(e.algorithm, e.optimizer, Sinusoid(3, 3), meta_batch=2)
    state, _ = loop.run(loop.init(e.init_params(), KEY), 1)
    assert np.isfinite(
        evaluate(e.algorithm, state.params, Sinusoid(3, 3), key=KEY, num_tasks=2).mean("loss")
    ).all()
    x = np.linspace(-1, 1, 5)[:, None]
    assert Learner(state.params, e.algorithm).fit(x, np.sin(x)).predict(x).shape == (5, 1)
