"""Every algorithm with every inner rule keeps the contract; and the contract catches what breaks it."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from innerloop import algorithms
from innerloop.algorithms.fomaml import FOMAML
from innerloop.algorithms.testing.contract import check_algorithm
from innerloop.config.specs import ALGORITHMS
from innerloop.engine.outer.persistent_adam import persistent_adam

RULES = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.chain(optax.clip(1.0), optax.sgd(optax.linear_schedule(0.1, 0.0, 5), 0.9)),
    "adam": lambda: optax.adam(0.05, b1=0.0, eps_root=1e-12),
}


PLAIN = [name for name, spec in ALGORITHMS.items() if spec.policies]
"""Those that differ from MAML by what they differentiate and what they move: every rule is tested with them."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_algorithms_keep_contract_with_each_rule(name: str, rule: str):
    spec = ALGORITHMS[name]
    by_number = lambda loss, inner: spec.make(loss, inner, head="1")
    both = (jnp.float32, jnp.float64) if rule == "sgd" else (jnp.float32,)
    check_algorithm(
        spec.make, rule=RULES[rule](), zero_steps=name != "reptile", tuple_make=by_number, dtypes=both
    )


def embed(params: Any, x: jax.Array) -> jax.Array:
    """The features of the contract's networks."""
    body = (
        params["body"] if isinstance(params, dict) else dict(zip(("weight", "bias"), params[0], strict=True))
    )
    return jnp.tanh(x @ body["weight"] + body["bias"])


def with_head(params: Any, weight: jax.Array, bias: jax.Array) -> Any:
    if isinstance(params, dict):
        return params | {"head": {"weight": weight, "bias": bias}}
    return params[0], (weight, bias)


MORE: dict[str, dict[str, Any]] = {
    "meta_sgd": {},
    "maml_plus_plus": {"multi_step_updates": 3, "first_order_updates": 2, "update": 1},
    "imaml": {},
    "protomaml": {"ways": 2, "embed": embed, "with_head": with_head},
    "cavia": {"context": "head"},
    "online_maml": {},
}
"""What else there is, with its options."""


@pytest.mark.parametrize("name", MORE)
def test_remaining_algorithms_keep_contract(name: str):
    options, constructor = dict(MORE[name]), getattr(algorithms, name)
    at = options.pop("update", None)

    def make(loss, inner, **others: Any):
        made = constructor(loss, inner, **options | others)
        return made if at is None else made.at(jnp.asarray(at))

    tuples = (lambda loss, inner: make(loss, inner, context="1")) if "context" in options else None
    rule = RULES["momentum"]()
    check_algorithm(
        make, rule=rule, zero_steps=name != "online_maml", classes="ways" in options, tuple_make=tuples
    )


def test_contract_tests_cover_all_algorithms():
    assert {*PLAIN, *MORE} == set(algorithms.__all__)


def test_reptile_with_persistent_adam_keeps_contract():
    """Meta-parameters that hold more than the model's parameters keep the contract too."""
    check_algorithm(algorithms.reptile, rule=persistent_adam(0.01), zero_steps=False, dtypes=(jnp.float32,))


def with_grads(change) -> object:
    """First-order MAML with another gradient."""

    class Altered(FOMAML):
        def meta_grad(self, meta_params, task, *, key=None):
            grads, info = super().meta_grad(meta_params, task)
            return change(grads), info

    return Altered


class Renamed(FOMAML):
    def adapt(self, theta, support, *, key=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().adapt(theta, support)


class Restless(FOMAML):
    """Every call is another function of its arguments."""

    calls: ClassVar[list[int]] = []

    def adapt(self, meta_params, support, *, key=None):
        self.calls.append(0)
        return jax.tree.map(lambda x: x + len(self.calls), super().adapt(meta_params, support))


class Forgetful(FOMAML):
    """Draws a number outside of its arguments at every call."""

    rng = np.random.default_rng(0)

    def meta_grad(self, meta_params, task, *, key=None):
        grads, info = super().meta_grad(meta_params, task)
        draw = lambda _: np.float32(self.rng.normal())
        drawn = jax.pure_callback(draw, jax.ShapeDtypeStruct((), np.float32), info.outer_loss)
        return grads, info._replace(outer_loss=info.outer_loss + drawn)


class OddLosses(FOMAML):
    def meta_grad(self, meta_params, task, *, key=None):
        grads, info = super().meta_grad(meta_params, task)
        return grads, info._replace(inner_losses=jnp.zeros((3, 3)))


BROKEN = {
    r"takes \['theta', 'support', 'key'\]": Renamed,
    "0 steps moved the parameters": Restless,
    "the same inputs gave different bits": Forgetful,
    "different tree": with_grads(lambda g: {"all": g}),
    "shape .* for parameters": with_grads(lambda g: jax.tree.map(lambda x: x[None], g)),
    "is float16 for parameters of float32": with_grads(
        lambda g: jax.tree.map(lambda x: x.astype(jnp.float16), g)
    ),
    "not finite": with_grads(lambda g: jax.tree.map(lambda x: x / 0, g)),
    "not one loss per inner step": OddLosses,
    "refuses an inner loop of 0 steps": algorithms.reptile,
}


@pytest.mark.parametrize("message", BROKEN)
def test_check_algorithm_detects_broken_algorithms(message: str):
    with pytest.raises(AssertionError, match=message):
        check_algorithm(BROKEN[message], dtypes=(jnp.float32,))


def test_check_algorithm_detects_nan_derivative_at_zero_gradient():
    """A square root is safe (`innerloop.engine.inner.safe_roots`); another power is left as it is."""
    power = optax.stateless(lambda grads, params: jax.tree.map(lambda g: g * jnp.abs(g) ** -0.3, grads))
    with pytest.raises(AssertionError, match="NaN where the gradient is zero"):
        check_algorithm(algorithms.maml, rule=power, dtypes=())
    check_algorithm(algorithms.maml, rule=optax.adam(0.1), dtypes=())


def test_check_algorithm_rejects_undeclared_zero_steps():
    with pytest.raises(AssertionError, match="accepts an inner loop of 0 steps"):
        check_algorithm(algorithms.maml, zero_steps=False)
