"""Hostile data: archives, pictures, folders of them, tables, cached arrays."""

import gzip
import io
import random
import re
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image
from tests.fuzz.mutate import json_of, mutated, odd_file, write

from innerloop.cli.user_examples import read_points
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.datasets import cifar, image_folder, mini_imagenet
from innerloop.tasks.io import array_files, table_files
from innerloop.tasks.io.archives import Limits, read_tar, read_zip
from innerloop.tasks.io.images import channels_of, open_image, to_array

Attempt = Callable[[random.Random], None]
ANY = re.compile(r".*", re.DOTALL)
BOUNDS = Limits(member=1 << 16, total=1 << 20, ratio=100.0, members=100)
NAMES = ("../x", "/x", "a\\b", "C:x", "a/../../b", "a\x00b", "é", "a" * 300, "a/b", "a.png", "")


def zips(root: Path) -> Attempt:
    """Bytes of whole archives, and names that leave the folder, links and bombs written on purpose."""
    seeds = [zip_of(None, ["a/1.png", "a/2.png", "b/3.txt"][: i + 1]) for i in range(3)]

    def attempt(draw: random.Random) -> None:
        content = zip_of(draw, [draw.choice(NAMES) for _ in range(3)]) if draw.random() < 0.2 else None
        content = lying(draw, content) if content and draw.random() < 0.5 else content
        path = root / "x.zip"
        write(draw, path, mutated(draw, seeds) if content is None else content)
        for _ in read_zip(path, ANY, BOUNDS):
            pass

    return attempt


def zip_of(hostile: random.Random | None, names: list[str]) -> bytes:
    draw = hostile or random.Random(0)
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # of names that stand in it twice
        for name in names:
            member = zipfile.ZipInfo(name or "x")
            ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            member.compress_type = draw.choice(
                (*ways, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2) if hostile else ways
            )
            modes = (0, 0o120777 << 16, 0o100644 << 16, 0o060666 << 16) if hostile else (0,)
            member.external_attr = draw.choice(modes)
            archive.writestr(member, draw.choice((b"", b"some text " * 9, bytes(1 << 17 if hostile else 9))))
    return file.getvalue()


def lying(draw: random.Random, content: bytes) -> bytes:
    """An archive of which one member states another size, in its own header and in the directory, or in one of them."""
    found, size = bytearray(content), struct.pack("<I", draw.choice((0, 1, 10, 1 << 16, 1 << 31)))
    for mark, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        if (place := found.find(mark)) >= 0 and draw.random() < 0.8:
            found[place + at : place + at + 4] = size
    return bytes(found)


def extended(draw: random.Random) -> bytes:
    """Extended headers: many, large, of names and sizes, or of many small records."""
    record = draw.choice(
        (b"18 path=../../x\n\n\n", b"11 a=12345\n", b"22 GNU.sparse.major=1\n", b"8 size=9\n")
    )
    records = record * draw.choice((1, 1, 1000, 20_000))
    header = tarfile.TarInfo("pax")
    header.type = draw.choice(
        (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE)
    )
    header.size = len(records)
    return (header.tobuf() + records + bytes(-len(records) % 512)) * draw.choice(
        (1, 1, 1200 if len(records) < 512 else 1)
    )


def tars(root: Path) -> Attempt:
    """Bytes of the archive before compression, so that most of them reach the tar reader, and after it."""
    seeds = [tar_of(random.Random(i), ["a/1.bin", "a/2.bin", "b.txt"][: i + 1]) for i in range(3)]

    def attempt(draw: random.Random) -> None:
        plain = (
            tar_of(draw, [draw.choice(NAMES) for _ in range(3)])
            if draw.random() < 0.2
            else mutated(draw, seeds)
        )
        plain = extended(draw) + plain if draw.random() < 0.1 else plain
        packed = gzip.compress(resealed(plain) if draw.random() < 0.5 else plain, 1)
        path = root / "x.tar.gz"
        write(draw, path, mutated(draw, [packed]) if draw.random() < 0.2 else packed)
        for _ in read_tar(path, ANY, BOUNDS):
            pass

    return attempt


def tar_of(draw: random.Random, names: list[str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name or "x")
            member.type = draw.choice(
                (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
            )
            member.linkname = draw.choice(("", "/etc/passwd", "../../x"))
            content = draw.choice((b"", b"some text " * 9, bytes(2000)))
            member.size = len(content) if member.type == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def resealed(content: bytes) -> bytes:
    """The first header's checksum put right again."""
    header = bytearray(content[:512].ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


def cifar_binary(root: Path) -> Attempt:
    """The archive of CIFAR-100 made small: 4 classes of 3 pictures, each record and name mutated."""
    cifar.CLASSES, cifar.PER_CLASS = 4, 3
    rng = np.random.default_rng(0)
    records = rng.integers(0, 255, (12, cifar.RECORD), np.uint8)
    records[:, 1] = np.repeat(np.arange(4), 3)
    names = b"apple\nbear\ncan\ndog\n"
    content = records.tobytes()
    cifar.PIXELS = cifar._in_order(records[:, 1], records[:, 2:])[1]
    half = 6 * cifar.RECORD

    def attempt(draw: random.Random) -> None:
        train, test = content[:half], content[half:]
        if draw.random() < 0.5:
            train = mutated(draw, [train, test])
        if draw.random() < 0.3:
            at = draw.randrange(12) * cifar.RECORD + 1  # a label, the length kept
            whole = bytearray(train + test)
            whole[min(at, len(whole) - 1)] = draw.randrange(256)
            train, test = bytes(whole[:half]), bytes(whole[half:])
        told = names if draw.random() < 0.5 else mutated(draw, [names])
        parts = {"train.bin": train, "test.bin": test, cifar.FINE_NAMES: told}
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, part in parts.items():
                member = tarfile.TarInfo(f"cifar-100-binary/{name}")
                member.size = len(part)
                archive.addfile(member, io.BytesIO(part))
        (root / cifar.ARCHIVE.path).write_bytes(gzip.compress(file.getvalue(), 1))
        cifar._build(root)

    return attempt


STARTING = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x09\0\x09\0\x60\0\0\0\0\0\0\0\1\0\x09\0" + bytes(60),
    b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    b"GRIB" + bytes(60),
    b"\x89HDF\r\n\x1a\n" + bytes(60),
    b"%PDF-1.4\n",
)
"""Formats for which Pillow starts a program, or hands the file to another library."""


def picture_seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8))
    found = []
    for kind, mode in (
        ("PNG", "RGB"), ("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("JPEG", "RGB"),
        ("JPEG", "L"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "L"), ("PPM", "RGB"),
        ("TIFF", "F"), ("TIFF", "I"), ("TIFF", "CMYK"), ("TIFF", "I;16"), ("JPEG", "CMYK"), ("PPM", "I"),
    ):  # fmt: skip
        file = io.BytesIO()
        image = colour.convert("L").convert(mode) if mode[0] in "IF" else colour.convert(mode)
        image.save(file, kind)
        found.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    grey, palette = colour.convert("L"), colour.convert("P")
    for kind, image, about in (
        ("JPEG", colour, {"exif": exif}), ("PNG", colour, {"exif": exif}), ("WEBP", colour, {"exif": exif}),
        ("TIFF", grey, {"exif": exif}), ("PNG", grey, {"transparency": 9}), ("PNG", colour.convert("LA"), {}),
        ("PNG", colour, {"transparency": (1, 2, 3)}), ("PNG", grey.convert("I;16"), {"transparency": 9}),
        ("PNG", palette, {"transparency": bytes(range(200))}), ("GIF", palette, {"transparency": 9}),
        ("MPO", colour, {"exif": exif, "save_all": True, "append_images": [colour]}),
    ):  # fmt: skip
        file = io.BytesIO()
        image.save(file, kind, **about)
        found.append(file.getvalue())
    return found


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the right checksums again, so that the decoder goes on to read them."""
    at, out = 8, bytearray(png[:8])
    while at + 12 <= len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 4 : at + 8 + min(size, len(png))]
        out += png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(out)


def hostile_picture(draw: random.Random, seeds: list[bytes]) -> bytes:
    if draw.random() < 0.03:
        return mutated(draw, STARTING) if draw.random() < 0.5 else draw.choice(STARTING)
    content = mutated(draw, seeds)
    return with_checksums(content) if content[:4] == b"\x89PNG" and draw.random() < 0.7 else content


def pictures(root: Path) -> Attempt:
    """Every format that is read, header and body."""
    seeds = picture_seeds()

    def attempt(draw: random.Random) -> None:
        content, source = hostile_picture(draw, seeds), root / "x.png"
        write(draw, source, content)
        image = open_image(content if draw.random() < 0.7 else source, "x")
        channels = draw.choice((1, 3, channels_of(image)))
        found = to_array(
            image, draw.choice((None, 5)) if image.width * image.height < 1 << 20 else 5, channels
        )
        assert found.dtype == np.uint8
        assert found.ndim == 3

    return attempt


def picture_folders(root: Path) -> Attempt:
    """Folders of classes: odd names, links, empty folders, folders in place of files, broken pictures."""
    seeds = picture_seeds()[:8]

    def attempt(draw: random.Random) -> None:
        place, wild = root / "pictures", draw.choice((0.0, 0.05, 0.5))
        shutil.rmtree(place, ignore_errors=True)
        for part in draw.choice(([""], [""], ["train", "val", "test"], ["train", "test"])):
            few = draw.randint(1, 5) if draw.random() < wild else 4
            for name in draw.sample(("a", "b", "c", ".d", "é", "e" * 200, "f.png"), few):
                make_class(draw, place / part / f"{part}{name}", seeds, wild)
        image_folder.load(place, size=draw.choice((None, 4, 4)), channels=draw.choice((None, 1, 3)))

    return attempt


def make_class(draw: random.Random, place: Path, seeds: list[bytes], wild: float) -> None:
    place.mkdir(parents=True)
    for number in range(draw.randint(0, 2) if draw.random() < wild else 2):
        path = place / f"{number}{draw.choice(('.png', '.JPG'))}"
        if draw.random() >= wild:
            path.write_bytes(seeds[draw.randrange(2)])
            continue
        path = place / draw.choice((path.name, f"{number}.txt", f".{number}.png", f"\udcff{number}.png"))
        chance = draw.random()
        if path.is_symlink() or path.exists():
            continue
        if chance < 0.2:
            path.symlink_to(draw.choice(("/etc/passwd", path.name, "nowhere.png", "/dev/null")))
        elif chance < 0.25:
            odd_file(draw, path)
        elif chance < 0.3:
            path.mkdir()
        else:
            path.write_bytes(hostile_picture(draw, seeds))


def wide(draw: random.Random, content: bytes) -> bytes:
    """Now and then with a cell or a row that is far too long."""
    long = draw.choice((b",x" * 100_000, b"1" * 200_000, b'"' + b"1" * 200_000))
    return content + long if draw.random() < 0.02 else content


def own_tables(root: Path) -> Attempt:
    """CSV and Parquet tables of users."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({"g": [1, 1, 2], "x": ["a", None, "b"], "y": [0.5, 1.0, None]}), file
    )
    seeds = {"csv": [b"g,x,y\n1,a,0.5\n1,,1\n2,b,\n", b'a,b\n"1,2",3\n'], "parquet": [file.getvalue()]}

    def attempt(draw: random.Random) -> None:
        kind = draw.choice(sorted(seeds))
        path = root / f"x.{kind}"
        write(draw, path, mutated(draw, seeds[kind]))
        table_files.read(path)

    return attempt


def points(root: Path) -> Attempt:
    """The CSV of `innerloop adapt`."""
    seeds = [
        b"x,y\n1,2\n3,4\n5,\n",
        b"\xef\xbb\xbfx,y\r\n-1.5,2e3\r\n0,0\r\n7\r\n",
        b'X , Y\n"1","2"\n\n3,\n',
    ]

    def attempt(draw: random.Random) -> None:
        write(draw, root / "x.csv", wide(draw, mutated(draw, seeds)))
        found = read_points(root / "x.csv")
        assert np.isfinite(found.known_x).all()
        assert np.isfinite(found.known_y).all()

    return attempt


def tables(root: Path) -> Attempt:
    """The CSV files of mini-ImageNet."""
    images = root / "images"
    images.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (images / name).write_bytes(b"")
    seeds = [
        b"filename,label\na.jpg,n01\nb.jpg,n02\n",
        b"label,filename,more\nn1,a.jpg,1\n",
        b'filename,label\n"a.jpg","n\n1"\n',
    ]

    def attempt(draw: random.Random) -> None:
        write(draw, root / "x.csv", wide(draw, mutated(draw, seeds)))
        for paths in mini_imagenet._table(root / "x.csv", images).values():
            assert all(path.parent == images for path in paths)

    return attempt


def arrays(root: Path) -> Attempt:
    """Class arrays in the cache: the `.npy` file and the JSON beside it."""
    path = root / "x.npy"
    rows = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
    array_files.write(ClassArrays.from_lists([rows, rows], ["a", "b"]), path, "test")
    array, about = path.read_bytes(), array_files.sidecar(path).read_bytes()

    def attempt(draw: random.Random) -> None:
        which = draw.random()
        write(draw, path, mutated(draw, [array]) if which < 0.6 else array)
        told = json_of(draw, about) if which > 0.7 else about
        write(draw, array_files.sidecar(path), mutated(draw, [told]) if 0.5 < which < 0.8 else told)
        array_files.read(path, verify=draw.random() < 0.5, source="test")

    return attempt
