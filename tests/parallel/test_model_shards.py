"""Parameters in pieces over the mesh axis `model`: where they lie, and that nothing else changes."""

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from benchmarks.scaling import launch
from callback_cases import EachBlock
from tests.compilation import unmeasured

from innerloop.algorithms import maml
from innerloop.cli import main
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, EvaluationConfig, ModelConfig, OuterConfig
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer import outer_loop as outer
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import mean_squared_error
from innerloop.parallel.mesh import task_mesh
from innerloop.parallel.param_sharding import _axis_to_shard, shard_params
from innerloop.tasks import Sinusoid
from innerloop.training.measure import measure
from innerloop.training.progress.progress import Progress
from innerloop.training.storage import weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import load_trained

pytestmark = pytest.mark.usefixtures("quick_processes")

WORKER = Path(__file__).with_name("shards_worker.py")


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((40, 40), 1),  # of equal axes the last: the products of a layer's outputs need no sum over devices
        ((64, 5), 0),
        ((3, 3, 1, 64), 3),
        ((3, 3, 3, 65), None),  # two divide none
        ((64,), None),  # too small
        ((), None),
    ],
)
def test_axis_to_shard(shape: tuple[int, ...], axis: int | None):
    assert _axis_to_shard(shape, 2) == axis
    assert _axis_to_shard(shape, 1) is None


def test_task_mesh_with_model_shards():
    devices = jax.devices()
    assert task_mesh(4, devices, model_shards=2).shape == {"tasks": 1, "model": 2}
    assert task_mesh(4, devices, model_shards=1).shape == {"tasks": 2}
    with pytest.raises(
        InnerloopError, match="outer.model_shards: must divide the devices .*got 3 shards on 2 devices"
    ):
        task_mesh(4, devices, model_shards=3)


def test_each_device_holds_shard_of_parameters_and_moments():
    """256 x 256 weights, and Adam's two moments of each; bytes on one device, as the compiler counts them."""
    mesh, optimizer = task_mesh(2, model_shards=2), optax.adam(0.01)
    algorithm = maml(mean_squared_error(), InnerLoop(optax.sgd(0.05), 1))
    loop = outer.OuterLoop(algorithm, optimizer, Sinusoid(5, 5), meta_batch=2, mesh=mesh)
    state = loop.init(MLP(1, 1, hidden=(256, 256), key=jax.random.key(0)), jax.random.key(1))
    whole = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
    compiled: Any = loop.program(1)
    lowered = compiled.lower(shard_params(state, mesh), None, loop.data(state, 1))
    half = lowered.compile().memory_analysis().argument_size_in_bytes
    assert whole > 3 * 4 * 256 * 256
    assert half < 0.52 * whole


def work(count: int, file: Path, devices: int, shards: int) -> dict[str, np.ndarray]:
    port = launch.free_port()
    words = lambda index: map(str, (count, index, port, file, devices, shards))
    command = lambda index: [sys.executable, str(WORKER), *words(index)]
    for code, told in launch.end([launch.Process(command(i), env=unmeasured()) for i in range(count)]):
        assert code == 0, told
    return dict(np.load(file))


@pytest.mark.slow
def test_sharded_results_match_single_device(tmp_path: Path):
    """Two groups, and two processes of one group: training with Adam, evaluation and streamed episodes."""
    one = work(1, tmp_path / "one.npz", 1, 1)
    assert len(one) > 20
    for name, arrangement in {"groups": (1, 4, 2), "processes": (2, 2, 2)}.items():
        count, devices, shards = arrangement
        found = work(count, tmp_path / f"{name}.npz", devices, shards)
        assert found.keys() == {x for x in one if count == 1 or not x.startswith("conv")}
        for x in found:
            np.testing.assert_allclose(found[x], one[x], rtol=1e-6, atol=1e-8, err_msg=f"{name}: {x}")


WIDE = replace(
    preset("sinusoid-maml"),
    model=ModelConfig(kind="mlp", hidden=(32, 32)),
    outer=OuterConfig(
        meta_steps=6, meta_batch=2, log_every=2, validate_every=6, checkpoint_every=2, model_shards=2
    ),
    evaluation=EvaluationConfig(steps=2, tasks=6, validation_tasks=4, queries=3),
)


def test_sharded_run_saves_full_weights_and_resumes(tmp_path: Path):
    """Weights as those of a run on whole parameters, up to rounding; resumed to the same bits; measured."""
    plain = replace(WIDE, outer=replace(WIDE.outer, model_shards=1))
    for name, config in {"cut": WIDE, "plain": plain}.items():
        train(config, tmp_path / name)

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(WIDE, tmp_path / "short", callbacks=[EachBlock(stop)])
    train(None, tmp_path / "short", resume=True)
    cut, other, resumed = (
        weights.load(RunFolder(tmp_path / n).weights)[0] for n in ("cut", "plain", "short")
    )
    for name in cut:
        np.testing.assert_allclose(cut[name], other[name], rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(cut[name], resumed[name])
    found = [measure(load_trained(tmp_path / name), num_tasks=6).value for name in ("cut", "plain")]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


LONG = ("sinusoid-maml", "--model.hidden", "32", "32", "--outer.meta-batch", "4", "--outer.model-shards", "2")
LONG += ("--outer.meta-steps", "60", "--outer.log-every", "5", "--outer.checkpoint-every", "20")
LONG += ("--outer.validate-every", "0", "--evaluation.validation-tasks", "6", "--evaluation.steps", "1")


@pytest.mark.slow
def test_sharded_multi_process_run_resumes_in_one_process(tmp_path: Path):
    """Two processes of one group each, both killed behind a checkpoint; then one process of two groups, to the end.

    As one group that was never interrupted.
    """
    run, whole = tmp_path / "run", tmp_path / "whole"
    both = launch.start(2, [*LONG, "--folder", str(run)], devices=2)
    launch.wait_for_lines(run, 6, both)
    launch.lose(both, 1, signal.SIGKILL)
    assert not (run / "weights.safetensors").exists()
    launch.train(1, ["--resume", str(run)], devices=4)
    assert main(["train", *LONG, "--folder", str(whole)]) == 0
    a, b = (weights.load(folder / "weights.safetensors")[0] for folder in (run, whole))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-5, err_msg=name)


def refused(config: Config, tmp_path: Path, words: str) -> None:
    with pytest.raises(InnerloopError, match=words):
        train(config, tmp_path / "run")


def test_invalid_model_shards_raise(tmp_path: Path):
    refused(
        replace(WIDE, outer=replace(WIDE.outer, model_shards=3)),
        tmp_path,
        "must divide the devices of each process",
    )
    policy = preset("navigation-maml-trpo")
    refused(
        replace(policy, outer=replace(policy.outer, model_shards=2)),
        tmp_path,
        "outer.model_shards: policies cannot be sharded",
    )
