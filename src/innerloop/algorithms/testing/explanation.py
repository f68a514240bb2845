"""The result of `check_meta_gradient` in a sentence."""

import math
from typing import TYPE_CHECKING

from innerloop.io.text import counted

if TYPE_CHECKING:
    from innerloop.algorithms.testing.meta_gradient import MetaGradientCheck


def verdict(check: "MetaGradientCheck", worst: str, cause: str = "") -> str:
    """The result in a sentence.

    Args:
        check: the result.
        worst: the direction of the largest error.
        cause: the cause of another gradient than the meta-gradient, if it is known.
    """
    tail = f"; the objective does not depend on {', '.join(check.unused)}" if check.unused else ""
    if check.kind == "exact":
        digits = int(-math.log10(max(check.relative_error, 1e-12)))
        return f"the meta-gradient agrees with finite differences to {counted(digits, 'digit')}{tail}"
    if check.kind != "wrong" and not cause:
        return _describe(check) + tail
    if check.uncertainty > check.relative_error / 3:
        return (
            f"undecided at `{worst}`: finite differences are themselves uncertain by {check.uncertainty:.0%} there "
            f"(kinks such as ReLU and max-pooling, or float32 inside the loss){tail}"
        )
    return f"{_difference(check, worst, cause)}{tail}"


def _difference(check: "MetaGradientCheck", worst: str, cause: str) -> str:
    """How wrong a gradient is, and why or where to look."""
    suspects = (
        "a custom derivative, or a kink inside the loss; jax.grad of the objective does not agree either, "
        "or does not exist"
        if math.isnan(check.angle)
        else "a missing second derivative or another loss on the query set"
    )
    silent = f"; no gradient flows to {', '.join(check.no_gradient)}" if check.no_gradient else ""
    distance = f"{check.relative_error:.2g} at `{worst}`{silent}"
    why = cause or f"look for stop_gradient, {suspects}"
    return f"the meta-gradient differs from finite differences by {distance}: {why}"


def _describe(check: "MetaGradientCheck") -> str:
    """Describe a gradient of a known kind, and its distance from the meta-gradient."""
    what = {
        "first order": "a first-order gradient: the query gradient at the adapted parameters, without second "
        "derivatives (right for FOMAML; for MAML, look for stop_gradient in the inner loop)",
        "joint": "the query gradient before adaptation (right for joint training)",
        "displacement": "the displacement of the inner loop (right for Reptile)",
    }[check.kind]
    if math.isnan(check.angle):
        return f"{what}; it differs from finite differences by {check.relative_error:.2g}"
    return f"{what}; {check.angle:.2g} degrees from the meta-gradient and {check.ratio:.3g} times its length"
