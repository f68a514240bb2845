"""The shapes and precisions to time the Pallas kernels' tiles on."""

SHAPES = {
    "deep-narrow": [(4, 75, 42, 32, 32, 1)],
    "deep-wide": [(32, 75, 14, 64, 64, 2)],
    "flat-narrow": [(4, 75, 84, 3, 32, 1)],
    "flat-wide": [(32, 75, 28, 1, 64, 2)],
}
"""Tasks, examples, side, channels, filters and stride of the workloads' largest layers, by kind."""

MAPS = ("conv", "kernel_gradient", "input_gradient")
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}
"""Precisions with separate tiles, and their names in `jax.default_matmul_precision`."""

ALLOWED = {"float32": 1e-5, "tf32": 2e-3}
"""Largest relative error of a correct result."""
