"""Cores as devices, in processes of their own: JAX reads these settings once."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tests.compilation import unmeasured

from innerloop.errors import InnerloopError
from innerloop.parallel.cpu_devices import VECTORISED, has_started, use_cores

OWN = "--xla_backend_extra_options=xla_cpu_disable_slp_vectorizer=1"

ASK = """
import os, innerloop
from innerloop.parallel.cpu_devices import has_started
innerloop.use_cores({devices})
assert not has_started()
import jax
assert jax.jit(lambda x: x + 1)(1) == 2
assert has_started()
print(len(jax.devices()), os.environ["XLA_FLAGS"], sep="|")
"""


def said(devices: int | str, **environment: str) -> str:
    """What a process of its own says."""
    words = [sys.executable, "-c", ASK.format(devices=devices)]
    environment = {**unmeasured(), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("devices", "before", "expected"),
    [
        (3, "", f"3|{VECTORISED}"),
        (1, "--xla_cpu_enable_fast_math=false", f"1|--xla_cpu_enable_fast_math=false {VECTORISED}"),
        (2, OWN, f"2|{OWN}"),
    ],
)
def test_use_cores_sets_devices_and_flags(devices: int, before: str, expected: str):
    assert said(devices, XLA_FLAGS=before) == expected


def test_use_cores_keeps_flags_file(tmp_path: Path):
    """XLA takes the name of a file in place of flags."""
    (tmp_path / "flags").write_text("--xla_cpu_enable_fast_math=false")
    assert said(2, XLA_FLAGS=str(tmp_path / "flags")) == f"2|{tmp_path / 'flags'}"


def test_use_cores_keeps_device_count_from_environment():
    assert said("", JAX_NUM_CPU_DEVICES="3") == f"3|{VECTORISED}"


def test_invalid_use_cores_calls_raise():
    with pytest.raises(InnerloopError, match="must be 1 or more"):
        use_cores(0)
    jax.devices()  # starts JAX
    assert has_started()
    with pytest.raises(InnerloopError, match="JAX has started already"):
        use_cores(77)
