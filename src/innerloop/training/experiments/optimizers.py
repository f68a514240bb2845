"""Builds the inner loop and the optimisers of both loops from a config."""

from typing import Any

import optax

from innerloop.config.schema import InnerConfig, OuterConfig
from innerloop.engine.inner.inner_loop import InnerLoop
from innerloop.engine.outer.persistent_adam import persistent_adam


def inner_loop(c: InnerConfig, differentiated: bool = False, learned_rates: bool = False) -> InnerLoop:
    """The inner loop that a config describes; learned step sizes multiply the updates of its rule."""
    rule = inner_rule(c.optimizer, 1.0 if learned_rates else c.learning_rate, differentiated)
    return InnerLoop(
        rule,
        c.steps,
        minibatch=c.minibatch,
        derivative=c.derivative,
        checkpoints=c.checkpoints,
        offload=c.offload,
    )


def inner_rule(name: str, rate: Any, differentiated: bool = False) -> optax.GradientTransformation:
    """The inner rule of this name with a step size (or a schedule, except for `persistent_adam`).

    Adam divides by sqrt(nu), whose derivative is infinite at nu = 0 (a dead ReLU), so that the meta-gradient through it
    is NaN. If the loop is differentiated, eps_root keeps the derivative below 1e6; otherwise Adam is as published.
    """
    if name == "sgd":
        return optax.sgd(rate)
    if name == "adam":
        return optax.adam(rate, b1=0.0, eps_root=1e-12 if differentiated else 0.0)
    return persistent_adam(rate)


def decay_schedule(decay: str, begin: float, steps: int) -> Any:
    """A schedule that starts at `begin` and decays to 0 over `steps`, or a constant."""
    steps = max(steps, 1)  # Optax has no schedule over 0 steps
    if decay == "linear":
        return optax.linear_schedule(begin, 0.0, steps)
    return optax.cosine_decay_schedule(begin, steps) if decay == "cosine" else begin


def outer_optimizer(c: OuterConfig) -> optax.GradientTransformation:
    """The outer optimiser that a config describes."""
    rate = decay_schedule(c.decay, c.learning_rate, c.meta_steps)
    rule = optax.adam(rate) if c.optimizer == "adam" else optax.sgd(rate)
    return rule if c.clip is None else optax.chain(optax.clip(c.clip), rule)
