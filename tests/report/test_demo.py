"""The page of `innerloop demo`: its inner loop equals ours, and its assets are those that the tool writes."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools import demo_assets
from tools.demo_assets import PAGE

from innerloop.engine.algorithm import Algorithm
from innerloop.engine.pytree import paths
from innerloop.engine.types import Batch, Params
from innerloop.tasks import Episodes
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.datasets import omniglot
from innerloop.tasks.io import class_splits

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="runs the page's scripts, which needs Node")


def run_script(expression: str, *options: str) -> Any:
    """The value of an expression of JavaScript, with the page's scripts loaded; "doubles" without WebAssembly."""
    command = [str(NODE), str(Path(__file__).with_name("demo") / "run.cjs"), str(PAGE), expression, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def constant(name: str) -> Any:
    """The constant that a generated script defines."""
    return json.loads((PAGE / name).read_text().split(" = ", 1)[1].removesuffix(";\n"))


def drawn(task: dict[str, Any], what: str) -> np.ndarray:
    """Drawings as the network sees them, `[5, 28, 28, 1]`."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(task[what]), np.uint8), count=5 * 105 * 105)
    pages = [Image.fromarray(255 * (1 - ink)) for ink in bits.reshape(5, 105, 105)]
    small = [np.asarray(page.resize((28, 28), Image.Resampling.LANCZOS)) for page in pages]
    return (255 - np.stack(small)[..., None]).astype(np.float32) / np.float32(255)


def stored(params: Params) -> Params:
    """The meta-parameters as the page has them: in float16, moments by their square roots."""
    halves = demo_assets.halves(params)

    def value(path: str) -> jax.Array:
        x = jnp.float32(halves[path.removeprefix("model/")])
        return jnp.square(x) if path.startswith("moments/") else x

    return jax.tree.structure(params).unflatten([value(path) for path in paths(params)])


def first_task(algorithm: Algorithm, params: Params) -> np.ndarray:
    """Scores of the first task's queries after 0..5 inner steps, `[6, 5, 5]`."""
    task = constant("tasks.js")[0]
    support = Batch(jnp.asarray(drawn(task, "examples")), jnp.arange(5))
    observe = lambda adapted, _: adapted(jnp.asarray(drawn(task, "queries")))
    run = jax.jit(lambda params: algorithm.trajectory(params, support, observe).observed)
    return np.asarray(run(params))


ADAPT = """MODELS.map((stored) => [false, true].map((frozen) => [...adapt(modelOf(stored),
  {images: imagesOf(drawingsOf(TASKS[0].examples, 5)), targets: [0, 1, 2, 3, 4]},
  imagesOf(drawingsOf(TASKS[0].queries, 5)), {steps: 5, frozen})]))"""


@pytest.fixture(scope="module")
def of_the_page() -> np.ndarray:
    """`[algorithms, frozen or not, steps, queries * classes]`."""
    return np.asarray(run_script(ADAPT))


@needs_node
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", demo_assets.ALGORITHMS)
def test_page_scores_match_python_after_every_step(name: str, frozen: bool, of_the_page: np.ndarray) -> None:
    params, experiment = demo_assets.load(name)
    algorithm = experiment.test_algorithm.with_inner(steps=5)
    algorithm = algorithm.with_inner(select="head") if frozen else algorithm
    found = of_the_page[demo_assets.ALGORITHMS.index(name), int(frozen)].reshape(6, 5, 5)
    np.testing.assert_allclose(found, first_task(algorithm, stored(params)), rtol=0, atol=1e-4)


# The gradient of the loss along a random direction, and the difference of two losses, in doubles.
DIFFERENCES = """(() => {
  const uniform = ((state) => () => (state = (state * 16807) % 2147483647) / 2147483647 - 0.5)(20);
  const images = Floats.from({length: 5 * 784}, () => Math.max(0, uniform()));
  const crossEntropy = (scores, targets, ways) => {
    const probabilities = softmax(scores, ways);
    return -targets.reduce((sum, target, i) => sum + Math.log(probabilities[i * ways + target]), 0) / targets.length;
  };
  return MODELS.slice(0, 2).map(({features}, number) => {
    const {params} = modelOf(MODELS[number]), targets = [0, 3, 1, 2, 4];
    const grads = lossGradient(params, features, embed(params, features, images), targets, false);
    return Object.keys(params).map((name) => {
      const direction = params[name].map(uniform);
      const loss = (step) => {
        const moved = {...params, [name]: params[name].map((w, i) => w + step * direction[i])};
        return crossEntropy(scoresOf(moved, embed(moved, features, images)), targets, 5);
      };
      return [grads[name].reduce((sum, g, i) => sum + g * direction[i], 0), (loss(1e-6) - loss(-1e-6)) / 2e-6];
    });
  });
})()"""


@needs_node
def test_gradients_match_finite_differences() -> None:
    found = np.asarray(run_script(DIFFERENCES, "doubles"))
    assert found.shape == (2, 14, 2)  # features that are flattened, and their mean
    np.testing.assert_allclose(found[..., 0], found[..., 1], rtol=1e-4, atol=1e-7)


@needs_node
def test_webassembly_products_match_javascript() -> None:
    """Whole tiles, and what is left over of rows and columns."""
    compare = """[[4, 3, 8], [1, 1, 1], [7, 300, 13], [245, 64, 576]].flatMap(([rows, inner, columns]) =>
      [false, true].map((turned) => {
        const a = Floats.from({length: rows * inner}, (_, i) => Math.sin(i));
        const b = Floats.from({length: inner * columns}, (_, i) => Math.cos(3 * i));
        const slow = slowProduct(a, b, rows, inner, columns, turned);
        return product(a, b, rows, inner, columns, turned).map((value, i) => value - slow[i]); }))"""
    for difference in run_script(compare):
        np.testing.assert_allclose(difference, 0, atol=1e-5)
    assert run_script("[product === slowProduct, Floats.name]") == [False, "Float32Array"]
    assert run_script("[product === slowProduct, Floats.name]", "doubles") == [True, "Float64Array"]


@needs_node
def test_drawings_are_resized_like_omniglot() -> None:
    found = run_script("TASKS.map((task) => imagesOf(drawingsOf(task.queries, 5)))")
    for task, images in zip(constant("tasks.js"), found, strict=True):
        np.testing.assert_array_equal(np.float32(images), drawn(task, "queries").ravel())


def test_page_weights_match_shipped_weights() -> None:
    assert (PAGE / "models.js").read_text() == demo_assets.models()


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> ClassArrays:
    """The test classes, of which only those of the first tasks are read: all would take ten seconds."""
    names, blank = class_splits.names("omniglot_maml", "test"), np.zeros((20, 105, 105, 1), np.uint8)
    rows = Episodes(ClassArrays.from_lists([blank[:, :1, :1]] * len(names), names), 5, 1, 1).rows
    drawn = {names[i] for seed in range(demo_assets.TASKS) for i in rows.classes(jax.random.key(seed))}
    folders = "|".join(map(re.escape, drawn))
    monkeypatch.setattr(omniglot, "MEMBER", re.compile(rf"images_[a-z]+/(?:{folders})/\d+_\d+\.png"))
    monkeypatch.setattr(omniglot, "_check", lambda classes, sha256: None)
    read = omniglot._build(omniglot.SIDE, "lanczos", None)
    assert set(read.names) == drawn
    pictures = dict(zip(read.names, map(read.rows, range(read.classes)), strict=True))
    return ClassArrays.from_lists([pictures.get(name, blank) for name in names], names)


@pytest.mark.data
def test_page_drawings_are_first_held_out_tasks(held_out: ClassArrays) -> None:
    assert (PAGE / "tasks.js").read_text() == demo_assets.tasks(held_out)


def test_page_is_small_and_self_contained() -> None:
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 2e6
    page = (PAGE / "index.html").read_text()
    loaded = re.findall(r'(?:src|rel="stylesheet" href)="([^"]+)"', page)
    assert len(loaded) == len(set(loaded)) == 13
    assert all((PAGE / name).is_file() for name in loaded)
    for path in PAGE.iterdir():
        assert not re.search(r"innerHTML|\bfetch\(|XMLHttpRequest|\bimport\(|url\(", path.read_text()), (
            path.name
        )
