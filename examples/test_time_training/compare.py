"""The four models on the same text: the loss of every byte of held-out pieces."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import numpy as np
import optax
from jaxtyping import Float, PyTree

import innerloop as il

from .algorithm import TestTimeTraining, clipped, test_time_training
from .decoder import Sizes, decoder
from .text import Text, python_sources

UPDATE_BYTES = 8192
"""Bytes of text in an update of the outer loop, where a text is not longer."""

DYNAMIC_RATES = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Step sizes of dynamic evaluation, of which the best on the test text itself is reported: it has the advantage."""

Losses = dict[str, Float[np.ndarray, "pieces positions"]]


@dataclass(frozen=True)
class Setting:
    """What is trained: sizes, updates of the outer loop, test pieces and the inner step size."""

    sizes: Sizes
    steps: int
    pieces: int
    rate: float

    @property
    def meta_batch(self) -> int:
        """Texts in an update."""
        return max(1, UPDATE_BYTES // self.sizes.context)

    @property
    def digest(self) -> str:
        """Of all that decides a result, the text included."""
        texts = [np.asarray(text.text).tobytes() for text in sources(self.sizes.context + 1)]
        said = repr((self, UPDATE_BYTES, DYNAMIC_RATES)).encode()
        return hashlib.sha256(b"".join([said, *texts])).hexdigest()[:8]


sources = cache(python_sources)


def train(algorithm: TestTimeTraining, a: Setting, seed: int) -> PyTree:
    """Train all parameters by AdamW."""
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


def losses(algorithm: TestTimeTraining, params: PyTree, count: int) -> np.ndarray:
    """The loss of every byte of held-out pieces, in nats, `[pieces, positions]`."""
    held_out: Text = sources(algorithm.sizes.context + 1)[1]
    one = lambda piece: algorithm.trajectory(params, piece).aux.reshape(-1)
    return np.asarray(jax.jit(lambda pieces: jax.lax.map(one, pieces))(held_out.pieces(count)))


@cache
def window_model(a: Setting, seed: int) -> PyTree:
    """The parameters of the model that is not adapted."""
    return train(test_time_training(optax.set_to_zero(), a.sizes), a, seed)


def window_alone(a: Setting, seed: int) -> Losses:
    """The window alone."""
    still = test_time_training(optax.set_to_zero(), a.sizes)
    return {"window alone": losses(still, window_model(a, seed), a.pieces)}


def dynamic_evaluation(a: Setting, seed: int) -> Losses:
    """The same model, adapted at test all the same."""
    params, found = window_model(a, seed), {}
    for rate in DYNAMIC_RATES:
        found[rate] = losses(test_time_training(clipped(rate), a.sizes), params, a.pieces)
        print(f"    step size {rate:g}: loss {found[rate].mean(dtype=np.float64):.4f}", flush=True)
    return {"dynamic evaluation": min(found.values(), key=np.mean)}


def meta_learned(a: Setting, seed: int) -> Losses:
    """Test-time training."""
    algorithm = test_time_training(clipped(a.rate), a.sizes)
    return {"test-time training": losses(algorithm, train(algorithm, a, seed), a.pieces)}


def full_attention(a: Setting, seed: int) -> Losses:
    """Every byte sees all before it."""
    algorithm = test_time_training(
        optax.set_to_zero(), Sizes(**(vars(a.sizes) | {"window": a.sizes.context}))
    )
    return {"full attention": losses(algorithm, train(algorithm, a, seed), a.pieces)}


SLOW = ("dynamic-evaluation", "full-attention")

MODELS: dict[str, Callable[[Setting, int], Losses]] = {
    "window": window_alone,
    "dynamic-evaluation": dynamic_evaluation,
    "test-time-training": meta_learned,
    "full-attention": full_attention,
}


def compare(a: Setting, seed: int, names: list[str], keep: Path | None) -> Losses:
    """The losses under the named models; those that the folder `keep` has of the same setting are not made again."""
    found: Losses = {}
    for name in names:
        print(f"  {name}", flush=True)
        file = keep and keep / f"{name}-seed{seed}-{a.digest}.npz"
        if file and file.exists():
            with np.load(file) as kept:
                found |= dict(kept)
            continue
        found |= (made := MODELS[name](a, seed))
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            with (partial := file.with_suffix(".partial")).open("wb") as out:
                np.savez(out, **made)  # pyright: ignore[reportArgumentType]
            partial.replace(file)
    return found
