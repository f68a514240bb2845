import copy
import functools
import gc
import threading
import time
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop.algorithms import fomaml
from innerloop.engine import meta_state
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer import outer_loop as outer
from innerloop.engine.outer import task_draws
from innerloop.errors import InnerloopError
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy
from innerloop.parallel.mesh import task_mesh
from innerloop.tasks.class_arrays import ClassArrays, starts_of
from innerloop.tasks.datasets import memmap
from innerloop.tasks.episodes import EpisodeRows, Episodes
from innerloop.tasks.streaming import StreamedEpisodes, StreamedOuterLoop

COUNTS = np.array([6, 9, 5, 7, 8, 12], np.int32)
OPTIMIZER = optax.adam(1e-2)
ALGORITHM = fomaml(cross_entropy(), InnerLoop(optax.sgd(0.1), steps=2))


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Six classes of 4x4 images in a memory map; every example differs."""
    rng = np.random.default_rng(0)
    data = ClassArrays(
        rng.integers(0, 256, (int(COUNTS.sum()), 4, 4, 1), np.uint8),
        starts_of(COUNTS),
        COUNTS,
        tuple("abcdef"),
    )
    path = tmp_path_factory.mktemp("map") / "classes.npy"
    memmap.save(data, path)
    return memmap.open(path)


@pytest.fixture(scope="module")
def episodes(classes):
    return StreamedEpisodes(classes, 3, 2, 2)


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    """The tests share their compiled meta-steps."""
    compiled, program = {}, StreamedOuterLoop.program

    def shared(self, steps):
        key = (self.algorithm, self.meta_batch, self.mesh, self.chunk)
        compiled[key] = compiled.get(key) or program(self, steps)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamedOuterLoop, "program", shared)
        yield


@functools.cache
def model():
    return MLP(16, 3, hidden=(8,), key=jax.random.key(0))


def fresh():
    params: Any = model()
    return meta_state.MetaState(
        jax.tree.map(jnp.array, params), OPTIMIZER.init(params), jax.random.key(7), jnp.zeros((), jnp.int32)
    )


def streamed(episodes, **options):
    defaults = {"meta_batch": 4, "mesh": task_mesh(4, jax.devices()[:1])}
    return StreamedOuterLoop(ALGORITHM, OPTIMIZER, episodes, **(defaults | options))


def readers():
    return [t for t in threading.enumerate() if t.name == "innerloop-read-ahead"]


def test_read_matches_resident_episodes(classes, episodes):
    assert isinstance(classes.examples, np.memmap)
    resident, state = Episodes(classes, 3, 2, 2), fresh()
    sample_all = jax.jit(lambda keys: jax.lax.map(resident.sample, keys))
    tasks = episodes.read(state.key, 5, 2, 4)
    assert tasks.support.inputs.shape == (2, 4, 6, 4, 4, 1)
    assert tasks.support.inputs.dtype == np.uint8
    assert tasks.query.targets.shape == (2, 4, 6)
    for i in range(2):
        keys = task_draws.task_keys(state.key, jnp.asarray(5 + i), 4)
        wanted = sample_all(keys)
        for got, want in zip(tasks, wanted, strict=True):
            np.testing.assert_array_equal(got.inputs[i], np.rint(np.asarray(want.inputs) * 255))
            np.testing.assert_array_equal(got.targets[i], want.targets)


def test_support_and_query_are_disjoint_and_share_classes(classes):
    sampler = EpisodeRows(classes, 3, 2, 2)
    tasks = jax.lax.map(sampler.sample, jax.random.split(jax.random.key(3), 300))
    owner = np.repeat(np.arange(6), COUNTS)
    for s, t, q, u in zip(*tasks.support[:2], *tasks.query[:2], strict=True):
        rows = np.concatenate([s, q])
        assert len(set(rows.tolist())) == 12
        labels = np.concatenate([t, u])
        pairs = {(int(label), int(owner[row])) for label, row in zip(labels, rows, strict=True)}
        assert len(pairs) == 3
        assert len({c for _, c in pairs}) == 3


def test_streamed_training_matches_resident_training(classes, episodes):
    mesh = task_mesh(4, jax.devices()[:1])
    resident = outer.OuterLoop(ALGORITHM, OPTIMIZER, Episodes(classes, 3, 2, 2), meta_batch=4, mesh=mesh)
    want, got = fresh(), fresh()
    with streamed(episodes) as loop:
        for _ in range(3):
            want, want_info = resident.run(want, 3)
            got, got_info = loop.run(got, 3)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), want_info, got_info)
    assert int(got.step) == 9
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), want.params, got.params)


def test_run_resumes_at_any_step(episodes):
    with streamed(episodes) as loop:
        whole, _ = loop.run(fresh(), 4)
    with streamed(episodes) as loop:
        state = fresh()
        for _ in range(2):
            state, _ = loop.run(state, 1)
        saved = jax.tree.map(lambda x: jnp.array(x), state)
        longer, _ = loop.run(state, 2)
    with streamed(episodes) as loop:
        resumed, _ = loop.run(saved, 2)
    jax.tree.map(np.testing.assert_array_equal, whole.params, longer.params)
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)


def test_another_state_restarts_the_reader(episodes):
    with streamed(episodes) as loop:
        first, first_info = loop.run(fresh(), 3)
        loop.run(first, 3)
        _, again_info = loop.run(fresh(), 3)
        np.testing.assert_array_equal(first_info.outer_loss, again_info.outer_loss)
        assert len(readers()) == 1


def test_chunks_and_devices_do_not_change_the_tasks(episodes):
    mesh = task_mesh(4, jax.devices()[:2])
    with streamed(episodes) as loop, streamed(episodes, chunk=1, mesh=mesh) as chunked:
        want, got = loop.run(fresh(), 3)[1], chunked.run(fresh(), 3)[1]
    np.testing.assert_allclose(want.outer_loss, got.outer_loss, rtol=1e-5)


def test_reader_stops_at_context_exit(episodes):
    with streamed(episodes) as loop:
        loop.run(fresh(), 3)
        assert len(readers()) == 1
    assert not readers()


def test_reader_stops_on_user_error(episodes):
    def broken():
        with streamed(episodes) as loop:
            loop.run(fresh(), 3)
            raise KeyError

    pytest.raises(KeyError, broken)
    assert not readers()


def test_context_exit_before_first_step_leaves_no_reader(episodes):
    with streamed(episodes):
        pass
    assert not readers()


class Watched:
    """Examples that note how they are read, and fail or wait if told to."""

    def __init__(self, examples, fail_at=None, wait=0.0):
        self.examples, self.fail_at, self.wait, self.read = examples, fail_at, wait, []
        self.shape, self.dtype = examples.shape, examples.dtype

    def __getitem__(self, rows):
        time.sleep(self.wait)
        self.read.append(len(rows))
        if self.fail_at is not None and len(self.read) > self.fail_at:
            raise OSError("the disk is gone")
        return self.examples[rows]


def watched(episodes, **options):
    episodes = copy.copy(episodes)
    episodes.examples = Watched(episodes.examples, **options)
    return episodes


def test_reader_error_is_raised_on_every_run(episodes):
    episodes = watched(episodes, fail_at=4)  # two reads a block: the third block fails
    with StreamedOuterLoop(ALGORITHM, OPTIMIZER, episodes, meta_batch=4) as loop:
        state, _ = loop.run(fresh(), 1)
        state, _ = loop.run(state, 1)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                loop.run(state, 1)
    assert not readers()


def test_prefetch_is_bounded(episodes):
    episodes = watched(episodes)
    with StreamedOuterLoop(ALGORITHM, OPTIMIZER, episodes, meta_batch=4, prefetch=3) as loop:
        loop.run(fresh(), 1)
        # One block taken, three waiting, one in hand; two reads each.
        deadline = time.monotonic() + 5
        while len(episodes.examples.read) < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        assert len(episodes.examples.read) == 10


def test_memory_map_is_never_fully_loaded(tmp_path):
    megabyte, classes = 2**20, 64
    counts = np.full(classes, 4096, np.int32)
    path = tmp_path / "large.npy"  # 256 MB on paper, a hole on disk
    examples = np.lib.format.open_memmap(path, "w+", np.uint8, (int(counts.sum()), 32, 32, 1))
    data = ClassArrays(examples, starts_of(counts), counts, tuple(map(str, range(classes))))
    tracemalloc.start()
    try:
        episodes = StreamedEpisodes(data, 3, 2, 2)
        with StreamedOuterLoop(ALGORITHM, OPTIMIZER, episodes, meta_batch=4) as loop:
            state = loop.init(MLP(1024, 3, hidden=(4,), key=jax.random.key(0)), jax.random.key(1))
            for _ in range(6):
                state, _ = loop.run(state, 5)
            jax.block_until_ready(state.params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert examples.nbytes == 256 * megabyte
    assert peak < 16 * megabyte


def test_reading_overlaps_with_computation(episodes):
    """Slow reads and slow steps side by side take the longer of the two, not their sum."""

    def slow(x):
        time.sleep(0.025)  # four tasks a step
        return x

    def loss(params, batch):
        total = jax.ShapeDtypeStruct((), jnp.float32)
        slept = jax.pure_callback(slow, total, batch.inputs.sum(), vmap_method="sequential")
        return cross_entropy()(params, batch) + 0 * jax.lax.stop_gradient(slept)

    algorithm = fomaml(loss, InnerLoop(optax.sgd(0.1), steps=0))
    slow_reads = watched(episodes, wait=0.05)  # 0.1 s a block
    mesh = task_mesh(4, jax.devices()[:1])
    with StreamedOuterLoop(algorithm, OPTIMIZER, slow_reads, meta_batch=4, mesh=mesh) as loop:
        state, _ = loop.run(fresh(), 1)
        jax.block_until_ready(state)
        begun = time.monotonic()
        for _ in range(10):
            state, _ = loop.run(state, 1)
        jax.block_until_ready(state)
        seconds = time.monotonic() - begun
    assert seconds < 1.6  # 1.0 side by side, 2.0 one after the other


class Interrupted:
    """The losses of a block in flight: waiting for them is interrupted."""

    def block_until_ready(self):
        raise KeyboardInterrupt


def test_interrupted_run_can_be_repeated(episodes):
    with streamed(episodes) as loop:
        whole, _ = loop.run(fresh(), 4)
    with streamed(episodes) as loop:
        state, _ = loop.run(fresh(), 2)
        interrupted: Any = Interrupted()
        loop.in_flight.extend([interrupted, interrupted])
        with pytest.raises(KeyboardInterrupt):
            loop.run(state, 2)
        loop.in_flight.clear()
        again, _ = loop.run(state, 2)
    jax.tree.map(np.testing.assert_array_equal, whole.params, again.params)


def test_reader_stops_when_loop_is_garbage_collected(episodes):
    """A loop without `with` that is built again in a notebook must not keep its thread and blocks."""
    gc.collect()
    loop, before = streamed(episodes), readers()
    loop.block(fresh(), 1, False)
    (reader,) = set(readers()) - set(before)
    del loop
    gc.collect()
    reader.join(5)
    assert not reader.is_alive()


def test_invalid_arguments_raise(classes, episodes):
    with pytest.raises(InnerloopError, match="7 ways need as many classes, got 6"):
        StreamedEpisodes(classes, 7, 1, 1)
    with pytest.raises(InnerloopError, match="of every class, got 5 of 'c'"):
        StreamedEpisodes(classes, 3, 4, 4)
    with pytest.raises(InnerloopError, match="`prefetch` must be 1 or more"), streamed(episodes, prefetch=0):
        pass
    with pytest.raises(InnerloopError, match="`steps` must be 1 or more"), streamed(episodes) as loop:
        loop.run(fresh(), 0)
    with (
        pytest.raises(InnerloopError, match="^StreamedOuterLoop: .* multiple of"),
        streamed(episodes, chunk=3),
    ):
        pass


def test_read_falls_back_to_device_without_cpu_backend(episodes, monkeypatch):
    real = jax.local_devices

    def without_cpu(*args, backend=None, **keywords):
        if backend == "cpu":
            raise RuntimeError("no such backend")
        return real(*args, **keywords)

    want = episodes.read(jax.random.key(0), 0, 1, 4)
    monkeypatch.setattr(jax, "local_devices", without_cpu)
    got = episodes.read(jax.random.key(0), 0, 1, 4)
    jax.tree.map(np.testing.assert_array_equal, want, got)
