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

Settings = dict[str, Callable[[tuple[int, ...]], object]]
CONV_KERNEL: Settings = {"kernel": lambda shape: shape[-4]}
CONV_INPUTS: Settings = {"places": lambda shape: shape[-3:-1]}


def bilinear_maps(
    name: str,
    product: Callable[..., Array],
    kernel_gradient: Callable[..., Array],
    input_gradient: Callable[..., Array],
    separately: Callable[..., Array],
    *shared: str,
    of_kernel: Settings = CONV_KERNEL,
    of_inputs: Settings = CONV_INPUTS,
    kernel_rank: int = 4,
) -> Primitive:
    """The product `bind(x, w, **shared)`, whose derivatives are the three maps.

    Args:
        name: the name of the primitives in printed programs.
        product: `product(x, w, **shared)`.
        kernel_gradient: `kernel_gradient(x, y, **shared, **of_kernel)`, for kernels of this size.
        input_gradient: `input_gradient(y, w, **shared, **of_inputs)`, for inputs of this size.
        separately: `separately(primitive, first, second, **static)`, each of the three under `vmap`, along the first
            axis of both arguments; not used if all share one kernel.
        shared: keyword arguments of all three.
        of_kernel: further keyword arguments by name, each a function of the kernel's shape.
        of_inputs: the same of the shape of the inputs.
        kernel_rank: the rank of a kernel.
    """
    product_p = primitive(name, product, *shared)
    kernel_p = primitive(f"{name}_kernel_gradient", kernel_gradient, *shared, *of_kernel)
    input_p = primitive(f"{name}_input_gradient", input_gradient, *shared, *of_inputs)
    only = lambda given: {name: given[name] for name in shared}
    sizes = lambda of, like: {name: size(like.aval.shape) for name, size in of.items()}
    by_x = lambda y, w, x, given: input_p.bind(y, w, **only(given), **sizes(of_inputs, x))
    by_w = lambda x, y, w, given: kernel_p.bind(x, y, **only(given), **sizes(of_kernel, w))
    whole = lambda x, w, given: product_p.bind(x, w, **only(given))
    ad.defbilinear(
        product_p, lambda ct, x, w, **g: by_x(ct, w, x, g), lambda ct, x, w, **g: by_w(x, ct, w, g)
    )
    ad.defbilinear(kernel_p, lambda ct, x, y, **g: by_x(y, ct, x, g), lambda ct, x, y, **g: whole(x, ct, g))
    ad.defbilinear(input_p, lambda ct, y, w, **g: whole(ct, w, g), lambda ct, y, w, **g: by_w(ct, y, w, g))
    for made, rank in ((product_p, kernel_rank), (input_p, kernel_rank), (kernel_p, None)):
        batching.primitive_batchers[made] = batching_rule(made, rank, separately)
    return product_p
