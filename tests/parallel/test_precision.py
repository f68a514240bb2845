"""On an accelerator products are exact unless the user asks for less; seen in the programs, without a device."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import innerloop as il
from innerloop.nn.kernels.conv import conv
from innerloop.parallel.compile_once import compile_once


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def algorithm() -> il.Algorithm:
    """Of a user's own model, with a convolution and a product."""

    def loss(params, batch):
        hidden = conv(batch, params["kernel"]).reshape(len(batch), -1)
        return jnp.square(jnp.tanh(hidden @ params["matrix"])).mean()

    return il.maml(loss, il.InnerLoop(optax.sgd(0.1), 2))


def problem():
    params = {"kernel": jnp.ones((3, 3, 1, 2)), "matrix": jnp.ones((32, 3))}
    return params, il.Task(jnp.ones((5, 4, 4, 1)), jnp.ones((5, 4, 4, 1)))


def precisions(text: str) -> set[str]:
    """The precision of every product of a program."""
    products = re.findall(r"stablehlo\.dot_general[^\n]*", text)
    assert products
    return {"".join(re.findall(r"precision = \[(\w+), \w+\]", line)) or "DEFAULT" for line in products}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("asked", "found"), [(None, "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")]
)
def test_meta_gradient_uses_requested_precision(asked: str | None, found: str):
    """Within the user's own `jax.jit` too, where the convolution is lowered outside of the library's calls."""
    with jax.default_matmul_precision(asked):
        lowered = jax.jit(algorithm().meta_grad).lower(*problem())
    assert precisions(lowered.as_text()) == {found}


def prototypes() -> il.Algorithm:
    """ProtoMAML of a user's own model, whose head is a product of features."""
    loss = lambda params, batch: jnp.mean(batch.inputs @ params["body"] @ params["weight"] + params["bias"])
    with_head = lambda params, weight, bias: {**params, "weight": weight, "bias": bias}
    embed = lambda params, inputs: inputs @ params["body"]
    return il.protomaml(loss, il.InnerLoop(optax.sgd(0.1)), ways=2, embed=embed, with_head=with_head)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "call",
    [
        lambda params, task: algorithm().trajectory(params, task.support).losses,
        lambda params, task: il.reptile(algorithm().loss_fn, algorithm().inner).trajectory(
            params, task.support
        )[1],
        lambda params, task: il.unroll(algorithm().loss_fn, algorithm().inner, params, task.support).losses,
        lambda params, task: algorithm().query_loss(params, task.query),
        lambda params, task: algorithm().query(params, task.query),
        lambda params, task: prototypes().start(
            {"body": jnp.ones((3, 2))}, il.Batch(jnp.ones((4, 3)), jnp.arange(4) % 2)
        ),
    ],
)
def test_algorithm_methods_use_highest_precision(call: Any):
    assert precisions(jax.jit(call).lower(*problem()).as_text()) == {"HIGHEST"}


def asked_for() -> str | None:
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("gpu")
def test_outer_loop_and_evaluate_set_highest_precision():
    """Whatever they call: the user's sampler and score have products too."""
    params, task = problem()
    seen = []

    class Tasks:
        def sample(self, key: jax.Array) -> il.Task:
            seen.append(asked_for())
            return jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), task)

    def score(params, task: il.Task) -> dict[str, jax.Array]:
        seen.append(asked_for())
        return {"loss": algorithm().loss_fn(params, task.query)}

    loop = il.OuterLoop(algorithm(), optax.sgd(0.1), Tasks(), meta_batch=2)
    state = loop.init(params, jax.random.key(0))
    for run in (
        lambda: loop.run(state, 1),
        lambda: il.evaluate(algorithm(), params, Tasks(), score, key=jax.random.key(1), num_tasks=4),
    ):
        seen.clear()
        run()
        assert "highest" in seen  # checks of shapes multiply nothing, and may see None


@pytest.mark.usefixtures("gpu")
def test_cached_program_follows_precision_setting():
    seen = []

    def product(x: jax.Array) -> jax.Array:
        seen.append(asked_for())
        return x @ x

    run = compile_once(product)
    for asked in (None, None, "bfloat16"):
        with jax.default_matmul_precision(asked):
            run(jnp.eye(2))
    assert seen == ["highest", "bfloat16"]


def test_cpu_uses_default_precision():
    assert precisions(jax.jit(algorithm().meta_grad).lower(*problem()).as_text()) == {"DEFAULT"}
