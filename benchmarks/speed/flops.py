r"""Floating-point operations of a meta-step, computed from its shapes: products of convolutions and linear layers.

A layer's forward product costs P = 2 x examples x positions x (inputs per window) x filters. Each derivative of a
product is a product of the same size. The first layer's input is data and needs no derivative:

                                                                          first layer    others
    a loss and its gradient (FOMAML, a query set)                             2P           3P
    backward through that: two products for each of those, none for data      2P           6P

ANIL runs the body forward and backward once on the support set, and only the head at every step. Normalisation, pooling
and activations are omitted: their operations are few, although their time is not. Recomputation to save memory is not
counted either, so the count is the same for every contender.
"""

from benchmarks.speed.workloads import Workload


def layer_products(w: Workload, examples: int) -> list[int]:
    """P of every layer on `examples` examples, the head last."""
    if w.image is None:
        widths = (1, *w.hidden, 1)
        return [2 * examples * a * b for a, b in zip(widths, widths[1:], strict=False)]
    height, width, channels = w.image
    products = []
    for _ in range(4):
        if w.downsample == "stride":
            height, width = -(-height // 2), -(-width // 2)
        products.append(2 * examples * height * width * 9 * channels * w.filters)
        if w.downsample == "pool":
            height, width = height // 2, width // 2
        channels = w.filters
    features = w.filters * (1 if w.features == "mean" else height * width)
    return [*products, 2 * examples * features * w.ways]


def gradient(products: list[int]) -> int:
    """A loss and its gradient with respect to all parameters."""
    return 2 * products[0] + 3 * sum(products[1:])


def through_gradient(products: list[int]) -> int:
    """The backward pass through that gradient."""
    return 2 * products[0] + 6 * sum(products[1:])


def task(w: Workload) -> int:
    """One task's meta-gradient."""
    support = layer_products(w, w.support)
    query = gradient(layer_products(w, w.query))
    if w.algorithm == "anil":
        body, head = support[:-1], support[-1]
        # At every step: the head's product and its weights' gradient, then both derivatives of each of the two.
        return gradient(body) + w.steps * (2 + 4) * head + query
    inner = gradient(support) + (through_gradient(support) if w.algorithm == "maml" else 0)
    return w.steps * inner + (query if w.query else 0)


def meta_step(w: Workload) -> int:
    """All tasks of one meta-step; 0 for workloads that do not train."""
    return w.tasks * task(w) if w.kind == "training" else 0
