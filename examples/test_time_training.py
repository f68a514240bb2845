r"""A language model that learns from the text while it reads it: test-time training, meta-learned end to end.

    python examples/test_time_training.py

A small decoder of bytes sees a sliding window of the text. The last blocks have a second, *prime* MLP, which takes a
gradient step on every chunk of the text once it has been predicted, so that what has left the window is kept in
weights. Online MAML trains everything for that: the loss is that of every chunk before its step, differentiated through
all steps. It is compared with the window alone, with full attention, and with dynamic evaluation: the same steps at
test, by a model that was not trained for them. The text is Python's own library.

Tandon et al. 2025, "End-to-End Test-Time Training for Long Context", arXiv 2512.23675; Krause et al. 2018, "Dynamic
Evaluation of Neural Sequence Models", arXiv 1709.07432.
"""

import argparse
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

import innerloop as il
from innerloop.algorithms.online_maml import OnlineMAML
from innerloop.engine.inner import Observe, Trajectory

Hidden = Float[Array, "positions width"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of model and text."""

    width: int = 128
    heads: int = 4
    prefix: int = 3
    suffix: int = 1
    window: int = 128
    chunk: int = 128
    context: int = 1024

    @property
    def chunks(self) -> int:
        return self.context // self.chunk


DYNAMIC_RATES = (0.01, 0.03, 0.1, 0.3)
"""Step sizes of dynamic evaluation, of which the best on the test text itself is reported: it has the advantage."""


class Window(NamedTuple):
    """What a chunk sees of the text before it: normalised keys (before rotary) and values of each suffix block."""

    keys: list[Float[Array, "window heads size"]]
    values: list[Float[Array, "window heads size"]]
    first: Int[Array, ""]


class Chunk(NamedTuple):
    """One item of the stream: what the prefix made of a chunk, and the bytes that follow each of its own."""

    hidden: Hidden
    targets: Int[Array, " positions"]


def block(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """A block of attention and an MLP, with norms before and after both."""
    draw = lambda i, n, m: jax.random.normal(jax.random.fold_in(key, i), (n, m)) / n**0.5
    size = s.width // s.heads
    return {
        "qkv": draw(0, s.width, 3 * s.width),
        "out": draw(1, s.width, s.width),
        "norms": jnp.ones((2, size)),
        "around_attention": jnp.ones((2, s.width)),
        "mlp": mlp(jax.random.fold_in(key, 2), s),
    }


def mlp(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """A gated MLP (SwiGLU) with norms before and after."""
    draw = lambda i, n, m: jax.random.normal(jax.random.fold_in(key, i), (n, m)) / n**0.5
    hidden = 2 * s.width
    return {
        "gate": draw(0, s.width, hidden),
        "up": draw(1, s.width, hidden),
        "down": draw(2, hidden, s.width),
        "around": jnp.ones((2, s.width)),
    }


def decoder(key: PRNGKeyArray, s: Sizes) -> PyTree:
    """The parameters; the output head is tied to the embedding."""
    keys = jax.random.split(key, 4)
    return {
        "embedding": jax.random.normal(keys[0], (256, s.width)) * 0.02,
        "prefix": [block(k, s) for k in jax.random.split(keys[1], s.prefix)],
        "suffix": [block(k, s) for k in jax.random.split(keys[2], s.suffix)],
        "prime": [mlp(k, s) for k in jax.random.split(keys[3], s.suffix)],
        "norm": jnp.ones(s.width),
    }


def rms(scale: Array, x: Array) -> Array:
    """Root-mean-square normalisation."""
    return scale * x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def feed(p: PyTree, h: Hidden) -> Hidden:
    """An MLP with its residual."""
    x = rms(p["around"][0], h)
    return h + rms(p["around"][1], (jax.nn.silu(x @ p["gate"]) * (x @ p["up"])) @ p["down"])


def rotary(x: Float[Array, "positions heads size"], positions: Int[Array, " positions"]) -> Array:
    """Rotary position embedding, base 500 000."""
    half = x.shape[-1] // 2
    angles = positions[:, None] * 500_000.0 ** (-jnp.arange(half) / half)
    sine, cosine = jnp.sin(angles)[:, None], jnp.cos(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def query_key_value(p: PyTree, h: Hidden, s: Sizes) -> tuple[Array, Array, Array]:
    """Queries, keys (both normalised by head) and values, `[positions, heads, size]` each."""
    split = (rms(p["around_attention"][0], h) @ p["qkv"]).reshape(len(h), 3, s.heads, -1)
    return rms(p["norms"][0], split[:, 0]), rms(p["norms"][1], split[:, 1]), split[:, 2]


def attend(q: Array, k: Array, v: Array, first: Array, window: int) -> Array:
    """Attention of the positions first, first + 1, ... to the last `window` positions up to themselves.

    Args:
        q: `[positions, heads, size]`.
        k: `[before + positions, heads, size]`, of which the first lie before the queries.
        v: as `k`.
        first: the position of the first query.
        window: how many positions a query sees.
    """
    here = first + jnp.arange(len(q))
    there = first + jnp.arange(len(k)) - (len(k) - len(q))
    seen = (there >= 0) & (there <= here[:, None]) & (there > here[:, None] - window)
    scores = jnp.einsum("qhs,khs->hqk", rotary(q, here), rotary(k, there)) / q.shape[-1] ** 0.5
    return jnp.einsum("hqk,khs->qhs", jax.nn.softmax(jnp.where(seen, scores, -1e30)), v).reshape(len(q), -1)


def after_attention(p: PyTree, h: Hidden, attended: Hidden) -> Hidden:
    """The residual of attention."""
    return h + rms(p["around_attention"][1], attended @ p["out"])


def prefix(params: PyTree, text: Int[Array, " positions"], s: Sizes) -> Hidden:
    """The first blocks, over the whole text; attention goes chunk by chunk, in parallel."""
    h = params["embedding"][text]
    for p in params["prefix"]:
        q, k, v = query_key_value(p, h, s)
        h = feed(p["mlp"], after_attention(p, h, attend_in_chunks(q, k, v, s)))
    return h


def attend_in_chunks(q: Array, k: Array, v: Array, s: Sizes) -> Hidden:
    """Attention over the whole text, every chunk to itself and the window before it; memory grows with the text."""
    before = jnp.zeros((s.window, *k.shape[1:]))
    k, v = jnp.concatenate([before, k]), jnp.concatenate([before, v])

    def one(start: Array) -> Hidden:
        part = lambda x, length: jax.lax.dynamic_slice_in_dim(x, start, length)
        seen = s.window + s.chunk
        return attend(part(q, s.chunk), part(k, seen), part(v, seen), start, s.window)

    return jax.vmap(one)(jnp.arange(s.chunks) * s.chunk).reshape(len(q), -1)


def chunk_loss(s: Sizes, params: PyTree, chunk: Chunk, *, state: Window) -> tuple[Array, Window, Array]:
    """The suffix on one chunk: mean cross-entropy, the window for the next chunk, and the loss of every byte."""
    h, keys, values = chunk.hidden, [], []
    for p, prime, old_k, old_v in zip(
        params["suffix"], params["prime"], state.keys, state.values, strict=True
    ):
        q, k, v = query_key_value(p, h, s)
        k, v = jnp.concatenate([old_k, k]), jnp.concatenate([old_v, v])
        h = after_attention(p, h, attend(q, k, v, state.first, s.window))
        h = feed(p["mlp"], feed(prime, h))
        keys.append(k[-s.window :])
        values.append(v[-s.window :])
    scores = rms(params["norm"], h) @ params["embedding"].T
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, chunk.targets)
    return losses.mean(), Window(keys, values, state.first + s.chunk), losses


@dataclass(frozen=True)
class TestTimeTraining(OnlineMAML):
    """Online MAML on chunks; the support set of a task is a text of `context + 1` bytes."""

    sizes: Sizes = Sizes()

    def trajectory(
        self,
        meta_params: PyTree,
        support: Int[Array, " bytes"],
        observe: Observe | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Trajectory:
        """The prefix once, then a step for every chunk."""
        s = self.sizes
        split = lambda x: x.reshape(s.chunks, s.chunk, *x.shape[1:])
        chunks = Chunk(split(prefix(meta_params, support[:-1], s)), split(support[1:]))
        return super().trajectory(meta_params, chunks, observe, key=key)


def test_time_training(rule: optax.GradientTransformation, s: Sizes) -> TestTimeTraining:
    """The algorithm with this inner rule; one that changes nothing gives the model without test-time training."""
    nothing = [jnp.zeros((s.window, s.heads, s.width // s.heads))] * s.suffix
    state = Window(nothing, nothing, jnp.zeros((), jnp.int32))
    loss = il.Loss(partial(chunk_loss, s), state=state, aux=True, differentiate_state=True)
    inner = il.InnerLoop(
        rule, s.chunks, select="prime", stream=True, derivative="rematerialised", checkpoints="sqrt"
    )
    return TestTimeTraining(loss, inner, sizes=s)


def clipped(rate: float) -> optax.GradientTransformation:
    """Gradient descent on gradients of norm 1 at most."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))


class Text(NamedTuple):
    """Pieces of a text of `length` bytes, drawn at random."""

    text: Int[Array, " bytes"]
    length: int

    def sample(self, key: PRNGKeyArray) -> il.Task:
        first = jax.random.randint(key, (), 0, len(self.text) - self.length)
        return il.Task(jax.lax.dynamic_slice_in_dim(self.text, first, self.length), ())


def python_sources() -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out bytes: every eighth file of Python's own library is held out."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_bytes() for path in files]
    part = lambda chosen: np.frombuffer(b"\n".join(chosen), np.uint8).astype(np.int32)
    return part([t for i, t in enumerate(texts) if i % 8]), part(texts[::8])


def train(algorithm: TestTimeTraining, text: Text, s: Sizes, steps: int, seed: int) -> PyTree:
    """Train all parameters by Adam."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, steps // 10, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.95, weight_decay=0.1))
    loop = il.OuterLoop(algorithm, optimizer, text, meta_batch=8, chunk=1)
    state = loop.init(decoder(jax.random.key(seed), s), jax.random.key(seed + 1))
    for _ in range(4):
        state, info = loop.run(state, steps // 4)
        print(f"    update {int(state.step)}: loss {float(info.outer_loss[-20:].mean()):.3f}", flush=True)
    return state.params


def losses(algorithm: TestTimeTraining, params: PyTree, text: Text, count: int) -> np.ndarray:
    """The loss of every byte of held-out pieces, in nats, `[pieces, positions]`."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(99)))(jnp.arange(count))
    one = lambda key: algorithm.trajectory(params, text.sample(key).support).aux.reshape(-1)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def compare(s: Sizes, steps: int, count: int, rate: float, seed: int) -> dict[str, np.ndarray]:
    """The mean loss of every byte of the four models, `[pieces, positions]` each."""
    sources, held_out = (Text(jnp.asarray(t), s.context + 1) for t in python_sources())
    full = Sizes(**(vars(s) | {"window": s.context}))
    still, learning = (test_time_training(rule, s) for rule in (optax.set_to_zero(), clipped(rate)))
    found = {}
    for name, algorithm in (
        ("window alone", still),
        ("full attention", test_time_training(optax.set_to_zero(), full)),
        ("test-time training", learning),
    ):
        print(f"  {name}")
        params = train(algorithm, sources, algorithm.sizes, steps, seed)
        found[name] = losses(algorithm, params, held_out, count)
        if name == "window alone":
            rates = {
                r: losses(test_time_training(clipped(r), s), params, held_out, count)
                for r in (0.01, 0.03, 0.1, 0.3)
            }
            found["dynamic evaluation"] = min(rates.values(), key=np.mean)
    return found


def report(found: list[dict[str, np.ndarray]], s: Sizes) -> None:
    """Losses of quarters of the text, means over seeds and pieces, with 95 % intervals over pieces."""
    print(
        f"\n{'loss in nats a byte':22}"
        + "".join(f"{f'quarter {i}':>17}" for i in range(1, 5))
        + f"{'all':>17}"
    )
    half: Callable[[np.ndarray], float] = lambda x: 1.96 * x.std(ddof=1) / len(x) ** 0.5
    for name in found[0]:
        pieces = np.mean([one[name] for one in found], axis=0)
        quarters = [*np.split(pieces, 4, axis=1), pieces]
        cells = [f"{q.mean():8.4f} ± {half(q.mean(1)):.4f}" for q in quarters]
        print(f"{name:22}" + "".join(f"{c:>17}" for c in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="updates of each training")
    parser.add_argument("--seeds", type=int, default=1, help="how many trainings of each")
    parser.add_argument("--context", type=int, default=1024, help="bytes of a text")
    parser.add_argument("--rate", type=float, default=1.0, help="the inner step size")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    asked = parser.parse_args()
    if asked.smoke:
        s, steps, count, seeds = Sizes(16, 2, 1, 1, 16, 16, 64), 8, 3, 1
    else:
        s, steps, count, seeds = Sizes(context=asked.context), asked.steps, 100, asked.seeds
    found = []
    for seed in range(seeds):
        print(
            f"seed {seed}: {sum(x.size for x in jax.tree.leaves(decoder(jax.random.key(0), s)))} parameters"
        )
        found.append(compare(s, steps, count, asked.rate, seed))
    report(found, s)


if __name__ == "__main__":
    main()
