r"""A convolution whose derivatives of every order are three fast kernels, each the derivative of the other two.

    <conv(x, w), y> = <w, kernel_gradient(x, y)> = <x, input_gradient(y, w)>

All three are bilinear, so every derivative of each is again one of the three. First, second and higher orders, forward
and reverse, run the same hand-picked code and never XLA's own derivatives of a convolution, whose second order is
slower by a factor of two to ten or more. They are JAX primitives because no other kind of JAX rule supports forward
over reverse over reverse.

The code depends on the processor: see `cpu_conv` and `gpu_conv`.
"""

from collections.abc import Callable

from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jaxtyping import Array

from innerloop.nn.kernels.primitives import batching_rule, primitive


def bilinear_conv(
    name: str,
    conv: Callable[..., Array],
    kernel_gradient: Callable[..., Array],
    input_gradient: Callable[..., Array],
    separately: Callable[..., Array],
    *settings: str,
) -> Primitive:
    """The convolution `bind(x, w, stride=)`, whose derivatives are the three maps.

    Args:
        name: the name of the primitives in printed programs.
        conv: `conv(x, w, *, stride)`.
        kernel_gradient: `kernel_gradient(x, y, *, stride, kernel)`, for kernels of this size.
        input_gradient: `input_gradient(y, w, *, stride, places)`, for images of this height and width.
        separately: `separately(primitive, first, second, **static)`, each of the three under `vmap`, along the first
            axis of both arguments; not used if all share one kernel.
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
    for made, kernel_rank in ((conv_p, 4), (input_p, 4), (kernel_p, None)):
        batching.primitive_batchers[made] = batching_rule(made, kernel_rank, separately)
    return conv_p
