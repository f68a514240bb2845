"""What a run records of its circumstances, and what changes when they do."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
from training_cases import SPLITS, classes

from innerloop.config.schema import Config
from innerloop.tasks import fingerprint
from innerloop.tasks.class_arrays import ClassArrays, Splits
from innerloop.training.storage import provenance
from innerloop.training.storage.run_directory import RunFolder


def test_versions_machine_flags_and_data_are_recorded(finished: Path):
    told = RunFolder(finished).known()
    assert {"python", "processor", "devices", "processes", "packages", "commit", "flags", "data"} <= set(told)
    assert told["flags"]["jax_enable_x64"] is False
    assert told["flags"]["jax_default_prng_impl"] == "threefry2x32"
    assert (told["processes"], told["data"]) == (1, {})


def test_environment_records_xla_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=")
    assert provenance.environment()["flags"]["XLA_FLAGS"] == "--xla_dump_to="


def test_data_hash_changes_only_for_modified_split(tmp_path: Path):
    hashes = fingerprint.data_hashes(SPLITS)
    assert set(hashes) == {"train", "validation", "test"}
    assert len(set(hashes.values())) == 3
    pictures = SPLITS.test.examples.copy()
    pictures[3, 0, 0, 0] ^= 1
    changed = replace(SPLITS.test, examples=pictures)
    assert fingerprint.data_hashes(Splits(*SPLITS[:2], changed)) == hashes | {
        "test": fingerprint._hash_of(changed)
    }
    assert fingerprint._hash_of(changed) != hashes["test"]
    renamed = replace(SPLITS.test, names=tuple("abcd"))
    assert fingerprint._hash_of(renamed) != hashes["test"]
    assert fingerprint.data_hashes(None) == {}


def test_memory_map_hash_equals_array_hash(tmp_path: Path):
    whole = classes(6)
    np.save(tmp_path / "x.npy", whole.examples)
    mapped = replace(whole, examples=np.load(tmp_path / "x.npy", mmap_mode="r"))
    some = ["6-1", "6-4"]
    assert fingerprint._hash_of(mapped) == fingerprint._hash_of(whole)
    assert fingerprint._hash_of(mapped.select(some)) == fingerprint._hash_of(whole.select(some))
    assert isinstance(mapped.select(some), ClassArrays)


def test_commit_identifies_clean_and_modified_checkouts(tmp_path: Path, monkeypatch):
    source = tmp_path / "src"
    source.mkdir()
    commit = provenance.commit.__wrapped__  # not the answer that is kept
    assert commit(source) == ""
    who = ("-c", "user.name=n", "-c", "user.email=e@x")
    git = lambda *words: subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)
    git("init")
    (source / "__init__.py").write_text("")
    assert commit(source) == ""  # somebody else's repository
    git("add", ".")
    git(*who, "commit", "-m", "first")
    assert len(commit(source)) == 40
    (source / "__init__.py").write_text("1")
    assert commit(source).endswith("+")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(source) == ""


def test_processor_is_read_from_cpuinfo(tmp_path: Path):
    assert provenance.processor(tmp_path / "none")
    (tmp_path / "cpuinfo").write_text("model name\t: Fast One\n")
    assert provenance.processor(tmp_path / "cpuinfo") == "Fast One"


def test_digest_depends_on_config_and_data():
    one = provenance.digest(Config(), {"train": "a"})
    assert one == provenance.digest(Config(), {"train": "a"})
    assert len({one, provenance.digest(Config(seed=1), {"train": "a"}), provenance.digest(Config(), {})}) == 3
