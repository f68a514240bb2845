"""What is counted in a compiled program: by hand, against the mathematics, and as a bound on the code of a GPU."""

import jax
import jax.numpy as jnp
import pytest
from benchmarks.gpu.cases import cases
from benchmarks.programs.cost import Cost, cost_of
from benchmarks.programs.counts import count, counts_table
from benchmarks.programs.hlo import bytes_of, parse
from benchmarks.speed import flops

HEAD = "HloModule m\n\n"
SLICED = """%fused (param_0: f32[100,8], param_1: s32[]) -> f32[1,8] {
  %param_0 = f32[100,8]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %whole = f32[100,8]{1,0} bitcast(%param_0)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,8]{1,0} dynamic-slice(%whole, %param_1, %zero), dynamic_slice_sizes={1,8}
}

"""
UPDATED = """%fused (param_0: f32[100,8], param_1: f32[1,8], param_2: s32[]) -> f32[100,8] {
  %param_0 = f32[100,8]{1,0} parameter(0)
  %param_1 = f32[1,8]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %put = f32[100,8]{1,0} dynamic-update-slice(%param_0, %param_1, %param_2, %zero)
}

"""
LIBRARY = """ENTRY %main (a: f32[4,6], b: f32[6,8]) -> f32[4,8] {
  %a = f32[4,6]{1,0} parameter(0)
  %b = f32[6,8]{1,0} parameter(1)
  %gemm = (f32[4,8]{1,0}, s8[4194304]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  ROOT %result = f32[4,8]{1,0} get-tuple-element(%gemm), index=0
}
"""


def entry(fusion: str, result: str) -> str:
    """A program of one fusion on the arrays above."""
    return f"""ENTRY %main (x: f32[100,8], y: f32[1,8], i: s32[]) -> {result} {{
  %x = f32[100,8]{{1,0}} parameter(0)
  %y = f32[1,8]{{1,0}} parameter(1)
  %i = s32[] parameter(2)
  ROOT %made = {result}{{1,0}} {fusion}, kind=kLoop, calls=%fused
}}
"""


def compiled(function, *arguments) -> Cost:
    return cost_of(jax.jit(function).lower(*arguments).compile().as_text() or "")


def test_bytes_of_shapes():
    assert bytes_of("(s32[], f32[3,4]{1,0}, /*index=2*/bf16[5]{0}, pred[2])") == 4 + 48 + 10 + 2
    assert bytes_of("token[]") == 0


def test_slices_and_in_place_updates_count_only_slice_bytes():
    sliced = HEAD + SLICED + entry("fusion(%x, %i)", "f32[1,8]")
    assert cost_of(sliced) == Cost(kernels=1, bytes=32 + 4 + 32)
    updated = HEAD + UPDATED + entry("fusion(%x, %y, %i)", "f32[100,8]")
    assert cost_of(updated) == Cost(kernels=1, bytes=32 + 4 + 32)


def test_library_product_excludes_workspace_bytes():
    assert cost_of(HEAD + LIBRARY) == Cost(kernels=1, bytes=4 * (24 + 48 + 32), operations=2 * 4 * 6 * 8)


def test_operands_are_parsed_with_or_without_shapes():
    bare = HEAD + LIBRARY.replace("%", "")
    shaped = HEAD + LIBRARY.replace("custom-call(%a, %b)", "custom-call(f32[4,6]{1,0} %a, f32[6,8]{1,0} %b)")
    assert cost_of(bare) == cost_of(shaped) == cost_of(HEAD + LIBRARY)
    assert parse(shaped).computations["main"].instructions["gemm"].operands == ("a", "b")


def test_loop_body_is_counted_per_iteration():
    x = jnp.ones((16, 16))
    chain = lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c @ x), None), x, None, length=7)[0]
    found = compiled(chain, x)
    assert found.operations == 7 * 2 * 16**3
    assert found.loops == 7
    assert found.kernels >= 7


def test_convolution_operations_by_hand():
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    conv = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert compiled(conv, x, w).operations == 2 * (2 * 6 * 6) * 9 * 3 * 5


BOUNDS = {"sinusoid": Cost(443, 19, 43.3e3), "omniglot": Cost(1162, 31, 2.14e6)}
"""Kernels, loop passes and bytes of a meta-step of GPU code, tiny shapes; as measured, and two percent."""


@pytest.mark.parametrize("name", BOUNDS)
def test_gpu_program_cost_stays_within_bounds(name: str):
    """Its products are those of the mathematics; a bound that is passed is a regression.

    A product with a single row or column is no product to XLA, and a network from one number to one has some.
    """
    w = cases(dry=True, names=(name,))[0].workload
    found, bound = count(w, "gpu"), BOUNDS[name]
    assert found.operations == flops.meta_step(w) or (
        w.image is None and found.operations < flops.meta_step(w)
    )
    assert 0.8 * bound.kernels < found.kernels <= bound.kernels
    assert 0.8 * bound.bytes < found.bytes <= bound.bytes
    assert found.loops <= bound.loops
    assert f"| {name} | gpu | {found.kernels:.0f} |" in counts_table({(name, "gpu"): found})
