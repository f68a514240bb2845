"""The result of `check_meta_gradient` in a sentence."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["exact", "first order", "displacement", "joint", "wrong"]


@dataclass(frozen=True)
class Findings:
    """The result of `check_meta_gradient` before it is put into words.

    Attributes:
        constant: whether the objective depends on no parameter.
        sound: whether automatic differentiation of the objective is right.
        worst: the direction of the largest error.
        error: the relative error there; `unsure` is its uncertainty.
        silent: parameters without a gradient that the objective depends on; `unused`: those that it does not.
    """

    kind: Kind
    constant: bool
    sound: bool
    worst: str
    error: float
    unsure: float
    angle: float
    ratio: float
    silent: tuple[str, ...]
    unused: tuple[str, ...]


def verdict(f: Findings) -> str:
    """The findings in a sentence."""
    if f.constant:
        return "the query loss depends on no parameter (is it rounded, or cut off from all of them?)"
    tail = f"; the objective does not depend on {', '.join(f.unused)}" if f.unused else ""
    if f.kind == "exact":
        digits = int(-math.log10(max(f.error, 1e-12)))
        return f"the meta-gradient agrees with finite differences to {digits} digits{tail}"
    if f.kind != "wrong":
        return _sentence(f.kind, f.error, f.angle, f.ratio) + tail
    if f.unsure > f.error / 3:
        return (
            f"undecided at `{f.worst}`: finite differences are themselves uncertain by {f.unsure:.0%} there "
            f"(kinks such as ReLU and max-pooling, or float32 inside the loss){tail}"
        )
    return f"{_difference(f)}{tail}"


def _difference(f: Findings) -> str:
    """How wrong a gradient of unknown kind is, and where to look."""
    silent = f"; no gradient flows to {', '.join(f.silent)}" if f.silent else ""
    suspects = (
        "a missing second derivative or another loss on the query set"
        if f.sound
        else "a custom derivative, or a kink inside the loss; jax.grad of the objective is just as wrong"
    )
    return (
        f"the meta-gradient differs from finite differences by {f.error:.2g} at `{f.worst}`{silent}: "
        f"look for stop_gradient, {suspects}"
    )


def _sentence(kind: Kind, error: float, angle: float, ratio: float) -> str:
    """Describe a gradient of a known kind, and its distance from the meta-gradient."""
    what = {
        "first order": "a first-order gradient: the query gradient at the adapted parameters, without second "
        "derivatives (right for FOMAML; for MAML, look for stop_gradient in the inner loop)",
        "joint": "the query gradient before adaptation (right for joint training)",
        "displacement": "the displacement of the inner loop (right for Reptile)",
    }[kind]
    if math.isnan(angle):
        return f"{what}; it differs from finite differences by {error:.2g}"
    return f"{what}; {angle:.2g} degrees from the meta-gradient and {ratio:.3g} times its length"
