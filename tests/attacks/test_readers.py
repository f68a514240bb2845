"""Files that somebody else has made, to be read: each is read right, or refused in one sentence, at once."""

import gzip
import http.server
import io
import json
import os
import re
import resource
import shutil
import socket
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import tensorstore
from PIL import Image
from safetensors.numpy import save_file

from innerloop import cli
from innerloop.cli.user_examples import read_points
from innerloop.config.presets.registry import preset
from innerloop.config.schema import Config
from innerloop.config.serialization import to_json
from innerloop.engine import meta_state
from innerloop.errors import InnerloopError
from innerloop.io.untrusted import open_regular, parse_json, read_bytes
from innerloop.learner.pretrained import load_initialisation
from innerloop.tasks.datasets import image_folder, memmap, mini_imagenet
from innerloop.tasks.io import download
from innerloop.tasks.io.archives import Limits, read_tar, read_zip
from innerloop.tasks.io.download import Source, locate
from innerloop.tasks.io.images import open_image, peek, to_array
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.train import train
from innerloop.training.trained import load_trained

ANY = re.compile(r".*", re.DOTALL)
SPARSE = 30 << 30


def small(**model: Any) -> Config:
    config = preset("sinusoid-maml")
    return replace(config, model=replace(config.model, **{"hidden": (3,), **model}))


@pytest.fixture
def traced() -> Iterator[None]:
    """What Python and NumPy hold at once is less than 40 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


@pytest.fixture
def bounded() -> Iterator[None]:
    """What the test does takes less than 300 MB and 20 seconds of processor time."""
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before, begun = peak(), time.process_time()
    yield
    assert peak() - before < 300 << 10
    assert time.process_time() - begun < 20


def make(path: Path, kind: str) -> Path:
    """A file that is none."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(SPARSE)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path.symlink_to({"device": "/dev/zero", "folder": "/", "nowhere": "/nowhere/at/all"}[kind])
    return path


KINDS = ("FIFO", "device", "folder", "nowhere", "sparse")


@pytest.mark.parametrize("kind", [*KINDS, "socket"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with pytest.raises(InnerloopError, match="must be a regular file|larger than the bound|No such file"):
        open_regular(make(Path("x"), kind), 1 << 20)


def test_links_are_followed_where_they_may_be(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    assert read_bytes(tmp_path / "link", 3) == b"abc"
    with pytest.raises(InnerloopError, match="got a symbolic link"):
        read_bytes(tmp_path / "link", 3, follow=False)
    with pytest.raises(InnerloopError, match="larger than the bound of 2 bytes"):
        read_bytes(tmp_path / "x", 2)
    with pytest.raises(InnerloopError, match="is not a valid file name"):
        read_bytes(tmp_path / "x\0", 2)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "1" + "0" * 400, '{"a": [1e400]}'])
def test_numbers_of_json_are_finite(text: str):
    with pytest.raises(InnerloopError, match="not finite"):
        parse_json(text, "x")


@pytest.mark.parametrize("kind", [*KINDS, "inside"])
@pytest.mark.parametrize("name", ["clock.json", "environment.json", "metrics.jsonl"])
def test_files_of_a_run(tmp_path: Path, name: str, kind: str):
    run = RunFolder(tmp_path)
    if kind == "inside":
        (tmp_path / "other").write_text('{"step": 1, "seconds": 1}\n')
        (tmp_path / name).symlink_to("other")
    else:
        make(tmp_path / name, kind)
    read = {"clock.json": run.seconds, "environment.json": run.known, "metrics.jsonl": run.metrics}[name]
    with pytest.raises(InnerloopError, match="regular file|larger than the bound"):
        read()


def test_metrics_that_no_float_can_be(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.log({"step": 1, "validation_loss": float("nan")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "validation_loss": None}
    assert np.isnan(run.metrics()[0]["validation_loss"])
    run.rewind(1)
    assert np.isnan(run.metrics()[0]["validation_loss"])
    for line in ('{"step": 1, "x": 1%s}', '{"step": 1%s}', '{"step": -1}', '{"step": 1, "x": "%s"}'):
        (tmp_path / "metrics.jsonl").write_text((line % ("0" * 400) if "%" in line else line) + "\n")
        with pytest.raises(InnerloopError, match="must hold only numbers|must be an object with a step"):
            run.metrics()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hH4xH", 0, 0, 9, 9, 96, 0) + b"\1\0\x09\0" + bytes(60)


@pytest.mark.parametrize("content", [EPS, WMF, b"%PDF-1.4", b"SIMPLE  =                    T"])
def test_formats_that_start_programs(tmp_path: Path, content: bytes, monkeypatch):
    started: list[Any] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: started.append(args))
    (tmp_path / "q1.png").write_bytes(content)
    for read in (peek, lambda path: open_image(path, "x"), lambda path: open_image(path.read_bytes(), "x")):
        with pytest.raises(InnerloopError, match="is not a readable image"):
            read(tmp_path / "q1.png")
    assert started == []


def packed(image: Image.Image, kind: str = "TIFF") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_pictures_whose_colours_are_not_told(mode: str):
    """As grey or colour they came out black, white, or as a traceback."""
    with pytest.raises(InnerloopError, match=f"unsupported colour format, got mode {mode}"):
        open_image(packed(Image.frombytes(mode, (2, 2), bytes(12 if mode == "LAB" else 16))), "x")


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_grey_of_sixteen_bits(order: str):
    image = open_image(packed(Image.fromarray(np.array([[0, 0x80FF], [0x1234, 0xFFFF]], order))), "x")
    assert to_array(image, None, 1)[..., 0].tolist() == [[0, 0x80], [0x12, 0xFF]]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_are_no_files(tmp_path: Path, kind: str):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(packed(Image.new("L", (16, 16)), "PNG"))
    make(tmp_path / "a" / "2.png", kind)
    with pytest.raises(InnerloopError, match="regular file|larger than the bound|No such file"):
        image_folder.load(tmp_path)


def test_the_size_of_pictures_is_bounded(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(packed(Image.new("L", (16, 16)), "PNG"))
    with pytest.raises(InnerloopError, match="size: must be between 1 and"):
        image_folder.read_classes(tmp_path, size=10**9)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    sides = {"body/0/weight": (1, 3), "body/0/bias": (3,), "head/weight": (3, 1), "head/bias": (1,)}
    return {name: np.ones(shape, np.float32) for name, shape in sides.items()}


def stored(
    path: Path, arrays: dict[str, np.ndarray], config: Config, facts: str = '{"meta_steps": 3}'
) -> Path:
    save_file(arrays, path, metadata={"config": to_json(config), "facts": facts})
    return path


def readdressed(path: Path, change: Callable[[dict[str, Any]], Any], size: int | None = None) -> Path:
    """The file with another header; `size` bytes of tensors, which are not written."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    if size is not None:
        os.truncate(path, 8 + len(text) + size)
    return path


def one(dtype: str, shape: list[Any], size: Any) -> Callable[[dict[str, Any]], Any]:
    about = {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    return lambda header: [header.pop(name) for name in list(header) if "/" in name] + [header.update(about)]


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (one("F8_E4M3", [40], 40), 40),
        (one("F32", [25 << 30], 100 << 30), 100 << 30),  # a hundred gigabytes that take no room
        (one("F32", [25 << 30], 100 << 30), None),
        (one("F32", [10**30, 0], 0), 0),
        (one("F32", [2.0], 8), 8),
        (one("F32", [True, 2], 8), 8),
        (one("F32", [1] * 100, 4), 4),
        (one("F32", [1], 8), 8),
        (lambda header: header.update({f"x{n}": None for n in range(20_000)}), None),
        (lambda header: header["head/bias"].update(data_offsets=[0, 4]), None),
    ],
)
def test_weights_whose_header_lies(tmp_path: Path, arrays, bounded, change, size):
    path = readdressed(stored(tmp_path / "w.safetensors", arrays, small()), change, size)
    for read in (weights.load, load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="holds no trained weights"):
            read(path)


@pytest.mark.parametrize("meta_steps", ['"3"', "[3]", "-1", "1.5", "1" + "0" * 30, "true", "NaN", "null"])
def test_facts_of_another_type(tmp_path: Path, arrays, meta_steps: str):
    path = stored(tmp_path / "w.safetensors", arrays, small(), f'{{"meta_steps": {meta_steps}}}')
    with pytest.raises(InnerloopError, match="its facts: is not JSON|fact `meta_steps` is invalid"):
        weights.load(path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite(tmp_path: Path, arrays, number: float, dtype: Any):
    values = {name: x.astype(dtype) for name, x in arrays.items()}
    sound = stored(tmp_path / "w.safetensors", values, small())
    assert {x.dtype for x in jax.tree.leaves(load_trained(sound).params)} == {np.dtype(np.float32)}
    values["head/bias"] = np.array([number], dtype)
    path = stored(tmp_path / "w.safetensors", values, small())
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="`head/bias` holds a number that is not finite"):
            read(path)


def test_weights_that_are_not_finite_in_analyze(tmp_path: Path, arrays, capsys):
    path = stored(tmp_path / "w.safetensors", arrays | {"head/bias": np.array([np.nan], np.float32)}, small())
    assert cli.main(["analyze", str(path), "--tasks", "2"]) == 2
    assert "not finite" in capsys.readouterr().err


HUGE = [
    {"hidden": (30_000, 30_000)},
    {"hidden": (10**9,)},
    {"hidden": (10**18,)},
    {"hidden": (1,) * 20_000},
    {"kind": "conv4", "filters": 10**9},
    {"kind": "conv4", "filters": 10**18},
]


@pytest.mark.parametrize("model", HUGE, ids=range(len(HUGE)))
def test_configs_of_larger_models_than_the_weights(tmp_path: Path, arrays, bounded, model):
    path = stored(tmp_path / "w.safetensors", arrays, small())
    text = to_json(small()).replace(
        '"hidden": [\n      3\n    ]', f'"hidden": {list(model.get("hidden", (3,)))}'
    )
    text = text.replace('"kind": "mlp"', f'"kind": "{model.get("kind", "mlp")}"')
    text = text.replace('"filters": 64', f'"filters": {model.get("filters", 64)}')
    readdressed(path, lambda header: header["__metadata__"].update(config=text))
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError):
            read(path)


def test_layers_that_do_not_fit_together(tmp_path: Path, bounded):
    """Every width is found in the file, the products of widths are not."""
    few = {f"body/{i}/weight": np.ones((1, 5000), np.float32) for i in range(20)}
    config = small(hidden=(5000,) * 10)
    for read in (load_trained, load_initialisation):
        with pytest.raises(InnerloopError, match="describes a larger model than the file holds"):
            read(stored(tmp_path / "w.safetensors", few, config))


def run_with(folder: Path, config: Config) -> RunFolder:
    """A run of a few numbers with its checkpoint, and the config."""
    from innerloop.training.build import build

    run = RunFolder(folder)
    run.create(small())
    experiment = build(small())
    loop = experiment.outer_loop()
    state = loop.start(experiment.init_params(), experiment.keys().tasks)
    with checkpoint_manager.opened(run.checkpoints) as checkpoints:
        checkpoint.save(checkpoints, state._replace(step=jnp.asarray(7, jnp.int32)))
        checkpoint.finish(checkpoints)
    (folder / "config.json").write_text(json.dumps(json.loads(to_json(config))))
    return run


@pytest.mark.parametrize("hidden", [(30_000, 30_000), (1,) * 20_000])
def test_configs_of_larger_models_than_the_checkpoints(tmp_path: Path, bounded, hidden):
    with pytest.raises(InnerloopError, match="larger model than the checkpoints|hidden"):
        train(None, run_with(tmp_path / "run", small(hidden=hidden)).path, resume=True)


@pytest.mark.parametrize("kind", [*KINDS, "inside"])
@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt"])
def test_checkpoints_of_other_files(checkpoint_files: Path, name: str, kind: str, bounded):
    path = checkpoint_files / "7" / name
    whole = path.read_bytes()
    path.unlink()
    if kind == "inside":
        path.symlink_to(checkpoint_files / "7" / "commit_success.txt")
    else:
        make(path, kind)
    try:
        with pytest.raises(InnerloopError, match="regular file|larger than the bound|takes more than"):
            read_state(checkpoint_files)
    finally:
        path.unlink()
        path.write_bytes(whole)
        read_state(checkpoint_files)


def fresh(params: Any, optimizer: optax.GradientTransformation) -> meta_state.MetaState:
    return meta_state.MetaState(params, optimizer.init(params), jax.random.key(1), jnp.asarray(0, jnp.int32))


def read_state(folder: Path) -> None:
    state = fresh({"x": jnp.ones(3)}, optax.adam(0.1))
    with checkpoint_manager.opened(folder) as checkpoints:
        checkpoint.read(checkpoints, 7, state)


def test_a_checkpoint_in_chunks_larger_than_its_arrays(tmp_path: Path, checkpoint_files: Path, bounded):
    """Forty megabytes of zeros in a few bytes; it may as well be terabytes."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoint_files, folder)
    metadata = {"shape": [3], "chunks": [10_000_000], "dtype": "<f4", "compressor": {"id": "zstd"}}
    place = {"driver": "ocdbt", "base": f"file://{folder}/7/default/", "path": "params/x/"}
    spec = {"driver": "zarr", "kvstore": place, "metadata": metadata, "create": True, "delete_existing": True}
    tensorstore.open(spec).result()[...] = np.zeros(3, np.float32)
    with pytest.raises(InnerloopError, match="`params/x` is stored in chunks larger than the array"):
        read_state(folder)


@pytest.fixture(scope="module")
def checkpoint_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    state = fresh({"x": jnp.ones(3)}, optax.adam(0.1))
    with checkpoint_manager.opened(folder) as checkpoints:
        checkpoint.save(checkpoints, state._replace(step=jnp.asarray(7, jnp.int32)))
        checkpoint.finish(checkpoints)
    return folder


def lying_zip(path: Path, method: int, size: int = 64 << 20) -> Path:
    """A member that states ten bytes, in both of its headers, and holds `size`."""
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("x", "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\1\2")
    content[directory + 24 : directory + 28] = content[22:26] = struct.pack("<I", 10)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_states_another_size(tmp_path: Path, method: int, request: pytest.FixtureRequest):
    path = lying_zip(tmp_path / "x.zip", method)
    request.getfixturevalue("traced")
    with pytest.raises(InnerloopError, match=r"is damaged|not compressed by deflate"):
        list(read_zip(path, ANY, Limits()))


def pax_of(records: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    return header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


@pytest.mark.parametrize(
    "content",
    [
        pax_of(b"".join(b"%d %s=1\n" % (len(str(n)) + 6, str(n).encode()) for n in range(500_000))),
        pax_of(b"11 a=12345\n") * 1500 + pax_of(b"18 path=../../x\n\n\n"),
        pax_of(b"23 GNU.sparse.major=1\n\n"),
    ],
    ids=["records", "many", "sparse"],
)
def test_extended_headers_of_a_tar(tmp_path: Path, content: bytes, traced):
    member = tarfile.TarInfo("x")
    (tmp_path / "x.tar.gz").write_bytes(
        gzip.compress(content + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024), 1)
    )
    limits = Limits(total=1 << 28, ratio=1e9)
    with pytest.raises(InnerloopError, match="an extended header"):
        list(read_tar(tmp_path / "x.tar.gz", ANY, limits))


def test_extended_headers_that_only_tell_times(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a/b")
        member.pax_headers, member.size = {"mtime": "1.5"}, 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert list(read_tar(tmp_path / "x.tar.gz", ANY, Limits())) == [("a/b", b"abc")]


@pytest.mark.parametrize("kind", KINDS)
def test_archives_tables_and_stores_that_are_no_files(tmp_path: Path, kind: str):
    path = make(tmp_path / "x.npy", kind)
    for read in (read_zip, read_tar):
        with pytest.raises(InnerloopError, match="regular file|larger than the bound|No such file"):
            list(read(path, ANY, Limits()))
    for read in (read_points, lambda path: mini_imagenet._table(path, tmp_path)):
        with pytest.raises(InnerloopError, match="regular file|larger than the bound|No such file"):
            read(path)
    path.rename(tmp_path / "x.json")
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(InnerloopError, match="regular file|larger than the bound|No such file"):
        memmap.open(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1," + "2" * 200_000 + "\n", "is not a CSV table"),
        ("x" + ",y" * 1_000_000 + "\n", "must begin with the header x,y"),
        ("x,y\n1" + ",2" * 1_000_000 + "\n", "line 2: must hold x,y"),
        ("x,y\n" + "z" * 100_000 + ",1\n", "line 2: is not a number"),
        ("x,y\n" + "1,2\n" * 1001, "lines at most"),
    ],
)
def test_tables_of_points(tmp_path: Path, content: str, message: str, monkeypatch):
    monkeypatch.setattr("innerloop.cli.user_examples.LINES", 1000)
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InnerloopError, match=message) as caught:
        read_points(tmp_path / "x.csv")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content", ["filename,label" + ",x" * 1000 + "\n" + "a\n" * 1000, "x" * 100_000 + "\na\n"]
)
def test_tables_of_many_columns(tmp_path: Path, content: str):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InnerloopError, match="must have") as caught:
        mini_imagenet._table(tmp_path / "x.csv", tmp_path)
    assert len(str(caught.value)) < 1000


class Slow(http.server.BaseHTTPRequestHandler):
    """`/endless` sends for ever, `/slow` a byte now and then, `/large` promises too much."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/large":
            self.send_header("Content-Length", str(10**12))
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" if self.path == "/slow" else bytes(1 << 16))
                time.sleep(0.05 if self.path == "/slow" else 0)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as found:
        found.daemon_threads = True
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.mark.parametrize(
    ("path", "message"),
    [("/endless", "sends more than"), ("/large", "sends more than"), ("/slow", "was too slow")],
)
def test_downloads_end(tmp_path: Path, server: str, path: str, message: str, monkeypatch):
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    monkeypatch.setattr(download, "STALL", 0.3)
    with pytest.raises(InnerloopError, match=message):
        locate(Source("x/y.bin", server + path, "0" * 32, 1 << 20))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
