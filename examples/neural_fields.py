"""Pictures as functions: a SIREN shared by all pictures, and a latent for each, found by three inner steps.

    python examples/neural_fields.py                          # the embedded glyphs
    python examples/neural_fields.py --cifar FOLDER           # CIFAR-100; FOLDER holds cifar-100-binary.tar.gz

A picture is a task whose examples are its pixels: coordinates in, colours out. CAVIA adapts a latent that starts at
zero; a linear map turns it into shifts of every layer. What has to be stored of a picture is its latent alone. Beside
it a coordinate network of the same size of which MAML learns the initialisation, and all of whose weights adapt.

Dupont et al. 2022, "COIN++: Neural Compression Across Modalities", arXiv 2201.12904; Tancik et al. 2021, "Learned
Initializations for Optimizing Coordinate-Based Neural Representations", arXiv 2012.02189; Sitzmann et al. 2020,
"Implicit Neural Representations with Periodic Activation Functions", arXiv 2006.09661.
"""

import argparse
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

import innerloop as il
from innerloop.tasks.datasets import cifar, glyphs

FREQUENCY = 30.0
"""w0: what every layer's argument is multiplied by inside the sine, 30 in all of the papers."""


class Layer(NamedTuple):
    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]


def layer(key: jax.Array, inputs: int, outputs: int, bound: float) -> Layer:
    """Weights of the uniform distribution on [-bound, bound] (Sitzmann et al., section 3.2)."""
    weight_key, bias_key = jax.random.split(key)
    return Layer(
        jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound),
        jax.random.uniform(bias_key, (outputs,), minval=-(inputs**-0.5), maxval=inputs**-0.5),
    )


def siren(key: jax.Array, width: int, depth: int, channels: int, latent: int) -> PyTree:
    """The parameters: `layers`, and with a latent the map `shifts` and the latent's start `context`."""
    keys = jax.random.split(key, depth + 2)
    hidden = (6 / width) ** 0.5 / FREQUENCY
    layers = [layer(keys[0], 2, width, 0.5), *(layer(k, width, width, hidden) for k in keys[1:depth])]
    params = {"layers": layers, "out": layer(keys[-2], width, channels, hidden)}
    if latent:
        shifts = jax.random.uniform(keys[-1], (latent, depth * width), minval=-1, maxval=1) / latent
        params |= {"shifts": shifts, "context": jnp.zeros(latent)}
    return params


def colours(params: PyTree, places: Float[Array, "pixels 2"]) -> Float[Array, "pixels channels"]:
    """Colours in 0..1 at places in -1..1; every layer is shifted by its share of the map of the latent."""
    depth, x = len(params["layers"]), places
    zeros = jnp.zeros((depth, 1))
    shifts = (params["context"] @ params["shifts"]).reshape(depth, -1) if "context" in params else zeros
    for one, shift in zip(params["layers"], shifts, strict=True):
        x = jnp.sin(FREQUENCY * (x @ one.weight + one.bias + shift))
    return x @ params["out"].weight + params["out"].bias + 0.5


def error(params: PyTree, picture: il.Batch) -> jax.Array:
    """The mean squared error over pixels and channels."""
    return jnp.mean(jnp.square(colours(params, picture.inputs) - picture.targets))


def score(params: PyTree, task: il.Task) -> dict[str, jax.Array]:
    """The peak signal-to-noise ratio, in decibels."""
    return {"psnr": -10 * jnp.log10(error(params, task.query))}


class Pictures(NamedTuple):
    """The distribution of pictures; support and query are the same pixels, as in the papers."""

    places: Float[Array, "pixels 2"]
    pictures: Float[Array, "pictures pixels channels"]

    def task(self, number: int | jax.Array) -> il.Task:
        picture = il.Batch(self.places, self.pictures[number])
        return il.Task(picture, picture)

    def sample(self, key: jax.Array) -> il.Task:
        return self.task(jax.random.randint(key, (), 0, len(self.pictures)))


def load(folder: str | None, side: int) -> tuple[Pictures, Pictures]:
    """Training and test pictures, the middle `side` x `side` pixels of each."""
    splits = glyphs.load(size=side) if folder is None else cifar.load(root=folder)
    grid = jnp.linspace(-1, 1, side)
    places = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)

    def part(examples: np.ndarray) -> Pictures:
        first = (examples.shape[1] - side) // 2
        middle = examples[:, first : first + side, first : first + side]
        return Pictures(places, jnp.asarray(middle.reshape(len(middle), side * side, -1) / 255, jnp.float32))

    return part(splits.train.examples), part(splits.test.examples)


def train(algorithm: il.Algorithm, params: PyTree, pictures: Pictures, steps: int, rate: float) -> PyTree:
    """Learn the shared network (and the initialisation) on the training pictures."""
    loop = il.OuterLoop(algorithm, optax.adam(rate), pictures, meta_batch=16)
    state = loop.init(params, jax.random.key(1))
    for done in range(0, steps, steps // 5):
        state, info = loop.run(state, steps // 5)
        print(f"  update {done + steps // 5}: error {float(info.outer_loss[-50:].mean()):.4f}", flush=True)
    return state.params


def draw(path: str, algorithm: il.Algorithm, params: PyTree, pictures: Pictures, side: int) -> None:
    """Six test pictures after 0, 1, 2 and 3 inner steps, and as they are."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 6, figsize=(6, 5.4), layout="constrained")
    at_every_place = lambda params, i: colours(params, pictures.places)
    for column in range(6):
        task = pictures.task(column * 97)
        seen = algorithm.trajectory(params, task.support, at_every_place).observed
        for row, picture in enumerate([*seen[:4], task.query.targets]):
            axes[row, column].imshow(
                np.clip(picture, 0, 1).reshape(side, side, -1), cmap="gray", vmin=0, vmax=1
            )
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(["start", "1 step", "2 steps", "3 steps", "picture"]):
        axes[row, 0].set_ylabel(name)
    figure.savefig(path, dpi=150)
    print(f"pictures: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", metavar="FOLDER", help="train on CIFAR-100 instead of the embedded glyphs")
    parser.add_argument("--steps", type=int, default=3000, help="updates of the outer loop")
    parser.add_argument("--latent", type=int, default=128, help="numbers per picture")
    parser.add_argument("--plot", help="where to draw pictures at steps 0 to 3")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    asked = parser.parse_args()
    side, width, depth, count, steps = (8, 16, 2, 20, 50) if asked.smoke else (16, 64, 4, 1000, asked.steps)

    train_set, test_set = load(asked.cifar, side)
    channels = train_set.pictures.shape[-1]
    inner = il.InnerLoop(optax.sgd(1.0), 3)
    for name, latent, algorithm in (
        ("latents", asked.latent, il.cavia(error, inner)),
        ("all weights", 0, il.maml(error, il.InnerLoop(optax.sgd(1e-2), 3))),
    ):
        params = siren(jax.random.key(0), width, depth, channels, latent)
        print(f"{name}: {sum(x.size for x in jax.tree.leaves(params))} parameters, {latent or 'all'} adapted")
        learned = train(algorithm, params, train_set, steps, 1e-4)
        curve = il.evaluate(
            algorithm.with_inner(steps=10),
            learned,
            test_set,
            score,
            key=jax.random.key(2),
            num_tasks=count,
            chunk=10,
        )
        for at in (0, 3, 10):
            mean, half = curve.mean("psnr")[at], curve.ci95("psnr")[at]
            print(f"  after {at:2} steps: {mean:.2f} ± {half:.2f} dB on {count} test pictures")
        if asked.plot and latent:
            draw(asked.plot, algorithm, learned, test_set, side)


if __name__ == "__main__":
    main()
