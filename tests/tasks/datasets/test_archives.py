import io
import re
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from innerloop.errors import InnerloopError
from innerloop.tasks.io.archives import Limits, read_tar, read_zip

ALL = re.compile(".*")
SMALL = Limits(member=1000, total=3000, ratio=20.0, members=5)
SMALL_TAR = Limits(member=1000, total=12_000, ratio=1000.0, members=5)  # a tar file is padded to 10 240 bytes


def tar_of(path: Path, members: dict[str, bytes], **fields: object) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return path


def refusal(reader, path: Path, limits: Limits | None = None) -> str:
    limits = limits or (SMALL if reader is read_zip else SMALL_TAR)
    with pytest.raises(InnerloopError) as caught:
        list(reader(path, ALL, limits))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_read_zip_filters_and_sorts_members(tmp_path, zip_of):
    path = zip_of(tmp_path / "a.zip", {"b/2.png": b"two", "b/1.png": b"one", "b/readme": b"no"})
    assert list(read_zip(path, re.compile(r"b/\d\.png"), SMALL)) == [("b/1.png", b"one"), ("b/2.png", b"two")]


def test_read_tar_filters_members(tmp_path):
    path = tar_of(tmp_path / "a.tar.gz", {"a/x.bin": b"x" * 700, "a/y.txt": b"y"})
    assert list(read_tar(path, re.compile(r"a/x\.bin"), SMALL_TAR)) == [("a/x.bin", b"x" * 700)]


BAD_NAMES = ["../up", "a/../../up", "/etc/passwd", "C:/windows", "a\\..\\b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_path_traversal_is_rejected(tmp_path, zip_of, name):
    assert "leaves the archive" in refusal(read_zip, zip_of(tmp_path / "a.zip", {"ok": b"1", name: b"1"}))
    assert "leaves the archive" in refusal(read_tar, tar_of(tmp_path / "a.tar.gz", {"ok": b"1", name: b"1"}))


def test_links_are_rejected(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "is a link" in refusal(read_zip, tmp_path / "a.zip")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        path = tar_of(tmp_path / "a.tar.gz", {"link": b""}, type=kind, linkname="/etc/passwd")
        assert "is a link or a device" in refusal(read_tar, path)


def test_members_beyond_limits_are_rejected(tmp_path, zip_of):
    big, many = {"big": b"x" * 1001}, {f"{i}": b"x" * 900 for i in range(4)}
    assert "'big' is larger than the bound of 1000 bytes, got 1001" in refusal(
        read_zip, zip_of(tmp_path / "a.zip", big)
    )
    assert "'big' is larger" in refusal(read_tar, tar_of(tmp_path / "a.tar.gz", big))
    assert "all members together" in refusal(read_zip, zip_of(tmp_path / "a.zip", many))
    path = tar_of(tmp_path / "a.tar.gz", many)
    assert "bound on its total size" in refusal(read_tar, path, Limits(total=5000))
    six = {f"{i}": b"" for i in range(6)}
    assert "more than 5 members" in refusal(read_zip, zip_of(tmp_path / "a.zip", six))


def test_decompression_bombs_are_rejected(tmp_path):
    roomy = Limits(member=1 << 30, total=1 << 30, ratio=20.0, members=5)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 20))
    assert "expands more than 20 times" in refusal(read_zip, tmp_path / "a.zip", roomy)
    path = tar_of(tmp_path / "a.tar.gz", {"bomb": bytes(1 << 20)})
    assert "expands beyond" in refusal(read_tar, path, roomy)


def test_bomb_in_tar_header_is_rejected(tmp_path):
    """A PAX header is read whole before any member is seen."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("ok")
        member.pax_headers = {"comment": "x" * 1_000_000}
        archive.addfile(member)
    assert "expands beyond" in refusal(read_tar, tmp_path / "a.tar.gz", Limits(total=100_000))


def test_duplicate_member_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("same", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("same", b"2")
    assert "'same' occurs twice" in refusal(read_zip, tmp_path / "a.zip")


def test_encrypted_member_is_rejected(tmp_path, zip_of):
    path = zip_of(tmp_path / "a.zip", {"secret": b"1"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's own header, and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "'secret' is encrypted" in refusal(read_zip, path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_truncated_archives_raise(tmp_path, zip_of, keep):
    noise = bytes(range(256)) * 3
    for reader, path in [
        (read_zip, zip_of(tmp_path / "a.zip", {"one": noise, "two": noise})),
        (read_tar, tar_of(tmp_path / "a.tar.gz", {"one": noise, "two": noise})),
    ]:
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        assert "damaged or not" in refusal(reader, path)


def test_corrupted_byte_raises(tmp_path, zip_of):
    path = zip_of(tmp_path / "a.zip", {"one": b"abcdef" * 20})
    path.write_bytes(path.read_bytes().replace(b"abcdef", b"abcdeX", 1))
    assert "damaged" in refusal(read_zip, path)
    path = tar_of(tmp_path / "a.tar.gz", {"one": b"abcdef" * 20})
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum at the end of the stream
    path.write_bytes(content)
    assert "damaged" in refusal(read_tar, path)


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_file_types_and_missing_files_raise(tmp_path, zip_of):
    text = tmp_path / "text"
    text.write_text("not an archive " * 100)
    assert "not a zip archive" in refusal(read_zip, text)
    assert "not a tar.gz archive" in refusal(read_tar, text)
    assert "not a tar.gz archive" in refusal(read_tar, zip_of(tmp_path / "a.zip", {"a": b"1"}))
    assert "cannot be read" in refusal(read_zip, tmp_path / "nowhere")
