"""Hostile runs: configs, the files of a run's folder, weights, adapted learners, checkpoints, command lines."""

import json
import os
import random
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tests.fuzz.mutate import json_of, mutated, odd_file, remove_file, write

from innerloop.algorithms import maml
from innerloop.config.bounds import bounds_of
from innerloop.config.presets.registry import preset
from innerloop.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    InnerConfig,
    ModelConfig,
    OuterConfig,
    RLConfig,
)
from innerloop.config.serialization import from_json, to_json
from innerloop.engine import meta_state
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.pytree import paths
from innerloop.io.safetensors_reader import SHA256
from innerloop.learner.learner import Learner
from innerloop.learner.pretrained import load_initialisation
from innerloop.nn import MLP
from innerloop.nn.losses import cross_entropy
from innerloop.training.storage import checkpoint, checkpoint_manager, weights
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.trained import load_trained

Attempt = Callable[[random.Random], None]


def text_of(draw: random.Random, text: bytes) -> bytes:
    """JSON with other values in it, or other bytes."""
    return json_of(draw, text) if draw.random() < 0.7 else mutated(draw, [text])


def model() -> MLP:
    return MLP(1, 2, hidden=(3,), key=jax.random.key(0))


def configs(root: Path) -> Attempt:
    """What is accepted is a config, and comes back the same."""
    text = to_json(Config()).encode()

    def attempt(draw: random.Random) -> None:
        write(draw, root / "config.json", text_of(draw, text))
        config = RunFolder(root).config()
        again = from_json(to_json(config))
        assert again == config or "NaN" in to_json(config)

    return attempt


def run_files(root: Path) -> Attempt:
    """Metrics, the clock, the environment, and the names of snapshots."""
    run = RunFolder(root)
    (root / "snapshots").mkdir()
    lines = b"".join(json.dumps({"step": n, "outer_loss": 0.5}).encode() + b"\n" for n in (1, 2, 3))

    def attempt(draw: random.Random) -> None:
        write(draw, root / "clock.json", text_of(draw, b'{"seconds": 1.5}\n'))
        broken = text_of(draw, b'{"step": 4, "outer_loss": 0.1}') + b"\n"
        write(draw, root / "metrics.jsonl", lines + broken if draw.random() < 0.5 else mutated(draw, [lines]))
        write(draw, root / "environment.json", text_of(draw, b'{"python": "3.11", "packages": {"jax": "1"}}'))
        for read in draw.sample(
            (run.seconds, run.metrics, lambda: run.rewind(2), run.snapshots, run.known), 3
        ):
            read()

    return attempt


def resealed(draw: random.Random, content: bytes) -> bytes:
    """A safetensors file with another header, its length told truly."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json_of(draw, content[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def packed(header: dict, data: bytes) -> bytes:
    """A safetensors file."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def unsealed(path: Path) -> tuple[dict, bytes]:
    """Header and data of a safetensors file, without its checksum: hostile files have none, or a right one."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"][SHA256]
    return header, content[8 + size :]


def weights_files(root: Path) -> Attempt:
    """Weights of a run, and the config and facts inside them."""
    path, like = root / "w.safetensors", model()
    weights.save(path, like, Config(), {"meta_steps": 3})
    content = packed(*unsealed(path))

    def attempt(draw: random.Random) -> None:
        write(draw, path, resealed(draw, content) if draw.random() < 0.5 else mutated(draw, [content]))
        arrays, config, facts = weights.load(path)
        assert isinstance(config, Config)
        assert isinstance(facts, dict)
        for leaf in jax.tree.leaves(weights.into(like, arrays, "x")):
            assert leaf.dtype == np.float32

    return attempt


def sizes_in_configs(root: Path) -> Attempt:
    """Weights of a small model beside a config of another: networks are built from what is accepted alone."""
    config, path = preset("sinusoid-maml"), root / "w.safetensors"
    config = replace(config, model=replace(config.model, hidden=(3,)))
    arrays = {name: np.asarray(x) for name, x in zip(*named(model()), strict=True)}
    arrays |= {"head/weight": np.ones((3, 1), np.float32), "head/bias": np.ones(1, np.float32)}
    text, sides = to_json(config), (0, 1, 2, 3, 4, 40, 30_000, 10**9, 10**18, -1)

    def attempt(draw: random.Random) -> None:
        told = json.loads(text)
        if draw.random() < 0.9:
            told["model"]["hidden"] = [draw.choice(sides)] * draw.choice((0, 1, 1, 2, 3, 1000, 10_000))
        if draw.random() < 0.3:
            told["model"] |= {"kind": "conv4", "filters": draw.choice(sides)}
        if draw.random() < 0.3:
            told["data"] |= {
                "dataset": draw.choice(("folder", "omniglot", "sinusoid")),
                "size": draw.choice(sides),
            }
            told |= {"algorithm": draw.choice(("maml", "joint", "anil"))}
            told["data"]["ways"] = draw.choice(sides)
        weights.save(path, {k: shaken(draw, x) for k, x in arrays.items()}, config, {"meta_steps": 3})
        header, data = unsealed(path)
        header["__metadata__"]["config"] = json.dumps(told)
        path.write_bytes(packed(header, data))
        load_initialisation(path)
        if told["data"]["dataset"] == "sinusoid":
            load_trained(path)

    return attempt


def named(params: Any) -> tuple[list[str], list[Any]]:
    """Paths and leaves."""
    return paths(params), jax.tree.leaves(params)


def shaken(draw: random.Random, array: np.ndarray) -> np.ndarray:
    """An array, now and then of another shape or another type, or with a number that is none."""
    chance = draw.random()
    if chance < 0.05:
        return array.reshape(draw.choice(((-1,), (1, -1), (-1, 1), (1, 1, 1, -1))))
    if chance < 0.08:
        return array.astype(draw.choice((np.float16, np.float64, np.int32, np.bool_)))
    return array * np.float32("nan") if chance < 0.1 else array


def adapted_files(root: Path) -> Attempt:
    """The tasks that a learner saves."""
    learner = Learner(model(), maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 1)), shape=(1,))
    learner.fit(np.array([[0.0], [1.0]], np.float32), ["a", "b"])
    path = root / "a.safetensors"
    learner.save_adapted(path)
    content = packed(*unsealed(path))

    def attempt(draw: random.Random) -> None:
        write(draw, path, resealed(draw, content) if draw.random() < 0.5 else mutated(draw, [content]))
        learner.load_adapted(path)
        assert learner.predict(np.zeros((2, 1), np.float32)).shape == (2,)

    return attempt


def checkpoints(root: Path) -> Attempt:
    """Every file of a checkpoint; what is read is what was written, to the bit, or it is refused."""
    params: Any = model()
    state = meta_state.MetaState(
        params, optax.adam(0.1).init(params), jax.random.key(1), jnp.asarray(7, jnp.int32)
    )
    manager = checkpoint_manager.manager(root / "checkpoints")
    checkpoint.save(manager, state)
    checkpoint.finish(manager)
    whole = {p: p.read_bytes() for p in (root / "checkpoints" / "7").rglob("*") if p.is_file()}
    wanted = checkpoint.digest(checkpoint.as_arrays(state))

    def attempt(draw: random.Random) -> None:
        path = draw.choice(sorted(whole))
        is_text = path.name in ("_METADATA", "_CHECKPOINT_METADATA")
        new = (
            text_of(draw, whole[path])
            if is_text
            else mutated(draw, list(whole.values())[:1] + [whole[path]] * 3)
        )
        path.write_bytes(new)
        if draw.random() < 0.1:
            odd_file(draw, path)
        try:
            found = checkpoint.read(manager, 7, state)
            assert np.array_equal(checkpoint.digest(checkpoint.as_arrays(found)), wanted)
        finally:
            remove_file(path)
            path.write_bytes(whole[path])

    return attempt


TRAIN = (
    "train",
    "sinusoid-maml",
    "--outer.meta-steps",
    "3",
    "--model.hidden",
    "4",
    "4",
    "--seed",
    "1",
    "--folder",
    "x",
)
LINES = (
    TRAIN,
    ("train", "--resume", "x"),
    ("list", "--json"),
    ("evaluate", "x", "--tasks", "3", "--steps", "1", "--split", "test", "--json"),
    ("adapt", "x", "data", "--query", "a.png", "b.png", "--steps", "2"),
    ("analyze", "x", "--tasks", "2"),
    ("report", "x", "y", "--out", "z.html"),
    ("quickstart", "--help"),
)
TOKENS = (
    *(
        "--help",
        "-h",
        "-V",
        "--",
        "-",
        "",
        "=",
        "--outer.chunk",
        "None",
        "nan",
        "1e999",
        "-1",
        "0",
        "é",
        "\udcff",
    ),
    *("../../x", "a" * 5000, "--a=b", "[", "{}", "--inner.steps=2", "--rl.horizon", "navigation-random"),
    *(
        "[/x]",
        "m/[red]x",
        "x\x1b[31m",
        "--\x1b]0;t\x07",
        "a\r\nb",
        "\u202ex",
        "\x9b2J",
        "$^$",
        ":smile:",
        "~nobody/x",
    ),
)
NUMBERS = (
    "-1",
    "0",
    "1e-400",
    "1e400",
    "nan",
    "-inf",
    str(10**18),
    str(-(2**63) - 1),
    "9" * 5000,
    "1e30",
    "0x10",
    "1_0",
)
NUMERIC = tuple(
    f"--{cls.SECTION}{name}".replace("_", "-")
    for cls in (DataConfig, EvaluationConfig, InnerConfig, ModelConfig, OuterConfig, RLConfig)
    for name in bounds_of(cls)
)
NUMERIC += (
    "--seed",
    "--devices",
    "--tasks",
    "--steps",
    "--shots",
    "--queries",
    "--effort",
    "--distributed.patience",
)
SHOWN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must never reach a terminal."""


def word(draw: random.Random) -> list[str]:
    """Something to put into a command line: a word of a command, a hostile one, or an option with a number."""
    kind = draw.random()
    if kind < 0.3:
        return [draw.choice(draw.choice(LINES))]
    if kind < 0.7:
        return [draw.choice(TOKENS)]
    value = (
        draw.choice(NUMBERS)
        if draw.random() < 0.6
        else str(draw.randint(-(2**70), 2**70) >> draw.randint(0, 69))
    )
    return [f"{draw.choice(NUMERIC)}={value}"]


def command_lines(root: Path) -> Attempt:
    """Words left out, repeated, exchanged and put in; nothing is trained, what would be is noted alone."""
    import contextlib
    import io

    from innerloop import cli
    from innerloop.cli import quickstart, train

    os.environ["INNERLOOP_CACHE"] = str(root / "cache")
    train.train_into = lambda folder, config, *, resume: 0
    train.start_jax = lambda devices, alone=True: None
    quickstart.run = lambda argv: 0

    def attempt(draw: random.Random) -> None:
        words: list[Any] = list(draw.choice(LINES))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(words) + 1)
            how = draw.random()
            words[at : at + (how < 0.6)] = [] if how < 0.2 else word(draw)
        silent = io.TextIOWrapper(told := io.BytesIO(), encoding="utf-8", errors="backslashreplace")
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            code = cli.main([word for word in words if isinstance(word, str)])
        assert code in (0, 2), f"exit code {code} of {words}"
        silent.flush()
        assert not SHOWN.search(told.getvalue().decode("utf-8")), f"control characters for {words}"

    return attempt
