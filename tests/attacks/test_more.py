"""Siblings of what was found before, one small test each."""

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from innerloop.analysis import result_cache
from innerloop.cli import streams
from innerloop.config.schema import Config
from innerloop.errors import InnerloopError
from innerloop.io.files import check_output_path
from innerloop.io.folders import OutputFolder
from innerloop.io.untrusted import open_regular
from innerloop.report.figure_files import svg
from innerloop.report.plots.style import STYLE
from innerloop.tasks.datasets import mini_imagenet
from innerloop.tasks.io import class_folders
from innerloop.tasks.io.images import open_image
from innerloop.training.storage.run_directory import RunFolder


def test_foreign_innerloop_json_is_not_overwritten(tmp_path: Path):
    mine = '{"mine": 1}'
    (tmp_path / ".innerloop.json").write_text(mine)
    folder = OutputFolder(tmp_path)
    with pytest.raises(InnerloopError, match="not written by innerloop"), folder.replacing("page.html"):
        pass
    assert os.listdir(tmp_path) == [".innerloop.json"]
    assert (tmp_path / ".innerloop.json").read_text() == mine


def test_output_folder_does_not_overwrite_inputs(tmp_path: Path):
    (tmp_path / "figures").mkdir()
    picture = tmp_path / "figures" / "freeze.png"
    picture.write_bytes(b"mine")
    folder = OutputFolder(tmp_path, overwrite=True, inputs=[tmp_path])
    with pytest.raises(InnerloopError, match="is an input"), folder.replacing("figures/freeze.png"):
        pass
    assert picture.read_bytes() == b"mine"


def test_file_error_names_path_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InnerloopError, match="regular file") as caught:
        open_regular(tmp_path / "pipe", 10)
    assert str(caught.value).count(str(tmp_path)) == 1


def tiff_of_one_tile(side: int) -> bytes:
    """16 x 16 pixels of a tile of `side` x `side`."""
    packed = zlib.compress(bytes(side * side), 1)
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


def test_oversized_tiff_tiles_are_rejected():
    assert open_image(tiff_of_one_tile(64), "small").size == (16, 16)
    with pytest.raises(InnerloopError, match="tiles of more than"):
        open_image(tiff_of_one_tile(8192), "large")


def jpeg_of_scans(number: int) -> bytes:
    """16 x 16 grey pixels in a progressive JPEG whose last scan is repeated."""
    segment = lambda kind, content: struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(0xC4, b"\x00\1" + bytes(15) + b"\x00") + segment(0xC4, b"\x10\1" + bytes(15) + b"\x20")
    frame = segment(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + b"\1\x11\0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + b"\x0f"
    return (
        b"\xff\xd8"
        + tables
        + frame
        + first
        + number * (segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x1f")
        + b"\xff\xd9"
    )


def test_jpeg_with_too_many_scans_is_rejected():
    assert open_image(jpeg_of_scans(9), "few").size == (16, 16)
    with pytest.raises(InnerloopError, match="more than 100 scans"):
        open_image(jpeg_of_scans(1000), "many")


def test_scans_of_multi_picture_jpeg_are_counted(monkeypatch: pytest.MonkeyPatch):
    kept, image = io.BytesIO(), Image.fromarray(np.zeros((8, 8), np.uint8))
    image.save(kept, "MPO", save_all=True, append_images=[image])
    monkeypatch.setattr("innerloop.tasks.io.images.SCANS", 0)
    with pytest.raises(InnerloopError, match="more than 0 scans"):
        open_image(kept.getvalue(), "x")


def test_trailing_bytes_are_not_counted_as_scans():
    kept = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(kept, "JPEG")
    assert open_image(kept.getvalue() + b"\xff\xda" * 1000, "a photo with a film behind it").size == (8, 8)


@pytest.mark.parametrize("size", ["0", "²", "1000000000", "-3", "x", ""])
def test_invalid_terminal_sizes_are_ignored(size: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", "40")
    streams._forget_odd_sizes()
    assert (os.environ.get("COLUMNS"), os.environ["LINES"]) == (None, "40")


def test_figures_ignore_usetex_setting():
    with matplotlib.rc_context({"text.usetex": True}):
        with matplotlib.rc_context(STYLE):
            figure = Figure()
            figure.subplots().set_xlabel("x")
        assert svg(figure, "figure").startswith("<img")


def test_output_path_inside_a_file_is_rejected(tmp_path: Path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InnerloopError, match="not a folder"):
        check_output_path(tmp_path / "notes" / "page.html", overwrite=True)


def test_number_of_metrics_lines_is_bounded(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step":0}\n' * 2_000_000)
    with pytest.raises(InnerloopError, match="at most 300000 lines"):
        RunFolder(tmp_path).metrics()


def test_number_of_table_rows_is_bounded(tmp_path: Path):
    rows = mini_imagenet._rows(["filename,label\n", *["a,b\n"] * 200_001], tmp_path / "train.csv")
    with pytest.raises(InnerloopError, match="at most 200000 rows"):
        for _ in rows:
            pass


def test_images_exceeding_memory_are_rejected():
    files = {"class": [Path("a.png")] * 1_000_000}
    with pytest.raises(InnerloopError, match="bytes of memory"):
        class_folders.read(files, 4096, 3)


def test_class_names_can_be_non_utf8_bytes(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"pictures\xff") / os.fsdecode(b"class\xfe")
    folder.mkdir(parents=True)
    picture = folder / "a.png"
    picture.write_bytes(b"x")
    config = Config()
    config = replace(config, data=replace(config.data, folder=str(folder.parent)))
    assert result_cache.of_images(config) != result_cache.of_images(Config())
    assert mini_imagenet._listing({folder.name: [picture]}) != mini_imagenet._listing({"class": [picture]})
    assert len(mini_imagenet._key(folder.parent)) == 12


@pytest.mark.parametrize("words", [["evaluate"], ["report"], ["analyze", "--only", "freeze"], ["reproduce"]])
def test_weights_of_another_run_are_refused(base: Path, tmp_path: Path, refused: Callable, words: list[str]):
    """The same model, trained from another seed."""
    run = tmp_path / "run"
    shutil.copytree(base, run)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace('"seed": 0', '"seed": 3'))
    command, *options = words
    assert "trained with other settings" in refused(command, run, *options)
