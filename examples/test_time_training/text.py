"""Text that is available everywhere: the sources of Python's standard library."""

import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

import innerloop as il


class Text(NamedTuple):
    """The distribution over pieces of `length` bytes of a text."""

    text: Int[Array, " bytes"]
    length: int

    def sample(self, key: PRNGKeyArray) -> il.Task:
        first = jax.random.randint(key, (), 0, len(self.text) - self.length)
        return il.Task(jax.lax.dynamic_slice_in_dim(self.text, first, self.length), ())

    def pieces(self, count: int) -> Int[Array, "pieces bytes"]:
        """The first `count` consecutive pieces, or as many as there are."""
        count = min(count, len(self.text) // self.length)
        return self.text[: count * self.length].reshape(count, self.length)


def python_sources(length: int) -> tuple[Text, Text]:
    """Training and held-out text: every eighth file is held out."""
    texts = [path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    part = lambda chosen: jnp.asarray(np.frombuffer(b"\n".join(chosen), np.uint8).astype(np.int32))
    train = [text for number, text in enumerate(texts) if number % 8]
    return Text(part(train), length), Text(part(texts[::8]), length)
