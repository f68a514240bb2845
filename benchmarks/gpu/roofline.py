"""Lower bounds on a program's time: its bytes at the copy rate and its products at the product rate."""

from typing import Any


def roofline(cost: dict[str, float], precision: str, rates: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Both times, the larger of which is the bound, and the bound as a share of the measured time.

    cost: `bytes` and `operations` of the program that takes `seconds`; rates: `copy` in bytes per second, and
    `products` by precision in operations per second.
    """
    memory, products = cost["bytes"] / rates["copy"], cost["operations"] / rates["products"][precision]
    return {
        "copy_ms": 1e3 * memory,
        "product_ms": 1e3 * products,
        "bound_by": "memory" if memory > products else "products",
        "share": max(memory, products) / seconds,
    }
