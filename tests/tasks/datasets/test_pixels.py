"""Pictures of every kind give the pixels that they are meant to show, computed here from the numbers in the file."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from innerloop.cli.user_examples import read_pictures
from innerloop.errors import InnerloopError
from innerloop.tasks.datasets import image_folder, memmap
from innerloop.tasks.io.images import channels_of, open_image, peek, to_array

RNG = np.random.default_rng(0)
GREY, COLOUR, ALPHA = (RNG.integers(0, 256, shape).astype(np.uint8) for shape in ((3, 4), (3, 4, 3), (3, 4)))
WHITE, TEAL = (255, 255, 255), (0, 128, 128)


def luma(colour: np.ndarray) -> np.ndarray:
    """Grey of a colour by ITU-R 601-2, which Pillow documents for `L`."""
    return np.rint(colour.astype(float) @ [0.299, 0.587, 0.114])


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Composited: the share `alpha` of the picture, and the rest of the background."""
    share = alpha[..., None] / 255
    return np.rint(share * colour + (1 - share) * np.array(background))


def stacked(*channels: np.ndarray) -> np.ndarray:
    return np.dstack(channels)


def png(content: bytes, depth: int, kind: int, side: tuple[int, int], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG as the standard has it: samples of `depth` bits, colour type `kind`, further chunks before the pixels."""
    rows = np.frombuffer(content, np.uint8).reshape(side[1], -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", *side, depth, kind, 0, 0, 0)
    found = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")):
        found += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return found


def packed(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def shown(content: bytes, channels: int, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    return to_array(open_image(content, "x"), None, channels, background).astype(float)


def check(content: bytes, colour: np.ndarray, background: tuple[int, int, int] = WHITE) -> None:
    """As colour and as grey, with an error of rounding."""
    np.testing.assert_allclose(shown(content, 3, background), colour, atol=1)
    np.testing.assert_allclose(shown(content, 1, background)[..., 0], luma(colour), atol=1.5)


PALETTE = RNG.integers(0, 256, (8, 3)).astype(np.uint8)
CHOSEN = RNG.integers(0, 8, (3, 4)).astype(np.uint8)
PLTE = (b"PLTE", PALETTE.tobytes())


@pytest.mark.parametrize("background", [WHITE, TEAL])
def test_transparency_is_composited_on_background(background):
    check(packed(Image.fromarray(stacked(COLOUR, ALPHA))), over(COLOUR, ALPHA, background), background)
    check(
        packed(Image.fromarray(stacked(GREY, ALPHA), "LA")),
        over(stacked(GREY, GREY, GREY), ALPHA, background),
        background,
    )


def test_black_icon_on_transparent_background_is_visible():
    """Under transparent pixels lies black, too."""
    icon = np.zeros((4, 4, 4), np.uint8)
    icon[1:3, 1:3, 3] = 255
    expected = np.full((4, 4, 1), 255)
    expected[1:3, 1:3] = 0
    assert (shown(packed(Image.fromarray(icon)), 1) == expected).all()


def test_grey_alpha_on_white_stays_one_channel():
    image = open_image(packed(Image.fromarray(stacked(GREY, ALPHA), "LA")), "x")
    assert channels_of(image) == 1
    exact = over(GREY[..., None].astype(float), ALPHA, (255,))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(to_array(image, None, 1), exact)


def test_palette_colours_and_transparency():
    """Plain, with one transparency for each colour, and with one colour that is transparent."""
    colour = PALETTE[CHOSEN]
    plain = png(CHOSEN.tobytes(), 8, 3, (4, 3), PLTE)
    check(plain, colour)
    alphas = RNG.integers(0, 256, 8).astype(np.uint8)
    check(
        png(CHOSEN.tobytes(), 8, 3, (4, 3), PLTE, (b"tRNS", alphas.tobytes())), over(colour, alphas[CHOSEN])
    )
    short = png(CHOSEN.tobytes(), 8, 3, (4, 3), PLTE, (b"tRNS", b"\0\x80"))  # the others are opaque
    check(short, over(colour, np.array([0, 128, *6 * [255]])[CHOSEN]))
    image = Image.fromarray(CHOSEN, "P")
    image.putpalette(PALETTE.tobytes())
    check(packed(image, "GIF", transparency=3), over(colour, np.where(CHOSEN == 3, 0, 255)))
    assert channels_of(open_image(plain, "x")) == 3


def test_palette_with_alpha_channel():
    """Pillow's mode PA, which no file has; a user may have it in memory."""
    image = Image.fromarray(CHOSEN, "P")
    image.putpalette(PALETTE.tobytes())
    image = image.convert("PA")
    image.putalpha(Image.fromarray(ALPHA))
    assert image.mode == "PA"
    np.testing.assert_allclose(to_array(image, None, 3), over(PALETTE[CHOSEN], ALPHA), atol=1)


def test_missing_palette_is_tolerated():
    """As Pillow leaves one of a hostile file: none at all. Such a picture may be of any colour."""
    image = Image.fromarray(CHOSEN, "P")
    image.palette = None
    assert to_array(image, None, 3).shape == (3, 4, 3)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_low_bit_depth_grey_with_transparent_value(depth):
    """The value is told in samples of the file; white is the largest of them."""
    maximum = 2**depth - 1
    samples = np.array([[0, maximum], [maximum // 2, maximum]])
    bits = "".join(f"{value:0{depth}b}".ljust(0) for row in samples for value in row)
    rows = [bits[i : i + 2 * depth].ljust(8 * -(-2 * depth // 8), "0") for i in (0, 2 * depth)]
    content = b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    for key in {0, maximum}:
        file = png(content, depth, 0, (2, 2), (b"tRNS", struct.pack(">H", key)))
        expected = np.where(samples == key, 255, samples * 255 // maximum)
        np.testing.assert_array_equal(shown(file, 1)[..., 0], expected)


def test_sixteen_bit_samples_keep_high_byte():
    """Grey, grey with transparency and colour keep the high byte of each sample, whatever is transparent."""
    deep = RNG.integers(0, 65536, (3, 4)).astype(">u2")
    plain = png(deep.tobytes(), 16, 0, (4, 3))
    np.testing.assert_array_equal(shown(plain, 1)[..., 0], deep >> 8)
    check(plain, stacked(deep, deep, deep) >> 8)
    keyed = png(deep.tobytes(), 16, 0, (4, 3), (b"tRNS", struct.pack(">H", deep[1, 2])))
    np.testing.assert_array_equal(shown(keyed, 1)[..., 0], np.where(deep == deep[1, 2], 255, deep >> 8))
    alpha = RNG.integers(0, 65536, (3, 4)).astype(">u2")
    layered = png(stacked(deep, alpha).astype(">u2").tobytes(), 16, 4, (4, 3))
    check(layered, over(stacked(deep, deep, deep) >> 8, alpha >> 8))
    colour = RNG.integers(0, 65536, (3, 4, 3)).astype(">u2")
    check(png(colour.tobytes(), 16, 2, (4, 3)), colour >> 8)
    key = (b"tRNS", colour[2, 1].astype(">u2").tobytes())
    expected = (colour >> 8).astype(float)
    expected[2, 1] = 255
    check(png(colour.tobytes(), 16, 2, (4, 3), key), expected)
    both = stacked(colour, alpha).astype(">u2")
    check(png(both.tobytes(), 16, 6, (4, 3)), over(colour >> 8, alpha >> 8))


def test_sixteen_bit_grey_alpha_has_one_channel(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(png(struct.pack(">HH", 9, 65535), 16, 4, (1, 1)))
    assert peek(file) == (1, 1, 1)


def test_rgb_with_transparent_colour():
    file = png(COLOUR.tobytes(), 8, 2, (4, 3), (b"tRNS", struct.pack(">HHH", *COLOUR[0, 1])))
    expected = COLOUR.astype(float)
    expected[0, 1] = 255
    check(file, expected)


def test_bilevel_image_becomes_black_and_white():
    values = np.array([[True, False], [False, True]])
    content = packed(Image.fromarray(values))
    np.testing.assert_array_equal(shown(content, 1)[..., 0], 255 * values)
    assert channels_of(open_image(content, "x")) == 1


def test_cmyk_is_converted_to_rgb():
    """Each ink takes its share of a colour, and black that of all; a JPEG has them inverted, as Adobe began it."""
    inks = RNG.integers(0, 256, (3, 4, 4)).astype(np.uint8)
    share = 1 - inks / 255.0
    check(packed(Image.fromarray(inks, "CMYK"), "TIFF"), 255 * share[..., :3] * share[..., 3:])
    one = Image.new("CMYK", (8, 8), (255, 0, 128, 0))
    photo = packed(one, "JPEG", quality=100)
    assert b"Adobe" in photo
    np.testing.assert_allclose(shown(photo, 3)[4, 4], [0, 255, 127], atol=4)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_unsupported_colour_modes_raise(mode):
    image = Image.new(mode, (2, 2))
    with pytest.raises(InnerloopError, match="an unsupported colour format"):
        open_image(packed(image, "TIFF"), "x")


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""By EXIF: where the first row and the first column of what is stored are to be seen."""


def test_orientation_table_matches_exif_specification():
    """EXIF 2.32: the 0th row is top, top, bottom, bottom, left, right, right, left; the 0th column left, right, ..."""
    stored = np.array([[1, 2, 3], [4, 5, 6]])
    sides = {
        "top": lambda a: a[0],
        "bottom": lambda a: a[-1],
        "left": lambda a: a[:, 0],
        "right": lambda a: a[:, -1],
    }
    rows = ("top", "top", "bottom", "bottom", "left", "right", "right", "left")
    columns = ("left", "right", "right", "left", "top", "top", "bottom", "bottom")
    for value, row, column in zip(range(1, 9), rows, columns, strict=True):
        seen = TURNED[value](stored)
        assert sorted(sides[row](seen)) == [1, 2, 3]
        assert sorted(sides[column](seen)) == [1, 4]


def oriented(array: np.ndarray, value: Any, kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return packed(Image.fromarray(array), kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, kind, value):
    """The quarters of a picture have a shade each; the header tells the sides as they are seen."""
    shades = np.kron(np.array([[10, 90], [170, 250]], np.uint8), np.ones((8, 16), np.uint8))
    content = oriented(stacked(shades, shades, shades), value, kind)
    expected = TURNED[value](shades)
    found = shown(content, 1)[..., 0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[2::4, 2::4], expected[2::4, 2::4], atol=12)
    (tmp_path / "x").write_bytes(content)
    assert peek(tmp_path / "x") == (*expected.shape[::-1], 3)


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_of_deep_grey_and_palette_png(value):
    """The orientation behind the pixels of a PNG counts too."""
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, value, 0) + b"\0\0\0\0"
    deep = RNG.integers(0, 65536, (3, 4)).astype(">u2")
    content = png(deep.tobytes(), 16, 0, (4, 3), (b"eXIf", exif))
    np.testing.assert_array_equal(shown(content, 1)[..., 0], TURNED[value](deep >> 8))
    check(png(CHOSEN.tobytes(), 8, 3, (4, 3), PLTE, (b"eXIf", exif)), TURNED[value](PALETTE[CHOSEN]))
    end = content[-12:]
    late = packed(Image.fromarray(GREY))[:-12] + chunk_of(content, b"eXIf") + end
    np.testing.assert_array_equal(shown(late, 1)[..., 0], TURNED[value](GREY))


def chunk_of(content: bytes, name: bytes) -> bytes:
    at = content.index(name) - 4
    return content[at : at + 12 + struct.unpack(">I", content[at : at + 4])[0]]


def test_mpo_photo_uses_first_image_upright():
    """JPEG's extension MPO: the first of them, upright."""
    shades = np.kron(np.array([[10, 90], [170, 250]], np.uint8), np.ones((16, 16), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    first = Image.fromarray(shades)
    content = packed(first, "MPO", save_all=True, append_images=[first.rotate(180)], exif=exif)
    np.testing.assert_allclose(shown(content, 1)[4::8, 4::8, 0], TURNED[6](shades)[4::8, 4::8], atol=12)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_invalid_orientation_is_ignored(value):
    assert shown(oriented(GREY, value, "PNG"), 1)[..., 0].tolist() == GREY.tolist()


def test_damaged_exif_is_ignored(tmp_path):
    photo = oriented(np.full((8, 16, 3), 90, np.uint8), 6, "JPEG")
    damaged = photo.replace(b"Exif\0\0MM", b"Exif\0\0XY").replace(b"Exif\0\0II", b"Exif\0\0XY")
    assert damaged != photo
    (tmp_path / "x.jpg").write_bytes(damaged)
    assert shown(damaged, 3).shape == (8, 16, 3)
    assert peek(tmp_path / "x.jpg") == (16, 8, 3)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes of pictures with transparency, seven of which Pillow warns of."""
    icon = Image.fromarray(stacked(np.zeros((6, 6, 3), np.uint8), np.tri(6, dtype=np.uint8) * 255))
    odd = oriented(np.full((6, 6, 3), 9, np.uint8), 1, "TIFF")
    for name in "abc":
        (tmp_path / name).mkdir()
        icon.save(tmp_path / name / "icon.png")
    for number in range(7):
        (tmp_path / "a" / f"{number}.tif").write_bytes(odd)
    return tmp_path


def warns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Pillow warn of TIFFs, as it does of odd metadata."""
    import PIL.TiffImagePlugin

    own = PIL.TiffImagePlugin.TiffImageFile.load_end

    def load_end(self: Any) -> None:
        warnings.warn("odd metadata", stacklevel=2)
        own(self)

    monkeypatch.setattr(PIL.TiffImagePlugin.TiffImageFile, "load_end", load_end)


def test_pillow_warnings_are_summarised(tree, monkeypatch):
    warns(tree, monkeypatch)
    with pytest.warns(
        UserWarning, match=r"Pillow warned about 7 images.*the first: .*0\.tif: odd metadata"
    ) as met:
        image_folder.load(tree)
    assert len(met) == 1
    with pytest.warns(UserWarning, match="Pillow warned about 2 images") as met:
        read_pictures([tree / "a" / f"{i}.tif" for i in range(2)], (6, 6, 3))
    assert len(met) == 1


def test_every_reader_accepts_background(tree, tmp_path):
    expected = {"white": [255, 255, 255], "#008080": [0, 128, 128]}
    for name, colour in expected.items():
        readers = {
            "load": next(part for part in image_folder.load(tree, background=name) if "b" in part.names),
            "read_classes": image_folder.read_classes(tree, background=name),
            "memmap": memmap.build(tree, tmp_path / f"{name}.npy", background=name),
        }
        for data in readers.values():
            icon = data.rows(data.names.index("b"))[0]
            assert icon[0, 5].tolist() == colour
            assert icon[5, 0].tolist() == [0, 0, 0]
        assert read_pictures([tree / "b/icon.png"], (6, 6, 3), name)[0, 0, 5].tolist() == colour


@pytest.mark.parametrize("name", ["", "whitish", "#12", "#ffffff80", "rgb(999,0,0)", "x" * 300])
def test_invalid_background_colours_raise(tree, name):
    for read in (image_folder.load, image_folder.read_classes):
        with pytest.raises(InnerloopError, match="background: is not a colour, got .*give a name such as"):
            read(tree, background=name)
