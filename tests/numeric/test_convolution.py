"""Convolution by patches is XLA's convolution, and so are its first and second derivatives."""

import json
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from numeric_cases import normal

from innerloop.errors import InnerloopError
from innerloop.nn.kernels import cpu_conv, gpu_conv, pallas_conv, pallas_window
from innerloop.nn.kernels.conv import conv
from innerloop.nn.kernels.im2col import (
    BLOCK_BYTES,
    conv_by_patches,
    conv_by_xla,
    images_in_a_block,
    patches,
    same_padding,
)
from innerloop.nn.kernels.pallas_tiles import MEASURED, Tiles, tiles_for

EVERY = [(processor, k, s) for processor in (cpu_conv, gpu_conv) for k in (1, 2, 3, 5) for s in (1, 2, 3)]
INTERPRETED = [(pallas_conv, 3, 1), (pallas_conv, 3, 2), (pallas_conv, 2, 2)]
"""Fewer, since Pallas's interpreter takes long to compile."""


@cache
def everything(convolve: Callable, kernel: int, stride: int) -> list[jax.Array]:
    """Value, gradients, forward over reverse, reverse over reverse and a third order."""
    draw = normal(kernel + 10 * stride)
    x, w, dx, dw = draw(4, 5, 8, 2), draw(kernel, kernel, 2, 3), draw(4, 5, 8, 2), draw(kernel, kernel, 2, 3)
    curved = lambda x, w: jnp.sum(jnp.tanh(convolve(x, w, stride)))
    slopes = jax.grad(curved, (0, 1))
    along = lambda x, w: sum(jnp.vdot(a, b) for a, b in zip(slopes(x, w), (dx, dw), strict=True))
    second = jax.grad(along, (0, 1))

    def sines(x: jax.Array, w: jax.Array) -> tuple:
        found = second(x, w)
        return sum(jnp.sin(a).sum() for a in found), found

    third_and_second = jax.grad(sines, (0, 1), has_aux=True)
    orders = lambda x, w: (convolve(x, w, stride), jax.jvp(slopes, (x, w), (dx, dw)), third_and_second(x, w))
    return jax.tree.leaves(jax.jit(orders)(x, w))


@pytest.mark.parametrize(("processor", "kernel", "stride"), EVERY + INTERPRETED)
def test_conv_value_and_three_derivative_orders_match_xla(processor, kernel: int, stride: int):
    """Against XLA's own."""
    more = {} if processor is cpu_conv else {"precision": "highest"}
    bound = lambda x, w, stride: processor.conv_p.bind(x, w, stride=stride, **more)
    ours, products, xla = (everything(c, kernel, stride) for c in (bound, conv_by_patches, conv_by_xla))
    for a, b, c in zip(ours, products, xla, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(b, c, rtol=1e-10, atol=1e-11)
        assert np.abs(c).max() > 1e-3


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("own_kernels", [True, False])
def test_conv_under_vmap_matches_single_tasks(
    own_kernels: bool, dtype, backend: str, monkeypatch: pytest.MonkeyPatch
):
    """vmap of the gradient, and the gradient of a vmap, are those of each task."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    draw = normal(5)
    x, w = jnp.asarray(draw(3, 4, 6, 6, 5), dtype), jnp.asarray(draw(3, 3, 3, 5, 4), dtype)
    w = w if own_kernels else w[0]
    axes = (0, 0 if own_kernels else None)
    curved = lambda x, w: jnp.sum(jnp.sin(conv(x, w, 2)))
    total = lambda x, w: jnp.sum(jax.vmap(curved, axes)(x, w))
    slopes = jax.grad(curved, (0, 1))
    together = lambda x, w: (jax.vmap(slopes, axes)(x, w), jax.grad(total, 1)(x, w))
    one_by_one = jax.jit(slopes)
    each = [one_by_one(x[i], w[i] if own_kernels else w) for i in range(3)]
    found, in_w = jax.jit(together)(x, w)
    for i, one in enumerate(each):
        np.testing.assert_allclose(found[0][i], one[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1][i], one[1], rtol=1e-4, atol=1e-5)
    expected = found[1] if own_kernels else found[1].sum(0)
    np.testing.assert_allclose(in_w, expected, rtol=1e-4, atol=1e-5)


NARROW = Tiles(rows=32, channels=16, filters=16)


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "stride", "side", "limits"),
    [
        (2, 3, 3, 1, 9, {}),
        (2, 3, 3, 1, 9, {"PROGRAMS": 1}),
        (2, 3, 3, 1, 9, {"FLAT": 0}),
        (2, 3, 3, 2, 8, {"FLAT": 0}),
        (2, 3, 2, 3, 8, {"FLAT": 0}),
        (2, 3, 1, 2, 5, {"FLAT": 0}),
        (20, 33, 3, 1, 9, {"tiles": NARROW}),
        (16, 32, 3, 2, 9, {"tiles": NARROW, "FLAT": 0}),
    ],
)
def test_pallas_conv_under_vmap_matches_patches(
    channels: int,
    filters: int,
    kernel: int,
    stride: int,
    side: int,
    limits: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    """Each task with its own kernel; sums in parts or in one; windows, channels and filters in one tile or in several;
    with a stride, the places of an input gradient in groups."""
    if "tiles" in limits:
        monkeypatch.setattr(pallas_conv, "tiles_for", lambda *_: limits["tiles"])
    monkeypatch.setattr(pallas_conv, "PROGRAMS", limits.get("PROGRAMS", 4096))
    monkeypatch.setattr(pallas_window, "FLAT", limits.get("FLAT", 64))
    draw = normal(7)
    x = draw(3, 2, side, side + 1, channels)
    w = draw(3, kernel, kernel, channels, filters) / channels

    def both(processor) -> tuple:
        convolved = lambda x, w: processor.conv_p.bind(x, w, stride=stride, precision="highest")
        slopes = jax.vmap(jax.grad(lambda x, w: jnp.sum(jnp.sin(convolved(x, w))), (0, 1)))
        return slopes(x, w), jax.grad(lambda x: sum(jnp.sum(a**2) for a in slopes(x, w)))(x)

    ours, patches = jax.jit(lambda: [both(pallas_conv), both(gpu_conv)])()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(patches), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_tiles_for_returns_measured_tiles():
    """By map, precision, size of the window and width of the result; anything else has the default."""
    known = json.loads(MEASURED.read_text())
    assert tiles_for("conv", "highest", 27, 32) == Tiles(**known["conv float32 flat-narrow"])
    assert tiles_for("conv", "tensorfloat32", 576, 64) == Tiles(**known["conv tf32 deep-wide"])
    assert tiles_for("conv", "BF16_BF16_F32", 576, 64) == Tiles(**known["conv tf32 deep-wide"])
    assert tiles_for("input_gradient", "highest", 9, 64) == Tiles()
    assert {key.split()[0] for key in known} == {"conv", "kernel_gradient", "input_gradient"}


@pytest.mark.parametrize("maximum", [1, 1 << 31])
def test_pallas_conv_falls_back_to_patches_beyond_index_range(maximum: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pallas_conv, "INDEXED", maximum)
    assert by_patches(jnp.float64) == (maximum == 1)


def test_pallas_conv_uses_patches_for_float64_and_bfloat16(monkeypatch: pytest.MonkeyPatch):
    """The tiles sum in float32."""
    monkeypatch.setattr(pallas_conv, "interpreted", lambda: False)
    assert by_patches(jnp.float64)
    assert by_patches(jnp.bfloat16)


def test_pallas_conv_on_cpu_of_gpu_process_matches_xla(monkeypatch: pytest.MonkeyPatch):
    """What a process with a GPU computes on its CPU, by `jax.default_device` for example."""
    for module in (pallas_conv, pallas_window):
        monkeypatch.setattr(module, "interpreted", lambda: False)
    x, w = jnp.asarray(normal(1)(2, 6, 6, 3), jnp.float32), jnp.asarray(normal(2)(3, 3, 3, 4), jnp.float32)
    loss = lambda x, w: jnp.sum(jnp.sin(pallas_conv.conv_p.bind(x, w, stride=2, precision="highest")))
    expected = lambda x, w: jnp.sum(jnp.sin(conv_by_xla(x, w, 2)))
    for a, b in zip(*(jax.jit(jax.grad(f, (0, 1)))(x, w) for f in (loss, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def by_patches(dtype) -> bool:
    """Whether a convolution by Pallas goes by patches."""
    bound = lambda x, w: pallas_conv.conv_p.bind(x, w, stride=1, precision="highest")
    shapes = (jnp.ones((2, 4, 4, 2), dtype), jnp.ones((3, 3, 2, 1), dtype))
    return "concatenate" in jax.jit(bound).lower(*shapes).as_text()


def test_image_block_size_fits_cache_and_divides_batch():
    """28 x 28 x 64 in float64: 3.6 MB of patches an image, so one at a time; small ones all at once."""
    fitting = lambda x: images_in_a_block(x, 9 * x.shape[-1], 1, BLOCK_BYTES)
    assert fitting(jnp.zeros((6, 28, 28, 64))) == 1
    assert fitting(jnp.zeros((6, 4, 4, 2))) == 6
    assert fitting(jnp.zeros((10, 14, 14, 8), jnp.float32)) == 5


@pytest.mark.parametrize("side", range(3, 9))
def test_conv_corner_window_counts_places_inside_image(side: int):
    """Output (0, 0) of a SAME convolution of ones with ones counts the places inside the image."""
    before, _ = same_padding(side, 3, 2)
    ones = jnp.ones((1, side, side, 1))
    found = conv(ones, jnp.ones((3, 3, 1, 1)), 2)
    assert found.shape == (1, -(-side // 2), -(-side // 2), 1)
    assert found[0, 0, 0, 0] == (3 - before) ** 2


def test_patches_contain_each_window():
    """patch = (row offset, column offset, channel), checked element by element in the interior."""
    x = np.arange(2 * 5 * 5 * 2.0).reshape(2, 5, 5, 2)
    rows = patches(jnp.asarray(x), 3, 1)
    np.testing.assert_array_equal(rows[1, 2, 3], x[1, 1:4, 2:5].reshape(-1))


def test_conv_implementation_depends_on_backend_and_channels(monkeypatch: pytest.MonkeyPatch):
    """On a CPU patches of images and own maps for the rest, on a GPU own maps; elsewhere XLA's own operation."""

    def used(channels: int) -> str:
        x, w = jnp.ones((1, 4, 4, channels)), jnp.ones((3, 3, channels, 1))
        return str(jax.make_jaxpr(lambda x, w: conv(x, w))(x, w))

    assert " conv[" not in used(3)
    assert "concatenate" in used(3)
    assert " conv[" in used(4)
    assert "conv_general_dilated" not in used(4)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert " gpu_conv[" in used(3)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert "conv_general_dilated" in used(4)


def test_gpu_conv_batches_tasks_without_convolutions_or_loops(monkeypatch: pytest.MonkeyPatch):
    """However two axes of tasks are mapped, in the second order too: no convolution, and no loop over tasks."""
    draw = normal(6)
    x, w = draw(2, 3, 4, 6, 6, 5), draw(2, 3, 3, 3, 5, 4)
    bound = lambda x, w: jnp.sum(jnp.sin(gpu_conv.conv_p.bind(x, w, stride=1, precision="highest")))
    second = lambda x, w: jax.jvp(jax.grad(bound, (0, 1)), (x, w), (x, w))[1]
    both = jax.jit(jax.vmap(jax.vmap(second)))
    text = both.lower(x, w).as_text()
    assert "stablehlo.convolution" not in text
    assert "stablehlo.while" not in text
    xla = lambda x, w: jax.jvp(
        jax.grad(lambda x, w: jnp.sum(jnp.sin(conv_by_xla(x, w, 1))), (0, 1)), (x, w), (x, w)
    )[1]
    for a, b in zip(both(x, w), jax.vmap(jax.vmap(xla))(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("bytes_of_a_block", [1, 3 * 8 * 36 * 9 * 5])
def test_gpu_conv_in_blocks_matches_single_block(bytes_of_a_block: int, monkeypatch: pytest.MonkeyPatch):
    """One image a block or two of six: the same values and derivatives."""
    draw = normal(8)
    x, w = draw(6, 6, 6, 5), draw(3, 3, 5, 4)
    value = lambda x, w, stride: jnp.sum(
        jnp.sin(gpu_conv.conv_p.bind(x, w, stride=stride, precision="highest"))
    )
    for stride in (1, 2):
        whole = jax.value_and_grad(value, (0, 1))(x, w, stride)
        monkeypatch.setattr(gpu_conv, "BLOCK_BYTES", bytes_of_a_block)
        parts = jax.value_and_grad(lambda x, w, s=stride: value(x, w, s), (0, 1))(x, w)
        monkeypatch.undo()
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_conv_accepts_zero_examples_or_filters(backend: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for channels in (1, 16):
        found = conv(jnp.ones((0, 5, 5, channels)), jnp.ones((3, 3, channels, 4)), 2)
        assert found.shape == (0, 3, 3, 4)
        assert conv(jnp.ones((2, 5, 5, channels)), jnp.ones((3, 3, channels, 0)), 2).shape == (2, 3, 3, 0)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("9.0", "pallas"), ("8.0", "pallas"), ("7.5", "patches"), ("gfx90a", "patches")],
)
def test_gpu_conv_selected_by_capability_and_environment(
    capability: str, expected: str, monkeypatch: pytest.MonkeyPatch
):
    """Pallas where it runs, unless the user says otherwise; a device of NVIDIA's tells what it can."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, w = jnp.ones((2, 4, 4, 16)), jnp.ones((3, 3, 16, 2))
    used = lambda: str(jax.make_jaxpr(lambda x, w: conv(x, w, 1))(x, w))
    assert " gpu_conv[" in used()
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    assert (" pallas_conv[" if expected == "pallas" else " gpu_conv[") in used()
    other = {"pallas": "patches", "patches": "pallas"}[expected]
    monkeypatch.setenv("INNERLOOP_GPU_CONVOLUTION", other)
    assert (" pallas_conv[" if other == "pallas" else " gpu_conv[") in used()
    monkeypatch.setenv("INNERLOOP_GPU_CONVOLUTION", "best")
    with pytest.raises(InnerloopError, match="INNERLOOP_GPU_CONVOLUTION: .* choose among: patches, pallas"):
        used()


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="later releases want to know which GPU")
@pytest.mark.parametrize("precision", ["highest", "tensorfloat32", "BF16_BF16_F32"])
def test_pallas_kernels_of_all_derivative_orders_lower_to_triton(
    precision: str, monkeypatch: pytest.MonkeyPatch
):
    """The three maps for several tasks: forward, gradients, and the gradient of those."""
    for module in (pallas_conv, pallas_window):
        monkeypatch.setattr(module, "interpreted", lambda: False)
    curved = lambda x, w: jnp.sum(jnp.sin(pallas_conv.conv_p.bind(x, w, stride=2, precision=precision)))
    slopes = lambda x, w: sum(jnp.vdot(a, a) for a in jax.grad(curved, (0, 1))(x, w))
    second = jax.jit(jax.vmap(jax.grad(slopes, (0, 1))))
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 5, 28, 28, 3), (4, 3, 3, 3, 64))]
    name = "__gpu$xla.gpu.triton"
    unchecked = [export.DisabledSafetyCheck.custom_call(name)]
    module = export.export(second, platforms=["cuda"], disabled_checks=unchecked)(*shapes).mlir_module()
    assert module.count(name) == 9
