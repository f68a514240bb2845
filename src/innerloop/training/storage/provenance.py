"""The provenance of a run: versions, hardware, flags, commit, and hashes of its data.

Together with the config, these determine its bits. They are compared when a run is resumed, and `innerloop reproduce`
uses them to explain why bits differ.
"""

import functools
import json
import os
import platform
import re
import subprocess
from pathlib import Path

from innerloop.config.schema import Config
from innerloop.config.serialization import to_json
from innerloop.io.digests import sha256
from innerloop.io.untrusted import JsonObject
from innerloop.io.versions import version

PACKAGES = ("innerloop", "jax", "jaxlib", "optax", "equinox", "orbax-checkpoint", "numpy")

FLAGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_disable_most_optimizations",
)
"""JAX settings on which the bits may depend."""

VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "NVIDIA_TF32_OVERRIDE")
"""Environment variables that change what is computed, or where."""


def environment() -> JsonObject:
    """Versions, machine, devices, flags and commit."""
    import jax

    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kinds": sorted({device.device_kind for device in jax.devices()}),
        "processes": jax.process_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "flags": {name: jax.config.values.get(name) for name in FLAGS}
        | {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, from Linux if possible, else from Python."""
    try:
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


SOURCE = Path(__file__).resolve().parents[2]


@functools.cache  # a later commit does not change the code that this process has loaded
def commit(source: Path = SOURCE) -> str:
    """The commit of this package's source, with a plus if it was modified; empty if it was installed from a wheel."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(source), *words], capture_output=True, encoding="utf-8")

    try:
        # The package may be installed inside another project's repository.
        if git("ls-files", "--error-unmatch", "__init__.py").returncode:
            return ""
        changed = git("status", "--porcelain", "--", ".").stdout.strip()
        return git("rev-parse", "HEAD").stdout.strip() + ("+" if changed else "")
    except OSError:  # git is not installed
        return ""


DECIDING = (
    "python",
    "machine",
    "processor",
    "system",
    "device_kinds",
    "devices",
    "packages",
    "commit",
    "flags",
)
"""The parts of the environment that may affect the bits."""


def deciding(known: JsonObject) -> JsonObject:
    """The parts of the environment in `DECIDING`; devices without their numbers, which differ between processes."""
    found = {name: known[name] for name in DECIDING if name in known}
    if isinstance(devices := found.get("devices"), list):
        kinds = {re.sub(r"_?(\(id=)?\d+\)?$", "", str(device)) for device in devices}
        found["devices"] = f"{len(devices)} {' '.join(sorted(kinds))}"
    return found


def changes(then: JsonObject, now: JsonObject) -> dict[str, tuple[str, str]]:
    """Recorded parts of the environment that may affect the bits and have changed, as (then, now) by name."""
    then, now = deciding(then), deciding(now)
    return changed(then, {name: now.get(name) for name in then})


def changed(then: JsonObject, now: JsonObject, prefix: str = "") -> dict[str, tuple[str, str]]:
    """The entries that differ, as (then, now) by dotted name."""
    found: dict[str, tuple[str, str]] = {}
    for name in dict.fromkeys([*then, *now]):
        a, b = then.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= changed(a, b, f"{prefix}{name}.")
        elif a != b:
            found[prefix + name] = (worded(a), worded(b))
    return found


def worded(value: object) -> str:
    """A recorded fact as text."""
    if value in (None, ""):
        return "unknown"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def identity(config: str, data: dict[str, str], length: int | None = None) -> bytes:
    """SHA-256 of a run's `config.json` and data, without the paths of the data and of a model to start from.

    `length` replaces the config's number of meta-steps (None: unchanged).
    """
    settings = json.loads(config)
    if length is not None:
        settings["outer"] = settings.get("outer", {}) | {"meta_steps": length}
    for group, place in (("data", "folder"), ("model", "start")):
        if isinstance(settings.get(group), dict):
            settings[group].pop(place, None)
    if isinstance(settings.get("data"), dict) and settings["data"].get("file"):
        settings["data"]["file"] = (
            ""  # as in runs without a table: checkpoints of earlier versions include it
        )
    return sha256([json.dumps([settings, data], sort_keys=True).encode()])


def digest(config: Config, data: dict[str, str]) -> bytes:
    """A digest of everything that must be the same in all processes of a run."""
    packages = {name: version(name) for name in PACKAGES}
    return sha256([json.dumps([to_json(config), data, packages]).encode()])
