r"""A convolution whose derivatives of every order are three fast kernels, each the derivative of the other two.

    <conv(x, w), y> = <w, kernel_gradient(x, y)> = <x, input_gradient(y, w)>

All three are bilinear, so every derivative of each is again one of the three. First, second and higher orders, forward
and reverse, run the same hand-picked code and never XLA's own derivatives of a convolution, whose second order is
slower by a factor of two to ten or more. They are JAX primitives because no other kind of JAX rule supports forward
over reverse over reverse.

The code depends on the processor: see `cpu_conv` and `gpu_conv`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array

from innerloop.nn.kernels.primitives import primitive

Arrays = tuple[Array, Array]
Axes = tuple[int | None, int | None]
Batching = Callable[[Primitive, bool], Callable[..., tuple[Array, int]]]
"""`batched(primitive, shares_kernel)` makes the `vmap` rule of a map, as for `bilinear_conv`."""


def bilinear_conv(
    name: str,
    conv: Callable[..., Array],
    kernel_gradient: Callable[..., Array],
    input_gradient: Callable[..., Array],
    batched: Batching,
    *settings: str,
) -> Primitive:
    """The convolution `bind(x, w, stride=)`, whose derivatives are the three maps.

    Args:
        name: the name of the primitives in printed programs.
        conv: `conv(x, w, *, stride)`.
        kernel_gradient: `kernel_gradient(x, y, *, stride, kernel)`, for kernels of this size.
        input_gradient: `input_gradient(y, w, *, stride, places)`, for images of this height and width.
        batched: `batched(primitive, shares_kernel)` makes the `vmap` rule; with `shares_kernel`, the second argument
            is a kernel, which additional examples may share.
        settings: further keyword arguments of all three.
    """
    conv_p = primitive(name, conv, "stride", *settings)
    kernel_p = primitive(f"{name}_kernel_gradient", kernel_gradient, "stride", "kernel", *settings)
    input_p = primitive(f"{name}_input_gradient", input_gradient, "stride", "places", *settings)

    def by_x(y: Array, w: Array, shape: tuple[int, ...], **more: object) -> Array:
        return input_p.bind(y, w, places=shape[-3:-1], **more)

    def by_w(x: Array, y: Array, shape: tuple[int, ...], **more: object) -> Array:
        return kernel_p.bind(x, y, kernel=shape[-4], **more)

    ad.defbilinear(
        conv_p,
        lambda ct, x, w, **more: by_x(ct, w, x.aval.shape, **more),
        lambda ct, x, w, **more: by_w(x, ct, w.aval.shape, **more),
    )
    ad.defbilinear(
        kernel_p,
        lambda ct, x, y, kernel, **more: by_x(y, ct, x.aval.shape, **more),
        lambda ct, x, y, kernel, **more: conv_p.bind(x, ct, **more),
    )
    ad.defbilinear(
        input_p,
        lambda ct, y, w, places, **more: conv_p.bind(ct, w, **more),
        lambda ct, y, w, places, **more: by_w(ct, y, w.aval.shape, **more),
    )
    for made, shares_kernel in ((conv_p, True), (input_p, True), (kernel_p, False)):
        batching.primitive_batchers[made] = batched(made, shares_kernel)
    return conv_p


def more_examples(made: Primitive, arrays: Arrays, axis: int, **static: object) -> tuple[Array, int]:
    """A map under `vmap` if all share one kernel: the batch becomes more examples."""
    first = jnp.moveaxis(arrays[0], axis, 0)
    out = made.bind(first.reshape(-1, *first.shape[2:]), arrays[1], **static)
    return out.reshape(*first.shape[:2], *out.shape[1:]), 0
