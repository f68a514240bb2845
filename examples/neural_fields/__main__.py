"""Pictures as functions: a SIREN shared by all pictures, and a latent for each, found in three inner steps.

    python -m examples.neural_fields                          # the embedded glyphs
    python -m examples.neural_fields --cifar FOLDER           # CIFAR-100; FOLDER holds cifar-100-binary.tar.gz

A picture is a task whose examples are its pixels: coordinates in, colours out. CAVIA adapts a latent that starts at
zero; a linear map turns it into shifts of every layer. Only its latent has to be stored for a picture. For comparison,
MAML learns the initialisation of a coordinate network of the same size, all of whose weights adapt.

Dupont et al. 2022, "COIN++: Neural Compression Across Modalities", arXiv 2201.12904; Tancik et al. 2021, "Learned
Initializations for Optimizing Coordinate-Based Neural Representations", arXiv 2012.02189; Sitzmann et al. 2020,
"Implicit Neural Representations with Periodic Activation Functions", arXiv 2006.09661.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import optax
from jaxtyping import PyTree

import innerloop as il

from .figure import draw
from .pictures import Pictures, load
from .siren import error, score, siren

META_BATCH = 16

LATENT_RATE = 3.0
"""The inner step size for latents; the error is a mean over pixels and channels."""


def train(algorithm: il.Algorithm, params: PyTree, pictures: Pictures, steps: int, rate: float) -> PyTree:
    """Learn the shared network (and the initialisation) on the training pictures."""
    adam = optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, steps // 20, steps))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), adam)
    loop = il.OuterLoop(algorithm, optimizer, pictures, meta_batch=META_BATCH, chunk=1)
    state, block = loop.init(params, jax.random.key(1)), max(1, steps // 10)
    for done in range(0, steps, block):
        began, length = time.perf_counter(), min(block, steps - done)
        state, info = loop.run(state, length)
        mean = float(info.outer_loss[-50:].mean())
        each = 1e3 * (time.perf_counter() - began) / length
        print(f"  update {done + length}: error {mean:.4f}, {each:.1f} ms per update", flush=True)
    return state.params


def measure(
    algorithm: il.Algorithm, params: PyTree, pictures: Pictures, count: int
) -> dict[str, list[float]]:
    """Mean PSNR in dB and its 95 % half-width after 0 to 3 and 10 inner steps on test pictures."""
    longer, key = algorithm.with_inner(steps=10), jax.random.key(2)
    curve = il.evaluate(longer, params, pictures, score, key=key, num_tasks=count, chunk=10)
    found = {
        str(at): [float(curve.mean("psnr")[at]), float(curve.ci95("psnr")[at])] for at in (0, 1, 2, 3, 10)
    }
    for at, (mean, half) in found.items():
        print(f"  after {at:>2} steps: {mean:.2f} ± {half:.2f} dB on {count} test pictures")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", metavar="FOLDER", help="train on CIFAR-100 instead of the embedded glyphs")
    parser.add_argument("--steps", type=int, default=3000, help="updates of the outer loop")
    parser.add_argument("--latent", type=int, default=128, help="size of a picture's latent")
    parser.add_argument("--width", type=int, default=64, help="units per layer")
    parser.add_argument("--plot", type=Path, help="where to draw pictures at steps 0 to 3")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the results as JSON")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    asked = parser.parse_args()
    if min(asked.steps, asked.latent, asked.width) < 1:
        parser.error("--steps, --latent and --width must be 1 or more")
    side, width, depth, count, steps = 16, asked.width, 4, 1000, asked.steps
    if asked.smoke:
        side, width, depth, count, steps = 8, 16, 2, 20, 50
    il.use_cores()

    train_set, test_set = load(asked.cifar, side)
    results = {"data": "CIFAR-100" if asked.cifar else "glyphs", "side": side, "width": width, "depth": depth}
    results |= {
        "latent": asked.latent,
        "latent_rate": LATENT_RATE,
        "updates": steps,
        "meta_batch": META_BATCH,
        "test_pictures": count,
    }
    results["date"] = datetime.now(UTC).date().isoformat()
    for name, latent, algorithm, rate in (
        ("latents", asked.latent, il.cavia(error, il.InnerLoop(optax.sgd(LATENT_RATE), 3, unroll=3)), 5e-4),
        ("all weights", 0, il.maml(error, il.InnerLoop(optax.sgd(1e-2), 3)), 3e-4),
    ):
        params = siren(jax.random.key(0), width, depth, train_set.pictures.shape[-1], latent)
        print(f"{name}: {sum(x.size for x in jax.tree.leaves(params))} parameters, {latent or 'all'} adapted")
        learned = train(algorithm, params, train_set, steps, rate)
        results[name] = {"psnr": measure(algorithm, learned, test_set, count)}
        if asked.plot and latent:
            draw(asked.plot, algorithm, learned, test_set, side)
    if asked.out:
        asked.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
