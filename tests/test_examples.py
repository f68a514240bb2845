import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.compilation import quick_variables, unmeasured

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples").rglob("*.py"))
PACKAGES = {path.parent.name for path in FILES if path.name == "__main__.py"}
"""Examples with several files, started by `python -m examples.NAME`."""
NUMBER = r"(\d+\.\d+)"


def run(name, *options):
    program = ("-m", f"examples.{name}") if name in PACKAGES else (f"examples/{name}.py",)
    # Optimising programs that run for a second would take most of the time.
    fast = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"} | quick_variables()
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", *program, "--smoke", *options],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=unmeasured() | fast,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(pattern, text):
    """The numbers that `pattern` captures in `text`."""
    match = re.search(pattern, text)
    assert match, text
    return [float(x) for x in match.groups()]


def test_sinusoid_from_scratch(tmp_path):
    text = run("sinusoid_from_scratch", "--plot", str(tmp_path / "wave.png"))
    (before,), (after,) = (found(f"after {n} steps: {NUMBER}", text) for n in (" 0", "10"))
    assert after < 0.7 * before
    assert (tmp_path / "wave.png").read_bytes().startswith(b"\x89PNG")


def test_optuna_sweep(tmp_path):
    pytest.importorskip("optuna")
    text = run("optuna_sweep", "--folder", str(tmp_path / "sweep"))
    assert run("optuna_sweep", "--folder", str(tmp_path / "sweep")) == text  # no trial is left
    (best,) = found(rf"best of 3 trials \(\d pruned\): .*, validation loss {NUMBER}", text)
    (other,) = found(f"on new waves: {NUMBER} ±", text)
    assert 0 < best < 10
    assert abs(other - best) < 2


def test_own_equinox_model():
    text = run("own_equinox_model")
    for name in ("MAML", "ANIL"):
        first, last = found(f"{name}: .* {NUMBER} -> {NUMBER}", text)
        assert last < first


def test_own_flax_model():
    pytest.importorskip("flax")
    text = run("own_flax_model")
    for name in ("NNX", "Linen"):
        first, last = found(f"{name}: .* {NUMBER} -> {NUMBER}", text)
        assert last < first


def test_neural_fields(tmp_path):
    text = run("neural_fields", "--plot", str(tmp_path / "fields.png"))
    before, after = (found(f"after {n} steps: {NUMBER}", text)[0] for n in (" 0", " 3"))
    assert after > before
    assert (tmp_path / "fields.png").read_bytes().startswith(b"\x89PNG")


def test_test_time_training():
    text = run("test_time_training")
    for name in ("window alone", "dynamic evaluation", "full attention", "test-time training"):
        assert found(f"{name} +{NUMBER}", text)[0] < np.log(256)


def test_adapters(tmp_path):
    text = run("adapters", "--out", str(tmp_path / "results.json"))
    for name in ("LoRA-MAML", "ANIL", "logistic regression", "nearest mean"):
        assert 0 < found(f"  {name} +{NUMBER} ± ", text)[0] < 1
    assert set(json.loads((tmp_path / "results.json").read_text())["shots"]) == {"1"}


def test_data_attribution():
    (score,) = found(f"metagradients: LDS {NUMBER}", run("data_attribution"))
    assert score > 0.9


def test_own_images():
    (right,) = found(r": (\d+)% of \d+ images right", run("own_images"))
    assert right >= 80


def test_own_algorithm():
    text = run("own_algorithm")
    assert "Meta-SGD's gradient is MAML's" in text
    low, high = found(f"from {NUMBER} to {NUMBER}", text)
    assert low < 0.01 < high


def test_sensors():
    text = run("sensors")
    (pooled,), (ours,) = (found(f"{name}: error {NUMBER}", text) for name in ("all", "MAML"))
    assert ours < pooled


def test_each_example_is_tested_and_short():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    single = {path.stem for path in FILES if path.parent.name == "examples"}
    assert single | PACKAGES <= tests
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 120, path
