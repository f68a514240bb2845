import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import innerloop
from innerloop import parallel
from innerloop.io import versions
from innerloop.training.storage import provenance

HEAVY = (
    "orbax",
    "matplotlib",
    "tyro",
    "PIL",
    "pooch",
    "tensorboardX",
    "safetensors",
    "rich",
    "flax",
    "mujoco",
)


TYPES = ("LossFn", "MaybeKey", "Params", "Score", "Selection")
"""Names for types of more than one class, which have no name of their own."""


def run(code):
    """The words that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_import_is_fast_and_initialises_no_backend():
    lines = run(
        "import sys, time; import jax; before = set(sys.modules); begun = time.process_time()\n"
        "import innerloop; seconds = time.process_time() - begun\n"
        "from jax._src import xla_bridge\n"
        "print(seconds, len(xla_bridge._backends))\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before}; print(*new)"
    )
    assert float(lines[0]) < 0.3
    assert lines[1] == "0"
    assert not set(lines[2:]) & {*HEAVY, "equinox", "optax"}


def test_common_names_load_no_heavy_package_or_backend():
    names = "Task, Batch, InnerLoop, maml, OuterLoop, evaluate, Sinusoid, Episodes, MLP, Learner"
    lines = run(
        f"from innerloop import {names}\nimport sys\nfrom jax._src import xla_bridge\n"
        "print(len(xla_bridge._backends)); print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert lines[0] == "0"
    assert "equinox" in lines
    assert not set(lines) & set(HEAVY)


def test_import_has_no_side_effects(tmp_path):
    code = (
        "import logging, os, sys, threading, warnings; import jax\n"
        "seen = lambda: (dict(os.environ), threading.active_count(), list(logging.root.handlers),"
        " dict(jax.config.values), list(warnings.filters), os.listdir(), sys.stdout, sys.excepthook)\n"
        "before = seen(); import innerloop, innerloop.parallel.multi_process, innerloop.parallel.mesh; print(seen() "
        "== before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert (done.stdout.split(), done.stderr) == (["True"], "")


def test_functions_are_not_shadowed_by_their_modules():
    lines = run(
        "import innerloop.engine.evaluation.evaluate, innerloop.training.train\nimport innerloop\n"
        "from innerloop import evaluate\nfrom innerloop.training.progress.progress import Progress\n"
        "print(callable(innerloop.evaluate), callable(innerloop.train), callable(evaluate))"
    )
    assert lines == ["True"] * 3


@pytest.mark.parametrize("name", sorted(innerloop.HOMES))
def test_every_public_name_is_importable(name):
    value = getattr(innerloop, name)
    assert callable(value) or isinstance(value, ModuleType) or name in TYPES
    assert name in TYPES or value.__name__.split(".")[-1] == name
    assert getattr(innerloop, name) is value
    assert name in dir(innerloop)


@pytest.mark.parametrize("package", [innerloop, parallel])
def test_type_checking_imports_match_homes(package):
    homes = innerloop.HOMES if package is innerloop else parallel._HOMES
    source = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    told = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {name: f"{package.__name__}.{home}" for name, home in homes.items()}
    assert set(homes) <= set(dir(package))


def test_version_has_three_parts():
    assert innerloop.__version__.count(".") == 2


@pytest.fixture
def fresh_versions():
    """Versions are looked up once in a process."""
    versions.version.cache_clear()
    yield
    versions.version.cache_clear()


def test_version_of_uninstalled_clone(monkeypatch, fresh_versions):
    installed = versions.metadata.version

    def version(package):
        if package == "innerloop":
            raise versions.metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(versions.metadata, "version", version)
    assert provenance.environment()["packages"]["innerloop"] == "(not installed)"
    assert innerloop.__version__ == "(not installed)"


def test_unknown_names_raise_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'mamml'"):
        innerloop.mamml  # noqa: B018


@pytest.mark.parametrize("name", innerloop.PACKAGES)
def test_packages_are_available_as_attributes(name):
    assert innerloop.__getattr__(name) is import_module(f"innerloop.{name}")
    assert name in dir(innerloop)


def test_star_import_includes_every_public_name():
    found: dict = {}
    exec("from innerloop import *", found)
    assert set(innerloop.HOMES) <= set(found)
    exec("from innerloop.parallel import *", found)
    assert set(parallel._HOMES) <= set(found)
    exec("from innerloop.rl import *", found)
    assert callable(found["fit"])  # not the module `innerloop.rl.fit`
