"""Seeded mutations of valid inputs: an input is a function of the reader and a number, so each can be had again."""

import json
import os
import random
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EDGES = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
WORDS = (
    b"../",
    b"/etc/passwd",
    b"\x00",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"\xff\xfe",
    b"\\",
    b'"',
    b"\r\n",
)
Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def place(draw: random.Random, content: bytes) -> int:
    """An offset, often near the beginning, where headers are."""
    top = len(content) if draw.random() < 0.6 else min(len(content), 64)
    return draw.randrange(top + 1)


def flip(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if not content:
        return b"\x00"
    at = min(place(draw, content), len(content) - 1)
    return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]


def overwrite(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A number of one to eight bytes, as lengths and dimensions are written."""
    code = draw.choice("BHIQ")
    number = draw.choice(EDGES) % 2 ** (8 * struct.calcsize(code))
    written = struct.pack(draw.choice("<>") + code, number)
    at = place(draw, content)
    return content[:at] + written + content[at + len(written) :]


def cut(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    return content[: place(draw, content)]


def remove(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    at = place(draw, content)
    return content[:at] + content[at + draw.choice((1, 2, 4, 16, 512)) :]


def repeat(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    at, size = place(draw, content), draw.choice((1, 4, 16, 256))
    return content[:at] + content[at : at + size] * draw.choice((2, 3, 50)) + content[at + size :]


def insert(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    at = place(draw, content)
    return (
        content[:at] + draw.choice((draw.choice(WORDS), draw.randbytes(draw.randint(1, 16)))) + content[at:]
    )


def splice(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    return content[: place(draw, content)] + other[place(draw, other) :]


def number(draw: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """A number written in digits becomes another one."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:65536]))
    if not found:
        return flip(draw, content, others)
    match = draw.choice(found)
    new = draw.choice((str(draw.choice(EDGES)).encode(), b"-1", b"1e309", b"0.5", b"9" * 5000, b"null"))
    return content[: match.start()] + new + content[match.end() :]


BYTES: tuple[Mutation, ...] = (flip, flip, overwrite, cut, remove, repeat, insert, splice, number)


def mutated(draw: random.Random, seeds: Sequence[bytes], mutations: Sequence[Mutation] = BYTES) -> bytes:
    """One of the seeds after one to four mutations."""
    content = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 2, 4))):
        content = draw.choice(mutations)(draw, content, seeds)
    return content


STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    10**9, 10**18, [30_000] * 2, [10**18], [1] * 2000,
    "../..", "\x00", "\ud800", "é" * 100, [], {}, [[]], [None], {"": None}, ["x"] * 1000,
)  # fmt: skip


def strange(draw: random.Random) -> Any:
    """A value that nobody asked for, now and then nested deeply."""
    if draw.random() < 0.05:
        value: Any = None
        for _ in range(draw.choice((10, 200, 900))):
            value = [value] if draw.random() < 0.5 else {"a": value}
        return value
    return draw.choice(STRANGE)


def changed(draw: random.Random, value: Any) -> Any:
    """A JSON value with one part replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        if draw.random() < 0.15:
            return {k: v for k, v in value.items() if k != name}
        if draw.random() < 0.1:
            return {**value, str(strange(draw))[:50]: strange(draw)}
        return {**value, name: changed(draw, value[name])}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        if draw.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return value[:at] + [changed(draw, value[at])] + value[at + 1 :]
    return strange(draw)


ODD = ("/dev/zero", "/dev/full", "/dev/tty", "/etc/passwd", "/", "/nowhere", "FIFO", "sparse")
"""What may stand where a file should: links to these, a pipe without a writer, thirty gigabytes that take no room."""


def odd_file(draw: random.Random, path: Path) -> None:
    """Put something else in the place of a file, or of nothing."""
    remove_file(path)
    kind = draw.choice(ODD)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(30 << 30)
    else:
        path.symlink_to(kind)


def write(draw: random.Random, path: Path, content: bytes) -> None:
    """The content as a regular file, and now and then something else in its place."""
    remove_file(path)
    path.write_bytes(content)
    if draw.random() < 0.03:
        odd_file(draw, path)


def remove_file(path: Path) -> None:
    """Whatever it is."""
    if os.path.lexists(path):
        path.unlink()


def json_of(draw: random.Random, text: bytes) -> bytes:
    """The JSON text with one to three parts changed; now and then text too deep for any parser."""
    if draw.random() < 0.01:
        return b"[" * draw.choice((1000, 100_000)) + text
    value = json.loads(text)
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = changed(draw, value)
    return json.dumps(value).encode("utf-8", "surrogatepass")
