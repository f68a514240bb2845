"""Pictures that somebody else has made: each is read right, or refused in one sentence."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.attacks.hostile_files import KINDS, make

from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import image_folder
from innerloop.tasks.io.images import open_image, peek, to_array

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hH4xH", 0, 0, 9, 9, 96, 0) + b"\1\0\x09\0" + bytes(60)


@pytest.mark.parametrize("content", [EPS, WMF, b"%PDF-1.4", b"SIMPLE  =                    T"])
def test_formats_that_launch_programs_are_rejected(tmp_path: Path, content: bytes, monkeypatch):
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
def test_unsupported_colour_modes_are_rejected(mode: str):
    """As grey or colour they came out black, white, or as a traceback."""
    with pytest.raises(InnerloopError, match=f"unsupported colour format, got mode {mode}"):
        open_image(packed(Image.frombytes(mode, (2, 2), bytes(12 if mode == "LAB" else 16))), "x")


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_greyscale_is_scaled_to_eight_bits(order: str):
    image = open_image(packed(Image.fromarray(np.array([[0, 0x80FF], [0x1234, 0xFFFF]], order))), "x")
    assert to_array(image, None, 1)[..., 0].tolist() == [[0, 0x80], [0x12, 0xFF]]


@pytest.mark.parametrize("kind", KINDS)
def test_non_regular_image_files_are_rejected(tmp_path: Path, kind: str):
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
