"""Measure memory and time of a meta-gradient through 1000 inner steps: `python -m benchmarks.speed.long_loops`.

Adam trains a network of 55 000 parameters for 1000 inner steps on minibatches, and the final loss is differentiated
with respect to the initialisation. Memory is the compiled program's temporary memory, in copies of the loop state
(parameters and both moments). Time is the median of several runs. The comparison is the same loop written by hand with
Equinox's checkpointed scan, a binomial scheme for loops of unknown length.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

import innerloop as il
from benchmarks.accuracy.tables import between_markers, table
from benchmarks.provenance import circumstances
from innerloop.engine.inner.inner_loop import Derivative
from innerloop.engine.inner.nested_scan import square_root_segments

RESULTS = Path(__file__).parents[1] / "results" / "long-loops.json"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "performance.md"
STEPS, EXAMPLES, BATCH, RUNS = 1000, 320, 32, 3
CASES: list[tuple[Derivative, str | None]] = [
    ("unrolled", None),
    ("unrolled", "sqrt"),
    ("rematerialised", "sqrt"),
    ("mixed", "sqrt"),
]


def problem() -> tuple[il.MLP, il.Task]:
    """A network with 64 inputs, two hidden layers of 200 units and 10 outputs, and a task."""
    rng = np.random.default_rng(0)
    inputs = lambda n: jnp.asarray(rng.normal(size=(n, 64)), jnp.float32)
    draw = lambda n: il.Batch(inputs(n), jnp.asarray(rng.integers(0, 10, n)))
    model = il.MLP(64, 10, hidden=(200, 200), activation="tanh", key=jax.random.key(0))
    return model, il.Task(draw(EXAMPLES), draw(BATCH))


def measure(derivative: Derivative, checkpoints: str | None) -> dict[str, object]:
    """Measure one way of differentiating: temporary memory in bytes and in copies, and seconds."""
    params, task = problem()
    inner = il.InnerLoop(
        optax.adam(1e-3),
        STEPS,
        minibatch=BATCH,
        derivative=derivative,
        checkpoints=checkpoints,  # pyright: ignore
    )
    how = {"derivative": derivative, "checkpoints": checkpoints}
    return how | cost_of(il.maml(il.cross_entropy(), inner).meta_grad, params, task)


def equinox_meta_grad(params: il.MLP, task: il.Task) -> il.MLP:
    """The same meta-gradient through `equinox.internal.scan`, with its default number of checkpoints, a square root."""
    loss, rule = il.cross_entropy(), optax.adam(1e-3)

    def step(carry: PyTree, i: Array) -> tuple[PyTree, None]:
        theta, state = carry
        rows = (i * BATCH + jnp.arange(BATCH)) % EXAMPLES
        grads = jax.grad(loss)(theta, jax.tree.map(lambda x: x[rows], task.support))
        updates, state = rule.update(grads, state, theta)
        return (optax.apply_updates(theta, updates), state), None

    def outer(theta: il.MLP) -> Array:
        start = (theta, rule.init(theta))
        (adapted, _), _ = eqxi.scan(step, start, jnp.arange(STEPS), kind="checkpointed")
        return loss(adapted, task.query)

    return jax.grad(outer)(params)


def distance_of_equinox() -> float:
    """Distance between the two meta-gradients over the norm of ours, to check that the loops are the same."""
    params, task = problem()
    inner = il.InnerLoop(optax.adam(1e-3), STEPS, minibatch=BATCH)
    ours, _ = jax.jit(il.maml(il.cross_entropy(), inner).meta_grad)(params, task)
    theirs = jax.jit(equinox_meta_grad)(params, task)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, ours, theirs))
    return float(apart / optax.tree.norm(ours))


def cost_of(
    function: Callable[[il.MLP, il.Task], object], params: il.MLP, task: il.Task
) -> dict[str, object]:
    """Temporary memory in bytes and in copies, and seconds."""
    meta_grad = jax.jit(function).lower(params, task).compile()
    copy = 3 * sum(x.nbytes for x in jax.tree.leaves(params))
    memory = meta_grad.memory_analysis()
    assert memory is not None
    temporary = memory.temp_size_in_bytes
    seconds = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        jax.block_until_ready(meta_grad(params, task))
        seconds.append(time.perf_counter() - began)
    return {"bytes": temporary, "copies": temporary / copy, "seconds": statistics.median(seconds[1:])}


def write_page(record: dict) -> None:
    """Write the table of docs/reference/performance.md."""
    first = record["cases"][0]["seconds"]
    rows = [
        [
            f"`{case['derivative']}`" if case["derivative"] else "Equinox's checkpointed scan",
            f'`"{case["checkpoints"]}"`' if case["checkpoints"] else "none",
            f"{case['bytes'] / 2**20:.0f} MiB",
            f"{case['copies']:.1f}",
            f"{case['seconds']:.2f} s",
            f"{case['seconds'] / first:.2f}",
        ]
        for case in record["cases"]
    ]
    heads = ["`derivative`", "`checkpoints`", "temporary memory", "copies", "time", "ratio"]
    between_markers(PAGE, "long-loops", table(heads, rows))


def main() -> None:
    """Measure all cases in turn, and write the result file and the table."""
    cases = []
    for derivative, checkpoints in CASES:
        cases.append(measure(derivative, checkpoints))
        print(json.dumps(cases[-1]), flush=True)
    params, task = problem()
    cases.append({"derivative": None, "checkpoints": "sqrt"} | cost_of(equinox_meta_grad, params, task))
    print(json.dumps(cases[-1]), flush=True)
    record = {
        "steps": STEPS,
        "distance_of_equinox": distance_of_equinox(),
        "square_root": square_root_segments(STEPS),
        "cases": cases,
        **circumstances(),
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_page(record)


if __name__ == "__main__":
    main()
