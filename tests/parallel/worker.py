"""One of several processes, in float64: meta-gradients, 20 meta-steps and an evaluation, written by the first.

worker.py COUNT INDEX PORT FILE [DEVICES ...]: alone, on each of these numbers of devices, else with the others on all.
"""

import sys

import jax
import numpy as np
import optax

from innerloop.algorithms import maml
from innerloop.engine.evaluation.evaluate import evaluate
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.outer_loop import OuterLoop
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy, mean_squared_error
from innerloop.parallel import multi_process
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks import Sinusoid, StreamedEpisodes, StreamedOuterLoop
from innerloop.tasks.class_arrays import ClassArrays

TASKS, STEPS, RATE = 8, 20, 0.02
ALGORITHM = maml(mean_squared_error(), InnerLoop(optax.sgd(0.05), 1))
WAVES = Sinusoid(5, 5)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def ran(mesh):
    """The first meta-gradient, the parameters after 20 meta-steps, and what was seen."""
    params, optimizer = MLP(1, 1, hidden=(8,), key=jax.random.key(0)), optax.sgd(RATE)
    loop = OuterLoop(ALGORITHM, optimizer, WAVES, meta_batch=TASKS, mesh=mesh)
    state, info = loop.run(loop.init(params, jax.random.key(1)), 1)
    gradient = [(a - b) / RATE for a, b in zip(leaves(params), leaves(state.params), strict=True)]
    seen = [leaves(info)]
    for _ in range(STEPS - 1):
        state, info = loop.run(state, 1)
        seen.append(leaves(info))
    return gradient, state.params, [np.stack(x) for x in zip(*seen, strict=True)]


def evaluated(params):
    """Scores of 21 tasks, which is not a multiple of anything here."""
    curve = evaluate(ALGORITHM, params, WAVES, key=jax.random.key(2), num_tasks=21)
    return [curve.scores["loss"]]


def streamed(mesh):
    """Parameters after three meta-steps on pictures read ahead."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 2, 2, 1), np.uint8)
    episodes = StreamedEpisodes(ClassArrays.from_lists(list(pictures), list("abcdef")), 2, 1, 1)
    optimizer, algorithm = optax.sgd(0.1), maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 1))
    with StreamedOuterLoop(algorithm, optimizer, episodes, meta_batch=TASKS, mesh=mesh) as loop:
        state = loop.init(MLP(4, 2, hidden=(3,), key=jax.random.key(0)), jax.random.key(1))
        state, _ = loop.run(state, 3)
        return leaves(loop.run(state, 3)[0].params)


def results(mesh):
    gradient, params, metrics = ran(mesh)
    found = {"gradient": gradient, "run": leaves(params), "metrics": metrics}
    if mesh.size <= 2:
        found |= {"scores": evaluated(params), "streamed": streamed(mesh)}
    return found


def agreements(index):
    """What processes tell each other, and a difference that each of them hears of."""
    assert multi_process.all_gather_int(index - 1) == list(range(-1, jax.process_count() - 1))
    assert multi_process.from_first(b"from 0" if index == 0 else None) == b"from 0"
    tree = {
        "x": np.full(3, 1.0 + index),
        "key": jax.random.key(index),
        "zero": np.array(-0.0 if index == 0 else 0.0),
    }
    got = multi_process.tree_from_first(tree)
    assert np.asarray(got["x"]).tolist() == [1, 1, 1]
    assert np.signbit(np.asarray(got["zero"]))
    assert (jax.random.key_data(got["key"]) == jax.random.key_data(jax.random.key(0))).all()
    multi_process.check_same(b"abc", "settings")
    told = ""  # `pytest.raises` would cost each process half a second for the import
    try:
        multi_process.check_same(bytes([index]), "settings")
    except InnerloopError as error:
        told = str(error)
    assert "process 1: has different settings from the primary process" in told


def main(count, index, port, file, *devices):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", max(devices, default=1))
    if count > 1:
        multi_process.initialize(multi_process.ProcessGroup(f"127.0.0.1:{port}", count, index, 30))
        agreements(index)
    meshes = [task_mesh(TASKS, jax.devices()[:n]) for n in devices] or [task_mesh(TASKS)]
    for mesh in meshes:
        found = results(mesh)
        named = {f"{name} {i}": x for name, several in found.items() for i, x in enumerate(several)}
        if index == 0:
            np.savez(f"{file}-{mesh.size}.npz", **named)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4], *map(int, sys.argv[5:]))
