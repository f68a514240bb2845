"""The least time that a program could take on its device: its bytes at the rate of a copy, its products at theirs."""

from typing import Any


def roofline(cost: dict[str, float], precision: str, rates: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Both times, the larger of which is the bound, and the bound as a share of the measured time.

    cost: `bytes` and `operations` of what takes `seconds`; rates: `copy` in bytes a second, and `products` by precision
    in operations a second.
    """
    memory, products = cost["bytes"] / rates["copy"], cost["operations"] / rates["products"][precision]
    return {
        "copy_ms": 1e3 * memory,
        "product_ms": 1e3 * products,
        "bound_by": "memory" if memory > products else "products",
        "share": max(memory, products) / seconds,
    }
