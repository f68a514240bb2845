"""Cores as devices, in processes of their own: JAX reads these settings once."""

import os
import subprocess
import sys

import jax
import pytest

from innerloop.cores import VECTORISED, use_cores
from innerloop.errors import InnerloopError

OWN = "--xla_backend_extra_options=xla_cpu_disable_slp_vectorizer=1"

ASK = """
import os, innerloop
innerloop.use_cores({devices})
import jax
assert jax.jit(lambda x: x + 1)(1) == 2
innerloop.use_cores()
print(len(jax.devices()), os.environ["XLA_FLAGS"], sep="|")
"""


@pytest.mark.parametrize(
    ("devices", "before", "expected"),
    [
        (3, "", f"3|{VECTORISED}"),
        (1, "--xla_cpu_enable_fast_math=false", f"1|--xla_cpu_enable_fast_math=false {VECTORISED}"),
        (
            2,
            "--xla_backend_extra_options=xla_cpu_disable_slp_vectorizer=1",
            "2|--xla_backend_extra_options=xla_cpu_disable_slp_vectorizer=1",
        ),
    ],
)
def test_a_process(devices: int, before: str, expected: str):
    environment = {**os.environ, "XLA_FLAGS": before, "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", ASK.format(devices=devices)]
    said = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    assert said.strip() == expected


def test_refused():
    jax.devices()  # starts JAX
    with pytest.raises(InnerloopError, match="must be 1 or more"):
        use_cores(0)
    with pytest.raises(InnerloopError, match="JAX has started already"):
        use_cores(77)
