"""Operation counts, records and tables of the benchmarks: no contender runs, no PyTorch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import main
from benchmarks.speed import flops
from benchmarks.speed import page as performance
from benchmarks.speed.process import OURS
from benchmarks.speed.summary import record
from benchmarks.speed.workloads import Workload, from_dict, quick, workloads

from innerloop.errors import InnerloopError

KNOWN = workloads()
SMALL = replace(KNOWN["omniglot"], tasks=3, ways=2, shots=1, queries=2, filters=4, image=(16, 16, 1))


def made(w: Workload = SMALL, **changes: Any) -> dict[str, Any]:
    """A record as a race makes it."""
    times = {OURS: [0.2, 0.1, 0.4], "higher": [0.5, 0.6, 0.7], "pytorch-loop": [0.4, 0.5, 0.3]}
    memory = {OURS: (100.0, 400.0), "higher": (300.0, 300.0), "pytorch-loop": (200.0, 210.0)}
    facts = {"compile_s": 1.5, "versions": {"jax": "1"}}
    refused = {"torchopt": "wrong meta-gradient: relative error 0.04"}
    found = record(w, times, times, memory, [10.0, 20.0], {"higher": 1e-6}, refused, facts)
    around = {
        "commit": "abc",
        "date": "2026-01-01 00:00 UTC",
        "processor": "P",
        "python": "3",
        "load_before": 0.1,
    }
    return {**found, **around, **changes}


def test_layer_products_of_strided_net_by_hand() -> None:
    # 16 -> 8 -> 4 -> 2 -> 1 places a side, two examples, then 4 features to 2 ways.
    per_place = [2 * 2 * places * 9 * channels * 4 for places, channels in ((64, 1), (16, 4), (4, 4), (1, 4))]
    assert flops.layer_products(SMALL, 2) == [*per_place, 2 * 2 * 4 * 2]


def test_layer_products_of_pooled_net_by_hand() -> None:
    pooled = replace(SMALL, downsample="pool", features="flatten", image=(21, 21, 3))
    sides = (21, 10, 5, 2)  # an odd last row is dropped
    expected = [2 * side**2 * 9 * channels * 4 for side, channels in zip(sides, (3, 4, 4, 4), strict=True)]
    assert flops.layer_products(pooled, 1) == [*expected, 2 * 4 * 1 * 2]


def test_linear_network_operation_count_matches_jaxpr() -> None:
    """The table's counts against the compiler's own, on products alone: no activation, one step of plain SGD."""
    import jax
    import jax.numpy as jnp

    w = Workload("linear", shots=64, queries=32, ways=1, tasks=1, hidden=(48, 40))
    widths = (1, *w.hidden, 1)
    params = [jnp.ones((a, b)) for a, b in zip(widths, widths[1:], strict=False)]

    def loss(params: list, x: jax.Array) -> jax.Array:
        for p in params:
            x = x @ p
        return jnp.mean(x**2)

    def outer(params: list, xs: jax.Array, xq: jax.Array) -> jax.Array:
        moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, xs))
        return loss(moved, xq)

    xs, xq = jnp.ones((w.support, 1)), jnp.ones((w.query, 1))
    counted = products(jax.make_jaxpr(jax.grad(outer))(params, xs, xq).jaxpr)
    assert counted == flops.task(w)
    assert products(jax.make_jaxpr(jax.grad(loss))(params, xq).jaxpr) == flops.gradient(
        flops.layer_products(w, w.query)
    )


def products(jaxpr: Any) -> int:
    """Operations of the matrix products in a traced program."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (((contracted,), _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            total += 2 * equation.outvars[0].aval.size * left.shape[contracted]
        for inner in equation.params.values():
            total += products(inner.jaxpr) if hasattr(inner, "jaxpr") else 0
    return total


def test_cheaper_algorithms_have_fewer_operations() -> None:
    count = lambda algorithm: flops.meta_step(replace(SMALL, algorithm=algorithm, steps=5))
    assert count("maml") > count("fomaml") > count("anil") > 0
    assert count("reptile") < count("fomaml")
    assert flops.meta_step(KNOWN["sampling"]) == 0


def test_workload_json_round_trip() -> None:
    for w in KNOWN.values():
        assert from_dict(json.loads(json.dumps(w.as_dict()))) == w
    for name, w in quick().items():
        assert replace(w, peers=KNOWN[name].peers) == KNOWN[name]
        assert set(w.peers) <= set(KNOWN[name].peers)


def test_record_has_medians_and_ratio_to_best_peer() -> None:
    found = made()
    assert found["ours_ms"] == pytest.approx(200)
    assert found["peers_ms"] == pytest.approx({"higher": 600, "pytorch-loop": 400})
    assert found["best_peer"] == "pytorch-loop"
    assert found["ratio"] == pytest.approx(2)
    assert found["tasks_per_second"][OURS] == pytest.approx(15)
    assert found["fraction_of_peak"] == pytest.approx(flops.meta_step(SMALL) / 0.2 / 20e9)
    assert found["cpu_ms"] == pytest.approx({OURS: 200, "higher": 600, "pytorch-loop": 400})
    assert (found["memory_mb"][OURS], found["whole_memory_mb"][OURS]) == (100.0, 400.0)
    assert found["refused"].keys() == {"torchopt"}
    assert json.loads(json.dumps(found)) == found


def test_record_without_peers_has_no_ratio() -> None:
    alone = record(
        replace(SMALL, kind="sampling"),
        {OURS: [1.0]},
        {OURS: [2.0]},
        {OURS: (1.0, 2.0)},
        [],
        {},
        {},
        {"compile_s": 0, "versions": {}},
    )
    assert (alone["peers_ms"], alone["ratio"], alone["fraction_of_peak"]) == ({}, None, None)


def test_training_table_marks_wrong_and_absent_peers() -> None:
    text = performance.training_table([made()])
    row = text.splitlines()[2]
    assert row.startswith("| omniglot | 200 | 400 | – | 600 | wrong | **2.00** |")
    assert text.splitlines()[0].count("|") == row.count("|")
    assert performance.peer_cell(made(refused={"higher": "MemoryError: "}, peers_ms={}), "higher") == "failed"
    told = "RuntimeError: DefaultCPUAllocator: can't allocate memory"
    assert performance.peer_cell(made(refused={"higher": told}, peers_ms={}), "higher") == "out of memory"


def test_settings_mention_load_from_other_work() -> None:
    assert "other work" in performance.settings([made(load_before=6.0)])
    assert "other work" not in performance.settings([made()])


def test_write_table_renders_stored_results(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text(f"above\n{performance.BEGIN}\nold\n{performance.END}\nbelow\n")
    sampled = made(replace(KNOWN["sampling"], tasks=256))
    performance.add({**sampled, "peak_gflops": 0.0}, results)
    performance.add(made(), results)
    performance.add(made(compile_s=9.0), results)
    assert list(performance.load(results)) == ["omniglot", "sampling"]
    performance.write_table(results, page)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "## Drawing tasks" in text
    assert "## Inner steps" not in text
    performance.write_table(results, page)
    assert page.read_text() == text


def test_page_without_unique_markers_raises() -> None:
    for page in (
        "nothing",
        f"{performance.END} {performance.BEGIN}",
        f"{performance.BEGIN} twice {performance.BEGIN}",
    ):
        with pytest.raises(InnerloopError, match="once each"):
            performance.between_markers(page, "text")


def test_shipped_page_matches_shipped_results() -> None:
    page = performance.PAGE.read_text()
    assert performance.between_markers(page, performance.tables(performance.load())) == page


@pytest.mark.parametrize("argv", [["--workload", "nope", "--json"], ["--counts", "sinusoid", "nope"]])
def test_unknown_workload_error_lists_known_names(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert "'nope'" in told
    assert all(name in told for name in KNOWN)


def test_missing_peer_environment_points_to_bench_setup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.__main__.peers_python", lambda: tmp_path / "python")
    assert main(["--workload", "omniglot"]) == 2
    assert "make bench-setup" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["--workload", "omniglot", "--all"], ["--threads", "x", "--quick"]])
def test_invalid_arguments_exit_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


def test_list_prints_workload_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(KNOWN)
