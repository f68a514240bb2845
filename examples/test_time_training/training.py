"""Training one model on the text, and its losses on held-out text."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import numpy as np
import optax
from jaxtyping import Array, PyTree

import innerloop as il

from .algorithm import TestTimeTraining, test_time_training
from .decoder import Sizes, decoder
from .text import Text, python_sources

DYNAMIC_RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Step sizes for dynamic evaluation; the best one on the test text itself is reported, to its advantage."""


@dataclass(frozen=True)
class Setting:
    """What to train: sizes, updates of the outer loop, test pieces, the inner step size and the bytes of an update."""

    sizes: Sizes
    steps: int
    pieces: int
    rate: float
    update_bytes: int = 8192

    @property
    def meta_batch(self) -> int:
        """Texts per update: one if it is longer than `update_bytes`."""
        return max(1, self.update_bytes // self.sizes.context)

    @property
    def digest(self) -> str:
        """A digest of the setting and the text; keep results of a changed program in another folder."""
        texts = [np.asarray(text.text).tobytes() for text in sources(self.sizes.context + 1)]
        said = repr((self, DYNAMIC_RATES)).encode()
        return hashlib.sha256(b"".join([said, *texts])).hexdigest()[:8]


sources = cache(python_sources)


def train(algorithm: TestTimeTraining, a: Setting, seed: int) -> PyTree:
    """Train all parameters with AdamW."""
    s, steps, text = algorithm.sizes, a.steps, sources(algorithm.sizes.context + 1)[0]
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.1))
    loop = il.OuterLoop(algorithm, optimizer, text, meta_batch=a.meta_batch, chunk=1)
    state = loop.init(decoder(jax.random.key(seed), s), jax.random.key(seed + 1))
    block = max(1, steps // 4)
    for done in range(0, steps, block):
        state, info = loop.run(state, min(block, steps - done))
        print(f"    update {int(state.step)}: loss {float(info.outer_loss[-20:].mean()):.3f}", flush=True)
    return state.params


def losses(
    rule: Callable[..., optax.GradientTransformation], a: Setting, params: PyTree, *rate: float
) -> np.ndarray:
    """The loss of every byte of held-out pieces under the rule `rule(*rate)`, in nats, `[pieces, positions]`."""
    held_out: Text = sources(a.sizes.context + 1)[1]
    return np.asarray(_losses(rule, a.sizes, params, held_out.pieces(a.pieces), *rate))


@partial(jax.jit, static_argnums=(0, 1))
def _losses(rule: Callable, s: Sizes, params: PyTree, pieces: Array, *rate: Array) -> Array:
    """Compiled once for all step sizes."""
    algorithm = test_time_training(rule(*rate), s)
    return jax.lax.map(lambda piece: algorithm.trajectory(params, piece).aux.reshape(-1), pieces)
