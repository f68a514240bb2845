"""Data that vanish while they are in use, downloads that break off, caches that are damaged."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from callback_cases import EachBlock
from PIL import Image

from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.tasks.class_arrays import ClassArrays, starts_of
from innerloop.tasks.datasets import memmap
from innerloop.tasks.io import download
from innerloop.tasks.io.cache import cached
from innerloop.tasks.io.download import Source, locate
from innerloop.tasks.streaming import StreamedEpisodes
from innerloop.training.progress.progress import Progress
from innerloop.training.train import train


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[ClassArrays, Path]:
    """Four classes of 3000 pictures in a memory map of several pages."""
    rng, path = np.random.default_rng(0), tmp_path / "x.npy"
    classes = [rng.integers(0, 255, (3000, 4, 4, 1), np.uint8) for _ in range(4)]
    memmap.save(ClassArrays.from_lists(classes, list("abcd")), path)
    return memmap.open(path), path


def test_memory_map_survives_deleted_file(mapped, survived):
    arrays, path = mapped
    read = StreamedEpisodes(arrays, 2, 1, 1).read
    before = read(jax.random.key(0), 0, 2, 2)
    path.unlink()
    jax.tree.map(np.testing.assert_array_equal, read(jax.random.key(0), 0, 2, 2), before)
    survived("the file under a memory map deleted", 1, "the run continues: the map keeps the file", "nothing")


def test_truncated_memory_map_raises(mapped, survived):
    """Reading beyond the end would kill the process with SIGBUS."""
    arrays, path = mapped
    read = StreamedEpisodes(arrays, 2, 1, 1).read
    read(jax.random.key(0), 0, 2, 2)
    os.truncate(path, 5000)
    with pytest.raises(
        InnerloopError, match=r"x.npy: was truncated while in use, got \d+ bytes less; put the"
    ):
        read(jax.random.key(0), 2, 2, 2)
    survived(
        "the file under a memory map truncated",
        1,
        "reported in one sentence instead of SIGBUS",
        "one checkpoint interval",
    )


def test_truncated_memory_map_view_raises(mapped):
    """They are a view, which has the map's offset but its own size."""
    arrays, path = mapped
    rows = int(arrays.counts[-2:].sum())
    counts = arrays.counts[-2:]
    last = ClassArrays(arrays.examples[-rows:], starts_of(counts), counts, arrays.names[-2:])
    read = StreamedEpisodes(last, 2, 1, 1).read
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InnerloopError, match=r"x.npy: was truncated while in use, got 1 bytes less"):
        read(jax.random.key(0), 0, 2, 2)


def test_run_survives_removal_of_image_folder(short: Config, tmp_path: Path, survived):
    """They lie on the device by then; a resumed run says what is missing, and goes on when they are back."""
    pictures, away, rng = tmp_path / "pictures", tmp_path / "away", np.random.default_rng(0)
    for name in "abcdefghi":
        (pictures / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (4, 4), np.uint8)).save(pictures / name / f"{i}.png")
    data = replace(short.data, dataset="folder", folder=str(pictures), ways=2, shots=1, queries=1)
    config = replace(short, data=data, evaluation=replace(short.evaluation, queries=1))
    config = replace(config, data=replace(data, ways=1))

    def vanish(progress: Progress) -> None:
        if progress.step == 6:
            pictures.rename(away)

    train(config, tmp_path / "run", callbacks=[EachBlock(vanish)])
    with pytest.raises(InnerloopError, match="must name an existing folder, got '.*pictures'"):
        train(None, tmp_path / "run", resume=True)
    away.rename(pictures)
    assert train(None, tmp_path / "run", resume=True).facts["meta_steps"] == 12
    survived(
        "a picture folder removed while training", 1, "the run ends; resuming says what is missing", "nothing"
    )


CONTENT = bytes(range(256)) * 4000


class Breaking(http.server.BaseHTTPRequestHandler):
    """Promises everything and breaks off half-way as often as `breaks` says; slowly where asked."""

    breaks, asked, pause = 0, 0, 0.0

    def do_GET(self) -> None:
        cls = type(self)
        cls.asked += 1
        whole = cls.asked > cls.breaks
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        for at in range(0, len(CONTENT) if whole else len(CONTENT) // 2, 1 << 16):
            self.wfile.write(CONTENT[at : at + (1 << 16)])
            time.sleep(cls.pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    Breaking.asked, Breaking.breaks, Breaking.pause = 0, 0, 0.0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/x.bin"
    yield Source("sub/x.bin", url, hashlib.md5(CONTENT).hexdigest())
    server.shutdown()
    server.server_close()


def test_interrupted_download_is_retried(source: Source, tmp_path: Path, monkeypatch, survived):
    """Begun again from nothing, up to two times more; nothing half-loaded stands where the file should be."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    Breaking.breaks = download.RETRIES
    (path,) = locate(source)
    assert path.read_bytes() == CONTENT
    assert Breaking.asked == download.RETRIES + 1
    path.unlink()
    Breaking.asked, Breaking.breaks = 0, 100
    with pytest.raises(InnerloopError, match="is not in .*, and could not be downloaded"):
        locate(source)
    assert not path.exists()
    survived(
        "a download interrupted",
        2 + download.RETRIES,
        "restarted; after three failures reported, no partial file kept",
        "nothing",
    )


FETCH = """
import sys
from innerloop.tasks.io.download import Source, locate
locate(Source("sub/x.bin", *sys.argv[1:]))
"""


def test_killed_download_leaves_no_partial_file(source: Source, survived):
    Breaking.pause = 0.2
    words = [sys.executable, "-c", FETCH, source.url, source.md5]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not Breaking.asked:
            time.sleep(0.01)
        time.sleep(0.3)
        process.kill()
    target = Path(os.environ["INNERLOOP_CACHE"]) / source.path
    assert not target.exists()
    Breaking.pause = 0.0
    assert locate(source)[0].read_bytes() == CONTENT
    survived("a download killed", 1, "restarted, checksum correct", "nothing")


def test_damaged_cache_is_rebuilt(tmp_path: Path, survived):
    """Flipped, cut short, emptied, replaced by something else: either file."""
    rng, made = np.random.default_rng(0), []
    data = ClassArrays.from_lists([rng.integers(0, 255, (3, 4, 4, 1), np.uint8)] * 2, ["a", "b"])
    build = lambda: made.append(1) or data
    read = lambda: cached("x", "test", build, tmp_path / "cache")
    read()
    damages = [
        lambda c: c[:-1] + bytes([c[-1] ^ 1]),
        lambda c: c[: len(c) // 2],
        lambda c: b"",
        lambda c: b"[]",
    ]
    for name in ("x.npy", "x.json"):
        for damage in damages:
            path = tmp_path / "cache" / name
            path.write_bytes(damage(path.read_bytes()))
            with pytest.warns(UserWarning, match="ignoring and rebuilding the cached arrays"):
                np.testing.assert_array_equal(read().examples, data.examples)
    assert len(made) == 9
    shutil.rmtree(tmp_path / "cache")
    survived("a cache of decoded arrays damaged", 8, "detected by its checksum and rebuilt", "nothing")
