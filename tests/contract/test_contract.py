"""Every algorithm with every inner rule keeps the contract; and the contract catches what breaks it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop import algorithms
from innerloop.algorithms.algorithm import Algorithm
from innerloop.testing import check_algorithm

RULES = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.chain(optax.clip(1.0), optax.sgd(optax.linear_schedule(0.1, 0.0, 5), 0.9)),
    "adam": lambda: optax.adam(0.05, b1=0.0, eps_root=1e-12),
}


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", algorithms.__all__)
def test_every_algorithm_with_every_rule(name: str, rule: str):
    make = getattr(algorithms, name)
    by_number = (lambda loss, inner: make(loss, inner, head="1")) if name in ("anil", "boil") else None
    both = (jnp.float32, jnp.float64) if rule == "sgd" else (jnp.float32,)
    check_algorithm(make, rule=RULES[rule](), zero_steps=name != "reptile", tuple_make=by_number, dtypes=both)


def altered(change) -> object:
    """An algorithm like MAML, but for `change(algorithm) -> Algorithm`."""
    return lambda loss, inner: change(algorithms.fomaml(loss, inner))


def with_grads(change):
    def make(a: Algorithm) -> Algorithm:
        def meta_grad(params, task):
            grads, info = a.meta_grad(params, task)
            return change(grads), info

        return Algorithm(a.adapt, meta_grad)

    return altered(make)


def renamed(a: Algorithm) -> Algorithm:
    return Algorithm(lambda theta, support: a.adapt(theta, support), a.meta_grad)


def restless(a: Algorithm) -> Algorithm:
    """Every call is another function of its arguments."""
    calls: list[int] = []

    def adapt(params, support):
        calls.append(0)
        return jax.tree.map(lambda x: x + len(calls), a.adapt(params, support))

    return Algorithm(adapt, a.meta_grad)


def forgetful(a: Algorithm) -> Algorithm:
    """Draws a number outside of its arguments at every call."""
    rng = np.random.default_rng(0)

    def meta_grad(params, task):
        grads, info = a.meta_grad(params, task)
        drawn = jax.pure_callback(
            lambda _: np.float32(rng.normal()), jax.ShapeDtypeStruct((), np.float32), info.outer_loss
        )
        return grads, info._replace(outer_loss=info.outer_loss + drawn)

    return Algorithm(a.adapt, meta_grad)


def odd_losses(a: Algorithm) -> Algorithm:
    def meta_grad(params, task):
        grads, info = a.meta_grad(params, task)
        return grads, info._replace(inner_losses=jnp.zeros((3, 3)))

    return Algorithm(a.adapt, meta_grad)


BROKEN = {
    r"takes \['theta', 'support'\]": altered(renamed),
    "0 steps moved the parameters": altered(restless),
    "the same inputs gave other bits": altered(forgetful),
    "another tree": with_grads(lambda g: {"all": g}),
    "shape .* for parameters": with_grads(lambda g: jax.tree.map(lambda x: x[None], g)),
    "is float16 for parameters of float32": with_grads(
        lambda g: jax.tree.map(lambda x: x.astype(jnp.float16), g)
    ),
    "not finite": with_grads(lambda g: jax.tree.map(lambda x: x / 0, g)),
    "not one loss per inner step": altered(odd_losses),
    "refuses an inner loop of 0 steps": algorithms.reptile,
}


@pytest.mark.parametrize("message", BROKEN)
def test_the_contract_catches(message: str):
    with pytest.raises(AssertionError, match=message):
        check_algorithm(BROKEN[message], dtypes=(jnp.float32,))


def test_adam_needs_eps_root():
    """Its sqrt has no derivative at zero: the reason why the experiments' Adam has one where it is differentiated."""
    with pytest.raises(AssertionError, match="eps_root"):
        check_algorithm(algorithms.maml, rule=optax.adam(0.1), dtypes=())


def test_accepting_zero_steps_must_be_said():
    with pytest.raises(AssertionError, match="accepts an inner loop of 0 steps"):
        check_algorithm(algorithms.maml, zero_steps=False)
