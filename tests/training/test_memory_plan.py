"""Peak memory predicted from the trace, and what a training does when it would not fit."""

import os
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config, InnerConfig, OuterConfig
from innerloop.engine.outer.mesh_loop import MeshLoop
from innerloop.nn.kernels.conv import conv
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.experiments.build import build
from innerloop.training.experiments.supervised import SupervisedExperiment, supervised
from innerloop.training.memory import memory_plan as module
from innerloop.training.memory.memory_plan import MemoryPlan, apply_plan, available_memory, memory_plan
from innerloop.training.memory.peak_memory import predicted_peak
from innerloop.training.progress.callbacks import Callback

SQUARE = 4 * 64 * 64

PEAKS: dict[object, int] = {}
trace = module.peak_of_a_task


def peak_of_a_task(experiment: SupervisedExperiment) -> int:
    """The library's own, traced once for every program: no setting of the outer loop is part of it."""
    program = replace(experiment.config, outer=OuterConfig()), experiment.example_shape, jax.default_backend()
    if program not in PEAKS:
        PEAKS[program] = trace(experiment)
    return PEAKS[program]


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "peak_of_a_task", peak_of_a_task)
        yield


def test_peak_of_matmul_chain_counts_live_results():
    """Two results are alive at once, the argument is the caller's; a fused sine costs nothing."""
    x = jnp.ones((64, 64))
    assert predicted_peak(lambda x: x @ x, x) == SQUARE
    assert predicted_peak(lambda x: (x @ x) @ x @ x @ x, x) == 2 * SQUARE
    assert predicted_peak(lambda x: jnp.sin(jnp.sin(x)), x) == SQUARE


def test_peak_of_scan_counts_body_once_plus_stacked_outputs():
    x = jnp.ones((64, 64))
    carried = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=100)[0]
    stacked = lambda x: jax.lax.scan(lambda c, _: (c @ x, c), x, None, length=100)[1]
    assert predicted_peak(carried, x) == 2 * SQUARE
    assert predicted_peak(stacked, x) == 102 * SQUARE


@pytest.fixture(scope="module")
def wide(tiny: Config) -> SupervisedExperiment:
    """A network whose activations outweigh it, ten inner steps."""
    return supervised(
        build(
            replace(
                tiny,
                model=replace(tiny.model, hidden=(64, 64)),
                data=replace(tiny.data, shots=500, queries=500),
                inner=replace(tiny.inner, steps=10),
                outer=replace(tiny.outer, meta_batch=8),
            )
        )
    )


def held_by_the_compiled(this: SupervisedExperiment) -> int:
    """What the compiler says that one task's meta-gradient holds."""
    tasks = this.train_tasks()
    one = jax.jit(lambda params, key: this.algorithm.meta_grad(params, tasks.sample(key)))
    arguments = jax.eval_shape(this.init_params), this.keys().tasks
    analysis = one.lower(*arguments).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


@pytest.mark.parametrize("derivative", ["unrolled", "rematerialised", "mixed"])
def test_predicted_peak_is_within_factor_two_of_compiler(wide: SupervisedExperiment, derivative: str):
    config = wide.config
    this = replace(wide, config=replace(config, inner=replace(config.inner, derivative=derivative)))
    held = held_by_the_compiled(this)
    assert held / 2 < peak_of_a_task(this) < held * 2


def test_plan_leaves_fitting_experiment_unchanged(wide: SupervisedExperiment):
    found = memory_plan(wide)
    assert found.fits
    assert not found.changed
    assert apply_plan(wide, found) is wide
    assert str(found).startswith("memory: about 0.0 GiB of ")
    assert not replace(found, predicted=2**26).messages
    assert replace(found, predicted=2**27).messages
    assert replace(found, predicted=2**26, changed=True).messages
    assert replace(found, predicted=2**26, available=2**26).messages


def test_plan_reduces_chunk_then_rematerialises_then_warns(wide: SupervisedExperiment):
    unrolled = peak_of_a_task(wide)
    fewer = memory_plan(wide, available=2 * 2 * 2 * unrolled)
    assert (fewer.chunk, fewer.inner.derivative, fewer.changed, fewer.fits) == (2, "unrolled", True, True)
    recomputed = memory_plan(wide, available=2 * 2 * unrolled - 1)
    assert (recomputed.inner.derivative, recomputed.fits) == ("rematerialised", True)
    changed = apply_plan(wide, recomputed).config
    assert (changed.outer.chunk, changed.inner.derivative) == (recomputed.chunk, "rematerialised")
    assert "inner steps are rematerialised" in str(recomputed)
    hopeless = memory_plan(wide, available=1)
    assert (hopeless.chunk, hopeless.fits) == (1, False)
    assert "may not fit" in str(hopeless)


LONG = 200


@pytest.fixture(scope="module")
def long(wide: SupervisedExperiment) -> SupervisedExperiment:
    """Two hundred inner steps on minibatches, whose parameters outweigh the activations."""
    config = wide.config
    inner = replace(config.inner, steps=LONG, optimizer="adam", minibatch=16)
    return replace(wide, config=replace(config, inner=inner))


@pytest.mark.parametrize(
    ("derivative", "checkpoints"),
    [("unrolled", None), ("unrolled", 14), ("rematerialised", 14), ("mixed", None)],
)
def test_predicted_peak_of_long_loop_is_within_25_percent(
    long: SupervisedExperiment, derivative: str, checkpoints: int | None
):
    inner = replace(long.config.inner, derivative=derivative, checkpoints=checkpoints)
    this = replace(long, config=replace(long.config, inner=inner))
    assert peak_of_a_task(this) == pytest.approx(held_by_the_compiled(this), rel=0.25)


def test_plan_adds_checkpoints_to_long_loop(long: SupervisedExperiment):
    config = replace(long.config, outer=replace(long.config.outer, chunk=1))
    recomputed = replace(config.inner, derivative="rematerialised")
    minimum = peak_of_a_task(replace(long, config=replace(config, inner=recomputed)))
    found = memory_plan(replace(long, config=config), available=2 * minimum - 1)
    assert (found.inner.derivative, found.inner.checkpoints, found.fits) == ("rematerialised", 14, True)
    assert "rematerialised, with 14 checkpoints" in str(found)
    assert found.predicted < minimum / 2


def test_plan_offloads_checkpoints_to_host_as_last_resort(
    long: SupervisedExperiment, monkeypatch: pytest.MonkeyPatch
):
    """The prediction is of the device: without the carries at the starts of 13 segments of 15 steps."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = replace(long.config, outer=replace(long.config.outer, chunk=1))
    hopeless = memory_plan(replace(long, config=config), available=1)
    assert (hopeless.inner.checkpoints, hopeless.inner.offload) == (14, True)
    assert "14 checkpoints in host memory" in str(hopeless)
    inners = (replace(hopeless.inner, offload=offload) for offload in (False, True))
    peak, offloaded = (peak_of_a_task(replace(long, config=replace(config, inner=i))) for i in inners)
    moving = 3 * sum(x.size * 4 for x in jax.tree.leaves(jax.eval_shape(long.init_params)))
    assert peak - offloaded == pytest.approx(13 * moving, rel=0.01)


def test_plan_adds_no_checkpoints_to_first_order_loop(long: SupervisedExperiment):
    first_order = replace(long, config=replace(long.config, algorithm="fomaml"))
    assert memory_plan(first_order, available=1).inner == long.config.inner


def test_plan_keeps_requested_chunk(wide: SupervisedExperiment):
    config = wide.config
    asked = replace(wide, config=replace(config, outer=replace(config.outer, chunk=4)))
    assert memory_plan(asked, available=1).chunk == 4


def test_available_memory_sums_accelerator_memory(monkeypatch: pytest.MonkeyPatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 100}

    assert 2**20 < available_memory() < 2**50
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()] * 2)
    assert available_memory() == 1800


def test_plan_str_shows_predicted_and_available_memory():
    found = MemoryPlan(4, InnerConfig(), 2**30, 2**33, False)
    assert str(found) == "memory: about 1.0 GiB of 8.0 GiB at peak"


def test_plan_str_omits_unknown_available_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sysconf_names", {})
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: None)])
    found = MemoryPlan(4, InnerConfig(), 2**30, available_memory(), False)
    assert found.fits
    assert str(found) == "memory: about 1.0 GiB at peak"


def test_train_tells_callbacks_the_plan_before_compiling(tiny: Config, tmp_path, monkeypatch):
    from innerloop.training import train as training

    class Told(Exception):
        pass

    class Listener(Callback):
        def on_message(self, text: str) -> None:
            raise Told(text)

    monkeypatch.setattr(training, "available_memory", lambda: 1)
    monkeypatch.setattr(MeshLoop, "run", None)
    with pytest.raises(Told, match=r"Memory: about .* this may not fit: use fewer .*--devices\.$"):
        training.train(tiny, tmp_path / "run", callbacks=[Listener()])
    assert not (tmp_path / "run").exists()


# --- the code of a GPU ----------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.usefixtures("gpu")
def test_peak_of_gpu_convolution_includes_patches():
    """Beside its result, one row of 3 x 3 x 4 numbers for every place; under `vmap` those of all tasks."""
    x, w = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 5))
    result, held = 4 * 2 * 8 * 8 * 5, 4 * 2 * 8 * 8 * 36
    assert predicted_peak(conv, x, w) == result + held
    tasks = [jnp.stack([a] * 3) for a in (x, w)]
    assert predicted_peak(jax.vmap(conv), *tasks) == 3 * (result + held)


def mini_imagenet(steps: int) -> SupervisedExperiment:
    """MAML's protocol for mini-ImageNet with 5 shots, on a few classes of nothing."""
    config = preset("mini-imagenet-5way-5shot-maml")
    each = config.data.shots + config.data.queries
    examples = np.zeros((5 * each, 84, 84, 3), np.uint8)
    starts, counts = np.arange(5, dtype=np.int32) * each, np.full(5, each, np.int32)
    classes = ClassArrays(examples, starts, counts, tuple("abcde"))
    config = replace(config, inner=replace(config.inner, steps=steps))
    return SupervisedExperiment(config, Splits(classes, classes, classes))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("steps", "gigabytes", "changed"), [(5, 80, False), (100, 80, False), (100, 20, True)]
)
def test_mini_imagenet_plan_fits_80_gb(steps: int, gigabytes: int, changed: bool):
    """All tasks at once while they fit; a hundred inner steps in less need fewer, or their steps recomputed."""
    plan = memory_plan(mini_imagenet(steps), available=gigabytes * 10**9)
    assert plan.fits
    assert plan.changed == changed
    assert 2 * plan.predicted < 80e9


def test_peak_of_pallas_convolution_excludes_patches(monkeypatch: pytest.MonkeyPatch):
    """Operands and result, but no patches; with patches they come on top."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, w = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    peak = lambda: predicted_peak(lambda x, w: jnp.sin(conv(jnp.cos(x), w)), x, w)
    assert peak() == (2 + 9) * x.nbytes
    monkeypatch.setenv("INNERLOOP_GPU_CONVOLUTION", "pallas")
    assert peak() == 2 * x.nbytes
    half = lambda x, w: jnp.sin(conv(jnp.cos(x), w))
    few = [a.astype(jnp.bfloat16) for a in (x, w)]
    assert predicted_peak(half, *few) == (2 + 9) * few[0].nbytes
    monkeypatch.setattr("innerloop.training.memory.peak_memory.INDEXED", x.size)
    assert peak() == (2 + 9) * x.nbytes
