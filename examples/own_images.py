"""Your own images: make few-shot tasks from a folder of class folders, and learn new classes from five examples.

python examples/own_images.py --folder images    # images/CLASS/anything.png
python examples/own_images.py                    # generates a few symbols instead
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax

from innerloop import Conv4, Episodes, InnerLoop, Learner, OuterLoop, cross_entropy, maml
from innerloop.tasks.datasets import image_folder

ALGORITHM = maml(cross_entropy(), InnerLoop(optax.sgd(0.5), steps=1))


def draw_symbols(root, classes=12, pictures=12):
    """Example data: each class is a random pattern of 4 by 4 tiles, and each image a noisy copy."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for c in range(classes):
        pattern = np.kron(rng.integers(0, 2, (4, 4)), np.ones((4, 4)))
        (root / f"class-{c:02}").mkdir()
        for i in range(pictures):
            pixels = np.clip(pattern * 160 + rng.normal(40, 40, pattern.shape), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class-{c:02}" / f"{i}.png")


def meta_train(classes, ways, steps):
    """An initialisation for classifying `ways` classes from five examples of each."""
    model = Conv4(ways, image_shape=classes.shape, filters=8, key=jax.random.key(0))
    tasks = Episodes(classes, ways=ways, shots=5, queries=5)
    loop = OuterLoop(ALGORITHM, optax.adam(3e-3), tasks, meta_batch=4, chunk=1)
    state, info = loop.run(loop.init(model, jax.random.key(1)), steps)
    first, last = info.outer_loss[:3].mean(), info.outer_loss[-3:].mean()
    print(f"loss after adapting: {first:.3f} -> {last:.3f}")
    return state.params


def learn_new_classes(params, classes):
    """Fit five images of each of two new classes, and classify the others."""
    learner = Learner(params, ALGORITHM.with_inner(steps=5))
    names = classes.names[:2]
    pictures = [classes.rows(i) for i in range(2)]
    learner.fit(np.concatenate([p[:5] for p in pictures]), [name for name in names for _ in range(5)])
    rest = np.concatenate([p[5:] for p in pictures])
    truth = [name for name, p in zip(names, pictures, strict=True) for _ in p[5:]]
    print(f"new classes {', '.join(names)}: {learner.score(rest, truth):.0%} of {len(rest)} images right")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--folder", type=Path, help="a folder of class folders with at least ten images each")
    parser.add_argument("--size", type=int, default=16, help="side length to which images are resized")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as stand_in:
        if options.folder is None:
            draw_symbols(Path(stand_in))
        splits = image_folder.load(options.folder or stand_in, size=options.size, split=(0.6, 0.15, 0.25))
    ways = min(3, splits.train.classes)
    params = meta_train(splits.train, ways, 20 if options.smoke else 300)
    learn_new_classes(params, splits.test)


if __name__ == "__main__":
    main()
