r"""A language model that learns from text while reading it: test-time training, meta-learned end to end.

    python -m examples.test_time_training
    python -m examples.test_time_training --seeds 3 --context 2048 --keep work --out results.json

A small byte-level decoder sees a sliding window of the text. Its last blocks have a second, *prime* MLP, which takes a
gradient step on every chunk of the text once the chunk has been predicted, so that the weights remember what has left
the window. Online MAML trains all parameters for this: the loss is that of every chunk before its step, differentiated
through all steps. It is compared with the window alone, with full attention, and with dynamic evaluation: the same
steps at test, by a model that was not trained for them. The text is Python's standard library.

Tandon et al. 2025, "End-to-End Test-Time Training for Long Context", arXiv 2512.23675; Krause et al. 2018, "Dynamic
Evaluation of Neural Sequence Models", arXiv 1709.07432.
"""

import argparse
from pathlib import Path

import jax

from .compare import MODELS, compare
from .decoder import Sizes, decoder
from .results import report, table
from .training import Setting, sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="updates per training run")
    parser.add_argument("--seeds", type=int, default=1, help="training runs per model")
    parser.add_argument("--context", type=int, default=1024, help="bytes per text")
    parser.add_argument("--width", type=int, default=128, help="width of the model")
    parser.add_argument(
        "--window", type=int, default=128, help="bytes in the attention window, and in a chunk"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="the inner step size")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="models to train")
    parser.add_argument(
        "--full-attention-seeds", type=int, metavar="N", help="seeds for the slowest model (default: all)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep finished runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the results as JSON")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    asked = parser.parse_args()
    if asked.window < 1 or asked.context < 1 or asked.context % asked.window:
        parser.error(f"--context must be a multiple of --window, {asked.window}; got {asked.context}")
    if asked.context % 4:
        parser.error(
            f"--context must be a multiple of 4, since losses are given by quarter; got {asked.context}"
        )
    if asked.context > (held := len(sources(1)[1].text) - 1):
        parser.error(f"--context must be {held} or less, as long as the held-out text; got {asked.context}")
    if asked.width < 1 or asked.width % 8:
        parser.error(f"--width must be a multiple of 8, for four heads of even size; got {asked.width}")
    if (
        min(asked.steps, asked.seeds, 1 if asked.full_attention_seeds is None else asked.full_attention_seeds)
        < 1
    ):
        parser.error("--steps, --seeds and --full-attention-seeds must be 1 or more")
    s = Sizes(width=asked.width, window=asked.window, chunk=asked.window, context=asked.context)
    setting, seeds = Setting(s, asked.steps, 200, asked.rate), asked.seeds
    if asked.smoke:
        setting, seeds = Setting(Sizes(16, 2, 1, 1, 16, 16, 64), 8, 3, 1.0, update_bytes=512), 1
    count = sum(x.size for x in jax.tree.leaves(decoder(jax.random.key(0), setting.sizes)))
    found = []
    for seed in range(seeds):
        print(f"seed {seed}: {count} parameters, {setting.steps} updates", flush=True)
        few = asked.full_attention_seeds is not None and seed >= asked.full_attention_seeds
        names = [name for name in asked.models if not (few and name == "full-attention")]
        found.append(compare(setting, seed, names, asked.keep))
    results = report(found, setting, count)
    print("\n" + table(results))
    if asked.out:
        asked.out.write_text(results.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
