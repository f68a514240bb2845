"""Augmented images: against NumPy's flips and rotations, against SciPy, and in the outer loop."""

import inspect
import math
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage

import innerloop as il
from innerloop.engine.types import Task, TwoStageSampler
from innerloop.errors import InnerloopError
from innerloop.tasks.augmentation import Augmented, transformed
from innerloop.tasks.supervised import SupervisedBatches

STAY = {"mirror": jnp.asarray(1.0), "shift": jnp.asarray([0, 0]), "angle": jnp.asarray(0.0)}


def picture(height: int = 6, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3)).astype(np.float32)


def changed(image: np.ndarray, **changes: object) -> np.ndarray:
    given = STAY | {name: jnp.asarray(value) for name, value in changes.items()}
    return np.asarray(transformed(jnp.asarray(image), **given))


@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
def test_flip_and_shift_without_rotation_are_exact(size: tuple[int, int]):
    image = picture(*size)
    np.testing.assert_array_equal(changed(image), image)
    np.testing.assert_array_equal(changed(image, mirror=-1.0), image[:, ::-1])
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    height, width = size
    down = padded[3 - 2 : 3 - 2 + height, 3 + 1 : 3 + 1 + width]
    np.testing.assert_array_equal(changed(image, shift=[2, -1]), down)
    np.testing.assert_array_equal(changed(image, shift=[2, -1], mirror=-1.0), down[:, ::-1])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_match_numpy(quarters: int):
    image = picture()
    np.testing.assert_allclose(
        changed(image, angle=quarters * math.pi / 2), np.rot90(image, quarters), atol=1e-6
    )


def test_rotation_matches_scipy():
    image = picture(9, 9)
    wanted = scipy.ndimage.rotate(image, 25, reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(changed(image, angle=math.radians(25)), wanted, atol=1e-5)


def classes() -> il.ClassArrays:
    """Three classes of images, of four examples each."""
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, 256, (4, 16, 16, 1)).astype(np.uint8) for _ in range(3)]
    return il.ClassArrays.from_lists(lists, ["a", "b", "c"])


def test_flips_and_shifts_are_uniform_within_bounds():
    """The shifts of a picture of one white pixel are all of those allowed, equally often, and flips are half of all."""
    image = np.zeros((7, 7, 1), np.float32)
    image[3, 2] = 1.0
    tasks = Augmented(il.Episodes(classes(), 2, 1, 1), flip=True, crop=1)
    draw = jax.jit(jax.vmap(lambda key: tasks.image(key, jnp.asarray(image))))
    many = draw(jax.random.split(jax.random.key(0), 1800))
    places = np.stack(np.nonzero(np.asarray(many)[..., 0])[1:], 1)
    assert len(places) == 1800
    found, counts = np.unique(places, axis=0, return_counts=True)
    assert found.tolist() == [[y, x] for y in (2, 3, 4) for x in (1, 2, 3, 4, 5)]
    expected = np.tile([100, 100, 200, 100, 100], 3)  # x = 3 from both the mirrored and the other ones
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_rotation_angle_is_uniform_and_symmetric():
    tasks = Augmented(il.Episodes(classes(), 2, 1, 1), rotation=30.0)
    ramp = jnp.tile(
        jnp.arange(21.0)[:, None, None], (1, 21, 1)
    )  # its slope to the right is the sine of the angle
    draw = jax.jit(jax.vmap(lambda key: tasks.image(key, ramp)))
    many = draw(jax.random.split(jax.random.key(0), 500))
    degrees = np.degrees(np.arcsin(np.asarray(many[:, 10, 11, 0] - many[:, 10, 10, 0])))
    assert np.abs(degrees).max() <= 30.01
    assert degrees.min() < -28
    assert degrees.max() > 28
    assert abs(degrees.mean()) < 3


def test_augmentation_keeps_labels_and_drawn_examples():
    plain = il.Episodes(classes(), 2, 1, 2)
    key = jax.random.key(3)
    as_it_is = eqx.filter_jit(plain.sample)(jax.random.split(key)[0])
    jax.tree.map(np.testing.assert_array_equal, eqx.filter_jit(Augmented(plain).sample)(key), as_it_is)
    task = eqx.filter_jit(Augmented(plain, rotation=90.0).sample)(key)
    np.testing.assert_array_equal(task.support.targets, as_it_is.support.targets)
    assert not np.array_equal(task.support.inputs, as_it_is.support.inputs)


def test_augmentation_works_in_outer_loop_and_on_batches():
    algorithm = il.maml(il.cross_entropy(), il.InnerLoop(optax.sgd(0.1)))
    model = il.MLP(16 * 16, 2, hidden=(4,), key=jax.random.key(0))
    tasks = Augmented(il.Episodes(classes(), 2, 1, 1), flip=True, crop=1, rotation=10.0)
    loop = il.OuterLoop(algorithm, optax.sgd(0.1), tasks, meta_batch=2)
    _, info = loop.run(loop.init(model, jax.random.key(1)), steps=2)
    assert np.isfinite(info.outer_loss).all()
    pooled = Augmented(SupervisedBatches(classes(), 5), crop=2).sample(jax.random.key(0))
    assert pooled.query.inputs.shape == (5, 16, 16, 1)


class Rows(TwoStageSampler):
    def draw(self, key: object) -> object:
        return key

    def fetch(self, drawn: object) -> Task:
        batch = il.Batch(jnp.zeros((3, 4)), jnp.zeros(3))
        return Task(batch, batch)


def test_nested_augmentations_draw_independently():
    """A flip of what is flipped already is one half of the times, not always, no change."""
    plain = il.Episodes(classes(), 2, 1, 1)
    twice = eqx.filter_jit(Augmented(Augmented(plain, flip=True), flip=True).sample)
    first = lambda key: jax.random.split(jax.random.split(key)[0])[0]
    keys = jax.random.split(jax.random.key(0), 12)
    once = eqx.filter_jit(plain.sample)
    images = [(twice(key).support.inputs, once(first(key)).support.inputs) for key in keys]
    same = [np.array_equal(a[i], b[i]) for a, b in images for i in range(2)]
    assert 4 <= sum(same) <= 20


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop": -1}, "`crop` must be 0 or more, got -1"),
        ({"crop": 1.5}, "`crop` must be a whole number"),
        ({"tasks": Rows}, "`tasks` must be a distribution of tasks, got the class Rows"),
        ({"flip": "no"}, "`flip` must be True or False, got 'no'"),
        ({"rotation": math.nan}, "`rotation` must be a number of degrees, 0 or more, got nan"),
        ({"rotation": -1.0}, "`rotation` must be"),
        ({"rotation": math.inf}, "`rotation` must be"),
    ],
)
def test_invalid_augmentation_settings_raise(settings: dict, told: str):
    check = inspect.unwrap(Augmented.__check_init__)
    with pytest.raises(InnerloopError, match=told):
        check(SimpleNamespace(**{"tasks": Rows(), "flip": False, "crop": 0, "rotation": 0.0} | settings))


def test_non_image_inputs_raise():
    with pytest.raises(InnerloopError, match=r"must be images, got shape \(3, 4\)"):
        Augmented(Rows(), crop=1).sample(jax.random.key(0))
