"""Run folders, weights and checkpoints: written whole, read back, and told when they are something else."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from innerloop.config.schema import Config, InnerConfig
from innerloop.config.serialization import to_json
from innerloop.engine import meta_state
from innerloop.engine.pytree import by_path
from innerloop.errors import InnerloopError
from innerloop.io import safetensors_reader, safetensors_writer
from innerloop.io.files import write_text
from innerloop.io.text import as_json
from innerloop.nn import MLP
from innerloop.training.storage import checkpoint, checkpoint_manager, shipped, weights
from innerloop.training.storage.metrics_log import BYTES, LINES
from innerloop.training.storage.run_directory import RunFolder
from innerloop.training.storage.shapes import check_same_shapes
from innerloop.training.trained import load_trained

ADAM = optax.adam(0.1)


def state(width: int = 4, optimizer: optax.GradientTransformation = ADAM) -> meta_state.MetaState:
    params: Any = MLP(1, 1, hidden=(width,), key=jax.random.key(3))
    return meta_state.MetaState(params, optimizer.init(params), jax.random.key(4), jnp.asarray(7, jnp.int32))


def test_create_writes_config_and_environment(tmp_path: Path):
    run = RunFolder(tmp_path / "a" / "b")
    run.create(Config(seed=3))
    assert run.config() == Config(seed=3)
    facts = json.loads((run.path / "environment.json").read_text())
    assert {"python", "devices", "packages", "cores"} <= set(facts)
    assert len(facts["devices"]) == 2
    with pytest.raises(InnerloopError, match="already holds a run; give another.* train --resume /.*/b`"):
        run.create(Config())
    with pytest.raises(InnerloopError, match="is not a run"):
        RunFolder(tmp_path).config()


def test_folder_without_config_can_be_reused(tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    run.create(Config(seed=3))
    (run.path / "config.json").unlink()
    RunFolder(run.path).create(Config(seed=4))
    assert run.config() == Config(seed=4)


def test_interrupt_before_first_checkpoint_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even one that arrives just after a file was moved to its place."""
    run = RunFolder(tmp_path / "run")
    move = os.replace

    def interrupted(draft: Path, path: Path) -> None:
        move(draft, path)
        if path.name == "config.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), run.undone_unless_resumable(new=True):
        run.create(Config())
    assert not run.path.exists()


@pytest.mark.parametrize("text", ["{}", '{"python": "3.11"}', "[]", "no JSON"])
def test_create_keeps_foreign_environment_file(text: str, tmp_path: Path):
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(InnerloopError, match="holds `environment.json`, which this run did not write"):
        RunFolder(tmp_path).create(Config())
    assert (tmp_path / "environment.json").read_text() == text


def test_weights_file_has_default_permissions(tmp_path: Path):
    """safetensors gives its files to their owner alone; those of a run are shared as its others are."""
    (tmp_path / "other").touch()
    weights.save(tmp_path / "w.safetensors", state().params, Config(), {})
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "w.safetensors"]


def test_load_trained_reads_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that is replaced meanwhile cannot pass with the config of one and the arrays of the other."""
    run, file = RunFolder(tmp_path / "run"), shipped.path("sinusoid-maml")
    run.create(weights.load(file)[1])
    shutil.copy(file, run.weights)
    reads, read = list[Path](), safetensors_reader.read
    monkeypatch.setattr(safetensors_reader, "read", lambda path, what: reads.append(path) or read(path, what))
    load_trained(run.path)
    assert reads == [run.weights]


def test_unwritable_path_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InnerloopError, match="cannot be written .Not a directory.; give another path"):
        RunFolder(tmp_path / "file" / "run").create(Config())
    with pytest.raises(InnerloopError, match="cannot be written .*; give another path"):
        write_text(tmp_path / "missing" / "x.json", "{}")


def test_metrics_survive_a_crash(tmp_path: Path):
    """A line cut short is left out; what comes after the checkpoint is forgotten."""
    run = RunFolder(tmp_path)
    assert run.metrics() == []
    for step in (2, 4, 6):
        run.log({"step": step, "loss": 1 / step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 8, "lo')
    with pytest.warns(UserWarning, match="metrics.jsonl: line 4 was cut short, and is left out"):
        run.rewind(6)
    assert [record["step"] for record in run.metrics()] == [2, 4, 6]
    run.rewind(4)
    assert run.metrics() == [{"step": 2, "loss": 1 / 2}, {"step": 4, "loss": 1 / 4}]
    run.log({"step": 6})
    assert len(run.metrics()) == 3
    assert not list(tmp_path.glob(".*"))


def test_changed_length_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even if the change was interrupted, and is made again."""
    run = RunFolder(tmp_path / "run")
    run.create(Config())
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", lambda self, name: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run.change_length(7)
    for length in (7, 9):
        run.change_length(length)
    assert run.earlier_lengths() == [Config().outer.meta_steps, 7]


def test_weights_round_trip(tmp_path: Path):
    params, path = state().params, tmp_path / "w.safetensors"
    weights.save(path, params, Config(seed=5), {"meta_steps": 9})
    arrays, config, facts = weights.load(path)
    assert (config, facts) == (Config(seed=5), {"meta_steps": 9})
    back = weights.into(jax.tree.map(jnp.zeros_like, params), arrays, "x")
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    with pytest.raises(
        InnerloopError, match="another model: `body/0/bias` should have shape .5,., got shape .4,."
    ):
        weights.into(state(5).params, arrays, "x")
    with pytest.raises(InnerloopError, match="`spare` should have shape .*, got nothing"):
        weights.into({"spare": jnp.ones(1)}, {}, "x")


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24, dtype=np.float32).reshape(4, 6)[::-1, ::2],
        np.arange(3, dtype=">f4"),
        np.array(1.5, ">f8"),
        np.array(7, np.int32),
        np.arange(6, dtype=jnp.bfloat16).reshape(2, 3).T,
    ],
    ids=["columns", "strided", "big endian", "scalar of big endian", "scalar", "bfloat16"],
)
def test_arrays_of_any_memory_layout_round_trip(array: np.ndarray, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    safetensors_writer.write(path, {"x": array}, {}, hint="")
    back = safetensors_reader.read(path, "arrays")[0]["x"]
    assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("where", ["arrays", "facts"])
def test_modified_weights_file_raises(where: str, tmp_path: Path):
    """Files without a digest, such as those of version 0.1.0, are read."""
    params, path = state().params, tmp_path / "w.safetensors"
    weights.save(path, params, Config(seed=5), {"meta_steps": 9})
    written = path.read_bytes()
    at = len(written) - 1 if where == "arrays" else written.index(b'9}"')
    path.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
    with pytest.raises(
        InnerloopError, match="w.safetensors: is not what innerloop wrote: .*; put back a copy, or remove"
    ):
        weights.load(path)
    arrays = {name: np.asarray(x) for name, x in by_path(params).items()}
    save_file(arrays, path, metadata={"config": to_json(Config(seed=5)), "facts": "{}"})
    assert weights.load(path)[1] == Config(seed=5)


def test_check_config_ignores_memory_plan_settings():
    """What a plan changes costs time and memory, and decides nothing about the result; nor do snapshots."""
    config = Config(inner=InnerConfig(steps=9))
    planned = replace(
        config,
        outer=replace(config.outer, chunk=1, snapshots=3),
        inner=replace(config.inner, derivative="rematerialised", checkpoints=3, offload=True),
    )
    for wanted in (config, planned):
        weights.check_config(Path("w"), wanted, planned)
    with pytest.raises(InnerloopError, match="other settings"):
        weights.check_config(Path("w"), config, replace(planned, seed=1))


def test_longest_log_stays_within_read_limit():
    line = {"step": 300_000, **{f"train_the_output_number_{i}": -1.2345678901234567e-08 for i in range(100)}}
    assert LINES * len(as_json(line)) < BYTES


def spoil(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not weights at all, but rather long")
    elif how == "no metadata":
        save_file({"x": np.zeros(2)}, path)
    elif how == "bad facts":
        save_file({"x": np.zeros(2)}, path, metadata={"config": to_json(Config()), "facts": "{"})
    elif how == "bad config":
        save_file({"x": np.zeros(2)}, path, metadata={"config": '{"seed": "x"}', "facts": "{}"})


HOW = ["missing", "truncated", "empty", "text", "no metadata", "bad facts", "bad config"]


@pytest.mark.parametrize("how", HOW)
def test_invalid_weights_file_raises(tmp_path: Path, how: str):
    path = tmp_path / "w.safetensors"
    weights.save(path, state().params, Config(), {})
    spoil(path, how)
    with pytest.raises(
        InnerloopError, match=r"w\.safetensors.*(holds no trained weights|seed: has the wrong value)"
    ):
        weights.load(path)


def test_shipped_names_lists_weights_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert shipped.names() == []
    (tmp_path / "b.safetensors").write_text("")
    (tmp_path / "a.safetensors").write_text("")
    (tmp_path / "README").write_text("")
    assert shipped.names() == ["a", "b"]
    assert shipped.path("a") == tmp_path / "a.safetensors"
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "missing")
    assert shipped.names() == []


def test_shipped_snapshots_match_shipped_model():
    """Those of BOIL, for `innerloop analyze`: the same parameters, from random ones on; other presets have none."""
    name = "omniglot-5way-1shot-boil"
    found = weights.shipped_snapshots(name)
    arrays, config, extra = weights.load(shipped.path(name))
    assert list(found) == sorted(found)
    assert next(iter(found)) == 0
    assert list(found)[-1] <= extra["meta_steps"] == config.outer.meta_steps
    distance = []
    for step, path in found.items():
        own, of, more = weights.load(path)
        assert (of, more["meta_steps"]) == (config, step)
        assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in arrays.items()}
        distance.append(sum(np.square(own[k].astype(np.float64) - arrays[k]).sum() for k in arrays))
    assert distance == sorted(distance, reverse=True)
    assert (
        weights.shipped_snapshots("omniglot-5way-1shot-maml") == weights.shipped_snapshots("no preset") == {}
    )


@pytest.fixture
def saved(tmp_path: Path):
    """A manager with one checkpoint, of step 7."""
    manager = checkpoint_manager.manager(tmp_path / "checkpoints")
    assert checkpoint.restore(manager, state()) is None
    checkpoint.save(manager, state())
    manager.wait_until_finished()
    yield manager
    manager.close()


def test_checkpoint_round_trip(saved):
    blank = jax.tree.map(jnp.zeros_like, state()._replace(key=jax.random.key_data(jax.random.key(0))))
    back = checkpoint.restore(saved, blank._replace(key=jax.random.key(0)))
    assert back is not None
    assert jax.tree.structure(back) == jax.tree.structure(state())
    assert int(back.step) == 7
    np.testing.assert_array_equal(jax.random.key_data(back.key), jax.random.key_data(state().key))
    for a, b in zip(jax.tree.leaves(back[:2]), jax.tree.leaves(state()[:2]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


WANTED = {"a": np.zeros(2), "b": np.zeros((3, 1))}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"a": np.zeros(2)}, r"`b` should have .*3.*got"),
        (WANTED | {"c": np.zeros(4)}, r"`c` should be absent, got .*4"),
        (WANTED | {"a": np.zeros(5)}, r"`a` should have .*2.*got .*5"),
    ],
)
def test_check_same_shapes_names_mismatched_array(found: dict, told: str):
    with pytest.raises(InnerloopError, match=f"^mine: belongs to another model: {told}"):
        check_same_shapes(WANTED, found, "mine")


def test_check_same_shapes_accepts_matching_arrays():
    check_same_shapes(WANTED, {name: x + 1 for name, x in WANTED.items()}, "mine")


def test_restore_with_other_model_or_optimiser_raises(saved):
    with pytest.raises(InnerloopError, match="checkpoint 7: belongs to another model: .* use the config"):
        checkpoint.restore(saved, state(5))
    with pytest.raises(InnerloopError, match="should be absent"):
        checkpoint.restore(saved, state(4, optax.sgd(0.1)))


def test_restore_names_damaged_checkpoint(saved):
    """With no other to go on from, the message says what to do."""
    for path in Path(str(saved.directory / "7")).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(
        InnerloopError, match=r"^checkpoint 7: is damaged.*; put .*, or move it away .*weights"
    ):
        checkpoint.restore(saved, state())


def test_manager_keeps_three_newest_checkpoints(saved):
    for step in (8, 9, 10):
        checkpoint.save(saved, state()._replace(step=jnp.asarray(step, jnp.int32)))
    saved.wait_until_finished()
    assert sorted(saved.all_steps()) == [8, 9, 10]
