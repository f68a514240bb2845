"""Short texts with labels: descriptions of Debian packages by section, docstrings of Python by module, or a file."""

import ast
import csv
import io
import random
import re
import subprocess
import sysconfig
import zlib
from pathlib import Path

import numpy as np

import innerloop as il

Texts = dict[str, list[str]]
"""The distinct texts of each label."""


def debian() -> Texts:
    """The first line of the description of every package that apt knows, by section."""
    try:
        told = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as trouble:
        hint = "run `apt-get update` first, or give --texts FILE"
        raise il.InnerloopError("apt-cache", "lists no packages", got=str(trouble), hint=hint) from None
    texts: Texts = {}
    for package in told.stdout.decode("utf-8", "replace").split("\n\n"):
        section = re.search(r"^Section: (?:.*/)?(\S+)$", package, re.MULTILINE)
        description = re.search(r"^Description(?:-en)?: (.+)$", package, re.MULTILINE)
        if section and description:
            texts.setdefault(section[1], []).append(description[1])
    return texts


def docstrings(maximum: int = 1000) -> Texts:
    """The first line of every docstring in Python's standard library, by module, from at most `maximum` files."""
    texts: Texts = {}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:maximum]:
        tree = ast.parse(path.read_bytes())
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
        lines = [text.strip().splitlines()[0] for text in found if text and text.strip()]
        texts[path.stem] = lines
    return texts


def from_file(path: Path) -> Texts:
    """The columns `text` and `label` of a CSV file."""
    texts: Texts = {}
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as trouble:
        raise il.InnerloopError(str(path), "cannot be read", got=str(trouble)) from None
    if not {"text", "label"} <= set(rows.fieldnames or ()):
        got = ", ".join(rows.fieldnames or ("an empty file",))
        raise il.InnerloopError(str(path), "needs the columns `text` and `label`", got=got)
    for row in rows:
        texts.setdefault(row["label"] or "", []).append(row["text"] or "")
    return texts


def splits(texts: Texts, minimum: int, maximum: int, seed: int = 0) -> tuple[Texts, Texts, Texts]:
    """Labels for training, validation and test (60, 15 and 25 %), drawn once; `minimum` to `maximum` texts of each."""
    drawn = random.Random(seed)
    owner: dict[str, set[str]] = {}
    for label, lines in texts.items():
        for line in lines:
            owner.setdefault(line, set()).add(label)
    kept: Texts = {}
    for label in sorted(texts):
        own = sorted({line for line in texts[label] if len(owner[line]) == 1})
        if len(own) >= minimum:
            kept[label] = drawn.sample(own, min(maximum, len(own)))
    labels = sorted(kept)
    drawn.shuffle(labels)
    first, second = round(0.6 * len(labels)), round(0.75 * len(labels))
    parts = (labels[:first], labels[first:second], labels[second:])
    if min(map(len, parts)) < 5:
        hint = f"every split needs 5 labels with {minimum} distinct texts or more"
        raise il.InnerloopError("texts", "there are too few labels", got=len(labels), hint=hint)
    return tuple({label: kept[label] for label in sorted(part)} for part in parts)  # pyright: ignore[reportReturnType]


def digest(texts: Texts) -> int:
    """A number that changes with the texts."""
    return zlib.crc32(repr(sorted(texts.items())).encode())


def hashed(lines: list[str], length: int, vocabulary: int) -> np.ndarray:
    """Tokens without a tokenizer: every word is hashed, `[lines, length]`; 0 is padding. For tests."""
    numbers = np.zeros((len(lines), length), np.int32)
    for row, line in enumerate(lines):
        words = [1 + zlib.crc32(w.encode()) % (vocabulary - 1) for w in re.findall(r"\w+", line.lower())]
        numbers[row, : len(words)] = (words or [1])[:length]
    return numbers


def wordpieces(lines: list[str], length: int, folder: Path) -> np.ndarray:
    """MiniLM's own tokens, `[lines, length]`, truncated to `length` with special tokens at both ends; 0 is padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return np.array([found.ids for found in tokenizer.encode_batch(lines)], np.int32)
