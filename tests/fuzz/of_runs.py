"""Hostile runs: configs, the files of a run's folder, weights, adapted learners, checkpoints, command lines."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tests.fuzz.mutate import json_of, mutated

from innerloop import checkpoint, outer, weights
from innerloop.algorithms import maml
from innerloop.config import Config
from innerloop.config_json import from_json, to_json
from innerloop.inner import InnerLoop
from innerloop.learner import Learner
from innerloop.losses import cross_entropy
from innerloop.models import MLP
from innerloop.run_folder import RunFolder

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
        (root / "config.json").write_bytes(text_of(draw, text))
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
        (root / "clock.json").write_bytes(text_of(draw, b'{"seconds": 1.5}\n'))
        broken = text_of(draw, b'{"step": 4, "outer_loss": 0.1}') + b"\n"
        (root / "metrics.jsonl").write_bytes(
            lines + broken if draw.random() < 0.5 else mutated(draw, [lines])
        )
        (root / "environment.json").write_bytes(
            text_of(draw, b'{"python": "3.11", "packages": {"jax": "1"}}')
        )
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


def weights_files(root: Path) -> Attempt:
    """Weights of a run, and the config and facts inside them."""
    path, like = root / "w.safetensors", model()
    weights.save(path, like, Config(), {"meta_steps": 3})
    content = path.read_bytes()

    def attempt(draw: random.Random) -> None:
        path.write_bytes(resealed(draw, content) if draw.random() < 0.5 else mutated(draw, [content]))
        arrays, config, facts = weights.load(path)
        assert isinstance(config, Config)
        assert isinstance(facts, dict)
        for leaf in jax.tree.leaves(weights.into(like, arrays, "x")):
            assert leaf.dtype == np.float32

    return attempt


def adapted_files(root: Path) -> Attempt:
    """The tasks that a learner saves."""
    learner = Learner(model(), maml(cross_entropy(), InnerLoop(optax.sgd(0.1), 1)), shape=(1,))
    learner.fit(np.array([[0.0], [1.0]], np.float32), ["a", "b"])
    path = root / "a.safetensors"
    learner.save_adapted(path)
    content = path.read_bytes()

    def attempt(draw: random.Random) -> None:
        path.write_bytes(resealed(draw, content) if draw.random() < 0.5 else mutated(draw, [content]))
        learner.load_adapted(path)
        assert learner.predict(np.zeros((2, 1), np.float32)).shape == (2,)

    return attempt


def checkpoints(root: Path) -> Attempt:
    """Every file of a checkpoint; what is read is what was written, to the bit, or it is refused."""
    params: Any = model()
    state = outer.MetaState(
        params, optax.adam(0.1).init(params), jax.random.key(1), jnp.asarray(7, jnp.int32)
    )
    manager = checkpoint.manager(root / "checkpoints")
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
        try:
            found = checkpoint.read(manager, 7, state)
            assert np.array_equal(checkpoint.digest(checkpoint.as_arrays(found)), wanted)
        finally:
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
    ("evaluate", "x", "--tasks", "3", "--normalization", "all", "--part", "test", "--json"),
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
)


def command_lines(root: Path) -> Attempt:
    """Words left out, repeated, exchanged and put in; nothing is trained, what would be is noted alone."""
    import contextlib
    import io

    from innerloop import cli
    from innerloop.cli import quickstart, train

    os.environ["INNERLOOP_CACHE"] = str(root / "cache")
    train.train_into = lambda folder, config: 0
    train.start_jax = lambda devices: None
    quickstart.run = lambda argv: 0

    def attempt(draw: random.Random) -> None:
        words: list[Any] = list(draw.choice(LINES))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(words) + 1)
            new = draw.choice(TOKENS) if draw.random() < 0.7 else draw.choice(draw.choice(LINES))
            how = draw.random()
            words[at : at + (how < 0.6)] = [] if how < 0.2 else [new]
        silent = io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            code = cli.main([word for word in words if isinstance(word, str)])
        assert code in (0, 2), f"exit code {code} of {words}"

    return attempt
