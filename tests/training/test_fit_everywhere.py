"""`innerloop.fit` with every algorithm, and with trees of parameters of any kind."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_cases import same_bits

import innerloop as il
from innerloop.config.schema import InnerConfig
from innerloop.config.specs import ALGORITHMS
from innerloop.engine.outer.persistent_adam import persistent_adam
from innerloop.errors import InnerloopError
from innerloop.training.progress.callbacks import Callback
from innerloop.training.progress.progress import Progress

WAYS = 3


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


PARAMS = {
    "body": {"weight": draw(3, 4)},
    "head": {"weight": draw(4, WAYS), "bias": draw(WAYS)},
    "context": jnp.zeros(4),
}


def apply(params: Any, x: jax.Array) -> jax.Array:
    return embed(params, x) @ params["head"]["weight"] + params["head"]["bias"]


def embed(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["body"]["weight"] + params["context"])


class Tasks:
    """Three classes of noise; a NumPy array holds what it is multiplied by."""

    def __init__(self):
        self.scales = np.ones(2, np.float32)

    def sample(self, key: jax.Array) -> il.Task:
        x = jax.random.normal(key, (2, 2 * WAYS, 3)) * self.scales[jax.random.randint(key, (), 0, 2)]
        return il.Task(*(il.Batch(each, jnp.arange(2 * WAYS) % WAYS) for each in x))


class EndAt(Callback):
    """Ends a run at a meta-step."""

    def __init__(self, step: int):
        self.step = step

    def on_block(self, progress: Progress) -> bool:
        return progress.step == self.step


def check(algorithm: il.Algorithm, tasks: Any, folder: Path, params: Any = PARAMS, **more: Any) -> None:
    """Two meta-steps, interrupted after the first, have the bits of the outer loop; the weights can be loaded."""
    optimizer = optax.sgd(1e-2)
    settings: dict[str, Any] = {"meta_batch": 2, "meta_steps": 2, "log_every": 1, "optimizer": optimizer}
    settings |= {"folder": folder, "progress": False, **more}
    run = lambda **more: il.fit(algorithm, params, tasks, **settings, **more)
    assert int(run(callbacks=[EndAt(1)]).state.step) == 1
    result = run(resume=True)
    loop = il.OuterLoop(algorithm, optimizer, tasks, meta_batch=2)
    state = loop.init(params, jax.random.key(0))
    for _ in range(2):
        state, _ = loop.run(state, 1)
    same_bits(result.params, state.params)
    same_bits(il.load_params(folder, algorithm.init(params)), state.params)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_fit_supports_every_algorithm(name: str, tmp_path: Path):
    spec, settings = ALGORITHMS[name], InnerConfig(learning_rate=0.1, proximal=0.5)
    rule = optax.sgd(1.0 if spec.learns_rates else 0.1)
    algorithm = spec.make(il.cross_entropy(), il.InnerLoop(rule, 2), settings=settings)
    model = il.MLP(3, WAYS, hidden=(4,), context=2, key=jax.random.key(0))
    check(algorithm, Tasks(), tmp_path / "run", model)


def test_fit_supports_persistent_adam(tmp_path: Path):
    algorithm = il.reptile(il.cross_entropy(apply), il.InnerLoop(persistent_adam(1e-2), 2))
    check(algorithm, Tasks(), tmp_path / "run")


def test_fit_supports_online_maml_streams(tmp_path: Path):
    class Streams:
        def sample(self, key: jax.Array) -> il.Task:
            x = jax.random.normal(key, (4, 2, 3))
            return il.Task(il.Batch(x, jnp.zeros((4, 2), int)), il.Batch(x[0], jnp.zeros(2, int)))

    check(
        il.online_maml(il.cross_entropy(apply), il.InnerLoop(optax.sgd(0.1), 4)), Streams(), tmp_path / "run"
    )


def test_fit_supports_haiku_parameter_names(tmp_path: Path):
    """And other characters that are none of a file's name."""
    named = {"mlp/~/linear_0": PARAMS["body"], "a head: 100 %*": PARAMS["head"], "context": PARAMS["context"]}
    own = lambda params: (
        {"body": params["mlp/~/linear_0"], "head": params["a head: 100 %*"]} | {"context": params["context"]}
    )
    loss_fn = il.cross_entropy(lambda params, x: apply(own(params), x))
    check(il.maml(loss_fn, il.InnerLoop(optax.sgd(0.1))), Tasks(), tmp_path / "run", named)


def test_fit_supports_random_stateful_loss_with_aux(tmp_path: Path):
    def fn(params: Any, batch: il.Batch, key: jax.Array, state: jax.Array):
        noise = 0.1 * jax.random.normal(key, batch.inputs.shape)
        outputs = apply(params, batch.inputs + noise)
        loss = -jnp.mean(jax.nn.log_softmax(outputs)[jnp.arange(len(outputs)), batch.targets])
        return loss, 0.5 * state + outputs.mean(0), {"largest": outputs.max()}

    loss_fn = il.Loss(fn, random=True, state=jnp.zeros(WAYS), aux=True)
    check(il.maml(loss_fn, il.InnerLoop(optax.sgd(0.1), 2)), Tasks(), tmp_path / "run")
    from innerloop.training.storage.run_directory import RunFolder

    assert all("train_largest" in record for record in RunFolder(tmp_path / "run").metrics())


def test_fit_supports_flax_model(tmp_path: Path):
    from flax import nnx

    graph, params, rest = nnx.split(nnx.Linear(3, WAYS, rngs=nnx.Rngs(0)), nnx.Param, ...)
    loss_fn = il.cross_entropy(lambda params, x: nnx.merge(graph, params, rest, copy=True)(x))
    held_out = {"validation": Tasks(), "validate_every": 1, "validation_tasks": 2}
    check(il.maml(loss_fn, il.InnerLoop(optax.sgd(0.1))), Tasks(), tmp_path / "run", params, **held_out)


def test_fit_in_multiple_processes_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InnerloopError, match="fit: runs in one process only, got 2; use `innerloop.train`"):
        check(il.maml(il.cross_entropy(apply), il.InnerLoop(optax.sgd(0.1))), Tasks(), tmp_path / "run")
