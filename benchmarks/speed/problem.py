"""Build a workload with innerloop: its experiment, the first meta-step's tasks, its outer loop, its gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from benchmarks.speed.workloads import Workload
from innerloop.config.schema import Config, DataConfig, InnerConfig, ModelConfig, OuterConfig, Precision
from innerloop.engine import meta_state
from innerloop.engine.algorithm import Algorithm
from innerloop.engine.outer import outer_loop as outer
from innerloop.engine.outer import task_draws
from innerloop.engine.pytree import paths
from innerloop.engine.types import Batch, Task
from innerloop.parallel.param_sharding import shard_params
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.experiments.supervised import SupervisedExperiment

KEY = 1
"""Of the tasks."""


class FirstGradient(NamedTuple):
    """The meta-gradient of the first step, for comparison with the peers'."""

    seen: jax.Array
    gradient: Any


def keep_first_gradient() -> optax.GradientTransformation:
    """Store the first gradient and change nothing, so that the program that is checked is the one that is timed."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, FirstGradient]:
        kept = jax.tree.map(lambda old, new: jnp.where(state.seen, old, new), state.gradient, updates)
        return updates, FirstGradient(jnp.ones((), bool), kept)

    init = lambda params: FirstGradient(jnp.zeros((), bool), jax.tree.map(jnp.zeros_like, params))
    return optax.GradientTransformation(init, update)


def config(w: Workload, precision: Precision = "float32") -> Config:
    """The workload as a training config."""
    if w.image is None:
        data = DataConfig(dataset="sinusoid", ways=1, shots=w.shots, queries=w.queries)
        model = ModelConfig(kind="mlp", hidden=w.hidden, scale=0.1)
    else:
        data = DataConfig(dataset="glyphs", ways=w.ways, shots=w.shots, queries=w.queries)
        look: Any = {"downsample": w.downsample, "features": w.features}
        model = ModelConfig(kind="conv4", filters=w.filters, **look)
    inner: Any = {"steps": w.steps, "learning_rate": w.rate, "derivative": w.derivative}
    return Config(
        algorithm=w.algorithm,  # pyright: ignore[reportArgumentType]
        data=data,
        model=model,
        inner=InnerConfig(**inner),
        outer=OuterConfig(meta_batch=w.tasks, learning_rate=1e-3),
        precision=precision,
    )


def noise(image: tuple[int, int, int], classes: int, each: int) -> ClassArrays:
    """Random bytes as images, which avoids ties in max-pooling."""
    examples = np.random.default_rng(0).integers(0, 256, (classes * each, *image), np.uint8)
    starts, counts = np.arange(classes) * each, np.full(classes, each)
    names = tuple(f"c{i}" for i in range(classes))
    return ClassArrays(examples, starts.astype(np.int32), counts.astype(np.int32), names)


def experiment(w: Workload, precision: Precision = "float32") -> SupervisedExperiment:
    """The workload's experiment on noise."""
    classes = noise(w.image, 64, w.shots + w.queries) if w.image else None
    return SupervisedExperiment(config(w, precision), Splits(classes, classes, classes) if classes else None)


def outer_loop(made: SupervisedExperiment, mesh: Mesh | None = None) -> outer.OuterLoop:
    """The outer loop of a training run, which also stores its first gradient."""
    optimizer = optax.chain(keep_first_gradient(), made.optimizer)
    tasks, meta_batch = made.train_tasks(), made.config.outer.meta_batch
    return outer.OuterLoop(
        made.algorithm, optimizer, tasks, meta_batch=meta_batch, chunk=made.chunk, mesh=mesh
    )


def compile_steps(loop: outer.OuterLoop, state: meta_state.MetaState, steps: int) -> jax.stages.Compiled:
    """Compile `steps` meta-steps; `loop.run` then uses the program."""
    program: Any = loop.program(steps)
    data = loop.data(state, steps)
    compiled = program.__wrapped__.lower(shard_params(state, loop.mesh), None, data).compile()
    loop.programs[steps] = compiled
    return compiled


def first_tasks(made: SupervisedExperiment) -> Task:
    """The tasks of the first meta-step, with a leading axis."""
    keys = task_draws.task_keys(jax.random.key(KEY), jnp.zeros((), jnp.int32), made.config.outer.meta_batch)
    return jax.jit(lambda keys: jax.lax.map(made.train_tasks().sample, keys))(keys)


def save_problem(path: str, params: Any, tasks: Task) -> None:
    """Save weights by path, and tasks, for the other contenders."""
    arrays = {f"weights:{name}": x for name, x in named(params).items()}
    arrays |= {"support_x": tasks.support.inputs, "support_y": tasks.support.targets}
    arrays |= {"query_x": tasks.query.inputs, "query_y": tasks.query.targets}
    np.savez(path, **{name: np.asarray(x) for name, x in arrays.items()})  # pyright: ignore[reportArgumentType]


def load_problem(path: str, like: Any) -> tuple[Any, Task]:
    """Load what `save_problem` wrote: parameters with the structure of `like`, and tasks."""
    with np.load(path) as arrays:
        leaves = [arrays[f"weights:{name}"] for name in paths(like)]
        batches = [Batch(arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("support", "query")]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), Task(*batches)


def named(tree: Any) -> dict[str, Any]:
    """Leaves by path."""
    return dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))


def save_gradient(path: str, gradient: Any) -> None:
    """Save a meta-gradient by path."""
    np.savez(path, **{name: np.asarray(x) for name, x in named(gradient).items()})  # pyright: ignore


def gradient_in_double(algorithm: Algorithm, params: Any, tasks: Task) -> Any:
    """The mean meta-gradient of the tasks, in float64."""
    with jax.enable_x64(True):
        wide = lambda x: jnp.asarray(np.asarray(x), np.float64 if x.dtype == np.float32 else x.dtype)
        params, tasks = jax.tree.map(wide, (params, tasks))
        one = lambda task: algorithm.meta_grad(params, task)[0]
        mean = lambda tasks: jax.tree.map(lambda g: g.mean(0), jax.lax.map(one, tasks))
        return jax.tree.map(np.asarray, jax.jit(mean)(tasks))
