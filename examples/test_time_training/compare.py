"""The four models on the same text: the loss of every byte of held-out pieces."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import optax
from jaxtyping import Float, PyTree

from .algorithm import clipped, test_time_training
from .training import DYNAMIC_RATES, Setting, losses, train

Losses = dict[str, Float[np.ndarray, "pieces positions"]]


@cache
def window_model(a: Setting, seed: int) -> PyTree:
    """The parameters of the model that is not adapted."""
    return train(test_time_training(optax.set_to_zero(), a.sizes), a, seed)


def window_alone(a: Setting, seed: int) -> Losses:
    """The window alone."""
    return {"window alone": losses(optax.set_to_zero, a, window_model(a, seed))}


def dynamic_evaluation(a: Setting, seed: int) -> Losses:
    """The same model, adapted at test nevertheless."""
    params, found = window_model(a, seed), {}
    for rate in DYNAMIC_RATES:
        found[rate] = losses(clipped, a, params, rate)
        print(f"    step size {rate:g}: loss {found[rate].mean(dtype=np.float64):.4f}", flush=True)
    return {"dynamic evaluation": min(found.values(), key=np.mean)}


def meta_learned(a: Setting, seed: int) -> Losses:
    """Test-time training."""
    params = train(test_time_training(clipped(a.rate), a.sizes), a, seed)
    return {"test-time training": losses(clipped, a, params, a.rate)}


def full_attention(a: Setting, seed: int) -> Losses:
    """Every byte sees all bytes before it."""
    wide = replace(a, sizes=replace(a.sizes, window=a.sizes.context))
    params = train(test_time_training(optax.set_to_zero(), wide.sizes), wide, seed)
    return {"full attention": losses(optax.set_to_zero, wide, params)}


MODELS: dict[str, Callable[[Setting, int], Losses]] = {
    "window": window_alone,
    "dynamic-evaluation": dynamic_evaluation,
    "test-time-training": meta_learned,
    "full-attention": full_attention,
}


def compare(a: Setting, seed: int, names: list[str], keep: Path | None) -> Losses:
    """The losses of the named models; those that the folder `keep` holds for the same setting are reused."""
    found: Losses = {}
    for name in names:
        print(f"  {name}", flush=True)
        file = keep and keep / f"{name}-seed{seed}-{a.digest}.npz"
        if file and file.exists():
            with np.load(file) as kept:
                found |= dict(kept)
            continue
        found |= (made := MODELS[name](a, seed))
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            with (partial := file.with_suffix(".partial")).open("wb") as out:
                np.savez(out, **made)  # pyright: ignore[reportArgumentType]
            partial.replace(file)
    return found
