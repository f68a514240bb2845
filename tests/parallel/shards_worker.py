"""One of several processes, in float64: meta-steps of models whose parameters are in pieces, written by the first.

shards_worker.py COUNT INDEX PORT FILE DEVICES SHARDS: this process's number of devices, and how many share a copy.
"""

import sys

import equinox as eqx
import jax
import numpy as np
import optax

from innerloop.algorithms import maml
from innerloop.engine.evaluation.evaluate import evaluator
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.nn import MLP, Conv4
from innerloop.nn.losses import cross_entropy, mean_squared_error
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import local_copy, task_mesh
from innerloop.parallel.param_sharding import _axis_to_shard
from innerloop.tasks import Episodes, Sinusoid, StreamedEpisodes, StreamedOuterLoop
from innerloop.tasks.class_arrays import ClassArrays

TASKS = 4
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 6, 8, 8, 1), np.uint8)
CLASSES = ClassArrays.from_lists(list(PICTURES), list("abcdef"))


def whole(tree):
    return [np.asarray(local_copy(x)) for x in jax.tree.leaves(tree)]


def check_pieces(params, shards):
    """Every large array is in as many pieces."""
    cut = [x for x in jax.tree.leaves(params) if _axis_to_shard(x.shape, shards) is not None]
    assert bool(cut) == (shards > 1)
    assert all(x.addressable_shards[0].data.size * shards == x.size for x in cut)


def ran(model, loss, tasks, mesh, shards):
    """Three meta-steps of MAML with Adam outside, and what the result scores."""
    algorithm = maml(loss, InnerLoop(optax.sgd(0.05), 1))
    loop = OuterLoop(algorithm, optax.adam(0.01), tasks, meta_batch=TASKS, chunk=1, mesh=mesh)
    state, info = loop.run(loop.init(model, jax.random.key(1)), 3)
    check_pieces(state.params, shards)
    curves = evaluator(algorithm, tasks, num_tasks=4, model_shards=shards)(state.params, jax.random.key(2))
    scores = [curve.scores["loss"] for curve in curves]
    return whole(state.params) + [np.asarray(x) for x in jax.tree.leaves(info)] + scores


def streamed(mesh):
    """Parameters after two meta-steps on pictures read ahead."""
    episodes = StreamedEpisodes(CLASSES, 2, 1, 1)
    optimizer, algorithm = optax.sgd(0.1), maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 1))
    with StreamedOuterLoop(algorithm, optimizer, episodes, meta_batch=TASKS, mesh=mesh) as loop:
        state = loop.init(MLP(64, 2, hidden=(8,), key=jax.random.key(0)), jax.random.key(1))
        return whole(loop.run(state, 2)[0].params)


def main(count, index, port, file, *on):
    devices, shards = on
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if count > 1:
        multi_process.initialize(multi_process.ProcessGroup(f"127.0.0.1:{port}", count, index, 30))
    mesh = task_mesh(TASKS, model_shards=shards)
    dense = MLP(1, 1, hidden=(32, 32), key=jax.random.key(0))
    conv = Conv4(2, image_shape=(16, 16, 1), filters=8, downsample="pool", key=jax.random.key(0))
    conv = eqx.tree_at(lambda model: model.body, conv, conv.body[:2])  # the others are like the second
    found = {
        "dense": ran(dense, mean_squared_error(), Sinusoid(5, 5), mesh, shards),
        "streamed": streamed(mesh),
    }
    # Two compilers at a time are slow, and which process a device is in is nothing to a convolution.
    if count == 1:
        found["conv"] = ran(conv, cross_entropy(), Episodes(CLASSES, 2, 1, 2), mesh, shards)
    if index == 0:
        named = {f"{name} {i}": x for name, several in found.items() for i, x in enumerate(several)}
        np.savez(file, **named)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4], *map(int, sys.argv[5:]))
