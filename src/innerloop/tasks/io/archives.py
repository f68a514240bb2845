"""Reading untrusted archives: members are read into memory by name, and nothing is extracted to disk.

The following are refused, with an `InnerloopError` that names the archive: member names that leave the folder
(absolute, `..`, drive letters, backslashes), links and devices, encrypted or repeated members, members or totals
beyond a bound, contents that expand beyond a ratio (bombs), and files that are truncated or not archives at all.
"""

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from innerloop.errors import InnerloopError
from innerloop.io.untrusted import open_regular

EXTENDED = 1 << 16
"""Largest size of an extended tar header in bytes."""

REFUSED = "download the archive again from its official source"


@dataclass(frozen=True)
class Limits:
    """Bounds on an archive: bytes of a member, bytes of all members, expansion ratio, number of members, and bytes of
    the archive itself.

    For a tar archive, `total` bounds the whole stream, including headers and padding.
    """

    member: int = 1 << 20
    total: int = 1 << 30
    ratio: float = 100.0
    members: int = 100_000
    file: int = 1 << 30


def read_zip(path: Path, wanted: re.Pattern[str], limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Yield `(name, content)` of the members whose whole name matches `wanted`, sorted by name.

    All members are checked before the first is read.

    Raises:
        InnerloopError: if a member is refused or the archive is damaged, as described in the module's docstring.
    """
    with (
        _reporting_damage(path, "zip"),
        open_regular(path, limits.file) as file,
        zipfile.ZipFile(file) as archive,
    ):
        _check_zip(path, archive.infolist(), limits)
        for member in sorted(archive.infolist(), key=lambda m: m.filename):
            if wanted.fullmatch(member.filename):
                with archive.open(member) as stream:
                    # Not `archive.read`, which would unpack everything, however little the header states.
                    yield member.filename, _exactly(stream, member.file_size)


def read_tar(path: Path, wanted: re.Pattern[str], limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Yield `(name, content)` of the files in a `.tar.gz` whose whole name matches `wanted`, in archive order.

    The archive is one compressed stream, so a member is checked when the stream reaches it.

    Raises:
        InnerloopError: if a member is refused or the archive is damaged, as described in the module's docstring.
    """
    seen: set[str] = set()
    with (
        _reporting_damage(path, "tar.gz"),
        open_regular(path, limits.file) as file,
        gzip.GzipFile(fileobj=file) as raw,
    ):
        bounded = _Bounded(raw, path, limits)
        while (member := _header(bounded, path)) is not None:
            _check_tar(path, member, seen, limits)
            content = _exactly(bounded, member.size + -member.size % tarfile.BLOCKSIZE)
            if member.isfile() and wanted.fullmatch(member.name):
                yield member.name, content[: member.size]
        if not bounded.given:
            raise tarfile.ReadError("empty file")
        while bounded.read(1 << 20):  # read to the end, where the compressed stream has its checksum
            pass


def _check_zip(path: Path, members: list[zipfile.ZipInfo], limits: Limits) -> None:
    seen: set[str] = set()
    for member in members:
        _check_name(path, member.filename, seen, limits)
        mode = stat.S_IFMT(member.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(path, f"member {member.filename!r} is a link or a device")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"member {member.filename!r} is not compressed by deflate")
        if member.flag_bits & 1:
            raise _refused(path, f"member {member.filename!r} is encrypted")
        _check_size(path, member.filename, member.file_size, limits.member)
        if member.file_size > limits.ratio * max(member.compress_size, 64):
            raise _refused(path, f"member {member.filename!r} expands more than {limits.ratio:g} times")
    _check_size(path, "all members together", sum(m.file_size for m in members), limits.total)


def _check_tar(path: Path, member: tarfile.TarInfo, seen: set[str], limits: Limits) -> None:
    _check_name(path, member.name, seen, limits)
    if not (member.isfile() or (member.isdir() and not member.size)):
        raise _refused(path, f"member {member.name!r} is a link or a device")
    _check_size(path, member.name, member.size, limits.member)


def _check_name(path: Path, name: str, seen: set[str], limits: Limits) -> None:
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        raise _refused(path, f"member name {name!r} leaves the archive's folder")
    if name in seen:
        raise _refused(path, f"member {name!r} occurs twice")
    seen.add(name)
    if len(seen) > limits.members:
        raise _refused(path, f"it has more than {limits.members} members")


def _check_size(path: Path, name: str, size: int, bound: int) -> None:
    if size > bound:
        raise _refused(path, f"{name!r} is larger than the bound of {bound} bytes", got=f"{size} bytes")


def _exactly(stream: "IO[bytes] | _Bounded", size: int) -> bytes:
    """The next `size` bytes. Raises EOFError if the stream ends early."""
    content = stream.read(size)
    if len(content) != size:
        raise EOFError("a member ends early")
    return content


def _header(stream: "_Bounded", path: Path) -> tarfile.TarInfo | None:
    """The header of the next member; None at the end.

    `tarfile` would keep the contents of all extended headers, however many there are. Here they are skipped if they
    state times and owners, and refused if they change a name or a size.
    """
    while block := stream.read(tarfile.BLOCKSIZE):
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # pyright: ignore[reportAttributeAccessIssue]
            return None
        if not 0 <= member.size < 1 << 62:
            raise _refused(path, f"member {member.name!r} has no size", got=member.size)
        if member.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            return member
        if member.size > EXTENDED:
            raise _refused(path, f"an extended header expands beyond the bound of {EXTENDED} bytes")
        extended = _exactly(stream, member.size + -member.size % tarfile.BLOCKSIZE)
        if re.search(rb" (path|linkpath|size|GNU\.sparse[^=]*)=", extended):
            raise _refused(path, "an extended header changes a name or a size")
    return None


class _Bounded:
    """A decompressed stream that stops bombs: it counts the bytes it returns and raises beyond the bound."""

    def __init__(self, raw: io.BufferedIOBase, path: Path, limits: Limits) -> None:
        self.raw, self.path, self.given = raw, path, 0
        self.left = int(min(limits.total, limits.ratio * max(path.stat().st_size, 1024)))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises InnerloopError beyond the bound."""
        chunk = self.raw.read(size)
        self.given += len(chunk)
        self.left -= len(chunk)
        if self.left < 0:
            raise _refused(self.path, "it expands beyond the bound on its total size")
        return chunk


_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
    UnicodeError,
)


@contextmanager
def _reporting_damage(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as damage:
        raise InnerloopError(
            str(path), f"is damaged or not a {kind} archive", got=damage, hint=REFUSED
        ) from damage
    except OSError as trouble:
        raise InnerloopError(str(path), "cannot be read", got=trouble, hint="check the file") from trouble


def _refused(path: Path, wrong: str, got: object = None) -> InnerloopError:
    return InnerloopError(str(path), wrong, got=got, hint=REFUSED)
