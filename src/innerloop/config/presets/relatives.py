"""Variants of MAML whose presets are MAML's with another algorithm and inner loop."""

from collections.abc import Callable
from dataclasses import replace

from innerloop.config.schema import Config, InnerConfig


def meta_sgd(maml: Config) -> Config:
    """One step, with initial step sizes in the middle of the paper's U(0.005, 0.1)."""
    return _changed(maml, "meta_sgd", InnerConfig(steps=1, learning_rate=0.05))


def maml_plus_plus(maml: Config) -> Config:
    """Five steps; in the first tenth of the updates (published code) the query loss after every step counts.

    Two steps on sinusoids, which are not in the paper: with five, training diverges after a few thousand updates, even
    with clipped gradients and smaller outer steps.
    """
    early = maml.outer.meta_steps // 10
    steps, rate = (5, 0.1) if maml.data.spec.kind == "images" else (2, 0.001)
    inner = InnerConfig(steps=steps, learning_rate=rate, multi_step_updates=early)
    return _changed(maml, "maml_plus_plus", inner)


def cavia(maml: Config) -> Config:
    """One step of size 1 on four context parameters."""
    found = _changed(maml, "cavia", InnerConfig(steps=1, learning_rate=1.0))
    return replace(found, model=replace(maml.model, context=4))


def protomaml(maml: Config) -> Config:
    """As many steps as MAML, but smaller ones, since the head is good from the start."""
    found = replace(maml, algorithm="protomaml", inner=replace(maml.inner, learning_rate=0.1))
    return replace(found, evaluation=replace(maml.evaluation, steps=maml.inner.steps))


def imaml(maml: Config) -> Config:
    """16 steps (25 for 20 ways) of size 0.1; lambda is 2 for drawings and 0.5 for photographs."""
    steps, proximal = 25 if maml.data.ways == 20 else 16, 2.0 if maml.data.spec.drawings else 0.5
    return _changed(maml, "imaml", InnerConfig(steps=steps, learning_rate=0.1, proximal=proximal))


def _changed(maml: Config, algorithm: str, inner: InnerConfig) -> Config:
    """The config with another algorithm and inner loop, with the same number of steps at test."""
    evaluation = replace(maml.evaluation, steps=inner.steps)
    return replace(maml, algorithm=algorithm, inner=inner, evaluation=evaluation)


RELATIVES: dict[str, Callable[[Config], Config]] = {
    "meta-sgd": meta_sgd,
    "maml-plus-plus": maml_plus_plus,
    "protomaml": protomaml,
    "imaml": imaml,
}
"""By the suffix of the preset's name: the function from MAML's preset on the same tasks."""
