"""Relatives of MAML whose presets are MAML's with another algorithm and inner loop."""

from collections.abc import Callable
from dataclasses import replace

from innerloop.config.schema import Config, InnerConfig


def meta_sgd(maml: Config) -> Config:
    """One step, whose step sizes begin in the middle of the paper's U(0.005, 0.1)."""
    return _changed(maml, "meta_sgd", InnerConfig(steps=1, learning_rate=0.05))


def maml_plus_plus(maml: Config) -> Config:
    """Five steps; in the first tenth of the updates (published code) the query loss after each of them counts.

    On sinusoids, which the paper does not have, two steps: with five, trainings diverge after some thousand updates,
    also with clipped gradients and smaller outer steps.
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
    """MAML's steps; shorter ones, as the head is a good one from the start."""
    found = replace(maml, algorithm="protomaml", inner=replace(maml.inner, learning_rate=0.1))
    return replace(found, evaluation=replace(maml.evaluation, steps=maml.inner.steps))


def imaml(maml: Config) -> Config:
    """Sixteen steps, 25 for 20 ways, of 0.1; the pull is 2 on drawings and 0.5 on photographs."""
    steps, proximal = 25 if maml.data.ways == 20 else 16, 2.0 if maml.data.spec.drawings else 0.5
    return _changed(maml, "imaml", InnerConfig(steps=steps, learning_rate=0.1, proximal=proximal))


def _changed(maml: Config, algorithm: str, inner: InnerConfig) -> Config:
    """The config with another algorithm and inner loop, of as many steps at test."""
    evaluation = replace(maml.evaluation, steps=inner.steps)
    return replace(maml, algorithm=algorithm, inner=inner, evaluation=evaluation)


RELATIVES: dict[str, Callable[[Config], Config]] = {
    "meta-sgd": meta_sgd,
    "maml-plus-plus": maml_plus_plus,
    "protomaml": protomaml,
    "imaml": imaml,
}
"""By the end of the preset's name: from MAML's preset on the same tasks."""
