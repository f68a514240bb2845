"""Archives, tables and downloads that somebody else has made: each ends, within bounds."""

import gzip
import http.server
import io
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.hostile_files import ANY, KINDS, make

from innerloop.cli.user_examples import read_points
from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import memmap, mini_imagenet
from innerloop.tasks.io import download
from innerloop.tasks.io.archives import Limits, read_tar, read_zip
from innerloop.tasks.io.download import Source, locate


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
def test_zip_with_false_member_size_is_rejected(tmp_path: Path, method: int, request: pytest.FixtureRequest):
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
def test_tar_with_hostile_extended_headers_is_rejected(tmp_path: Path, content: bytes, traced):
    member = tarfile.TarInfo("x")
    (tmp_path / "x.tar.gz").write_bytes(
        gzip.compress(content + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024), 1)
    )
    limits = Limits(total=1 << 28, ratio=1e9)
    with pytest.raises(InnerloopError, match="an extended header"):
        list(read_tar(tmp_path / "x.tar.gz", ANY, limits))


def test_tar_with_mtime_extended_header_is_read(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a/b")
        member.pax_headers, member.size = {"mtime": "1.5"}, 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert list(read_tar(tmp_path / "x.tar.gz", ANY, Limits())) == [("a/b", b"abc")]


@pytest.mark.parametrize("kind", KINDS)
def test_non_regular_archives_and_tables_are_rejected(tmp_path: Path, kind: str):
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
def test_malformed_point_tables_give_short_errors(tmp_path: Path, content: str, message: str, monkeypatch):
    monkeypatch.setattr("innerloop.cli.user_examples.LINES", 1000)
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InnerloopError, match=message) as caught:
        read_points(tmp_path / "x.csv")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content", ["filename,label" + ",x" * 1000 + "\n" + "a\n" * 1000, "x" * 100_000 + "\na\n"]
)
def test_tables_with_huge_headers_give_short_errors(tmp_path: Path, content: str):
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
def test_oversized_and_slow_downloads_fail(tmp_path: Path, server: str, path: str, message: str, monkeypatch):
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    monkeypatch.delenv("INNERLOOP_DATA", raising=False)
    monkeypatch.setattr(download, "STALL", 0.3)
    with pytest.raises(InnerloopError, match=message):
        locate(Source("x/y.bin", server + path, "0" * 32, 1 << 20))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
