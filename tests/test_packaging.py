"""Test the wheel, the lock files and the project's metadata, without network access."""

import json
import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "innerloop"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def test_wheel_contains_every_package_file(wheel: zipfile.ZipFile) -> None:
    kept = {".py", ".txt", ".safetensors", ".typed", ".html", ".css", ".js", ".json"}
    source = {
        str(p.relative_to(SOURCE.parent))
        for p in SOURCE.rglob("*")
        if p.suffix in kept or p.name == "py.typed"
    }
    shipped = set(wheel.namelist())
    assert source - shipped == set()
    assert "innerloop/py.typed" in shipped
    assert any(name.startswith("innerloop/tasks/datasets/splits/") for name in shipped)


def test_wheel_contains_nothing_else(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert name.startswith(("innerloop/", "innerloop-")), name
        assert "__pycache__" not in name


def test_wheel_has_metadata_and_license(wheel: zipfile.ZipFile) -> None:
    (path,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = wheel.read(path).decode()
    assert "Requires-Python: >=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def pins(lock: Path) -> dict[str, str]:
    """Every package in a lock file, as name -> version."""
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.stem)
def test_lock_file_has_only_versions_and_hashes(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^;]+)? \\| {4}--hash=sha256:[0-9a-f]{64}( \\)?", line), (
            line
        )


def test_lock_files_match_project_dependencies() -> None:
    groups = PROJECT["dependency-groups"]
    wanted = {
        "runtime": PROJECT["project"]["dependencies"] + groups["build"],
        "test": PROJECT["project"]["dependencies"]
        + groups["build"]
        + groups["test"]
        + groups["export"]
        + groups["lint"],
        "docs": PROJECT["project"]["dependencies"] + groups["build"] + groups["docs"],
        "adapters": groups["adapters"],
        "mutants": PROJECT["project"]["dependencies"] + groups["build"] + groups["test"] + groups["mutants"],
    }
    assert {lock.stem for lock in LOCKS} == set(wanted)
    for lock in LOCKS:
        missing = {canonical(requirement) for requirement in wanted[lock.stem]} - set(pins(lock))
        assert missing == set(), lock.name


def test_lock_files_agree_with_each_other() -> None:
    test = pins(ROOT / "requirements" / "test.txt")
    for lock in LOCKS:
        for name, version in pins(lock).items():
            assert test.get(name, version) == version, f"{lock.name}: {name}"


def test_dependencies_have_only_lower_bounds() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        assert not re.search(r"<|~=|==", requirement), requirement


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_make_lists_its_targets(project_copy: Path) -> None:
    told = make(project_copy)
    assert told.returncode == 0
    assert "make quickstart" in told.stdout
    assert "make test" in told.stdout


def test_make_without_python_explains_what_to_do(project_copy: Path) -> None:
    told = make(project_copy, "PYTHON=no-such-python", "test")
    assert told.returncode != 0
    assert "Python 3.11 or later" in told.stderr
    assert "make PYTHON=/path/to/python test" in told.stderr
    assert not (project_copy / ".venv").exists()


def test_sbom_matches_runtime_lock_file() -> None:
    """It lists every package once, in its locked version, with a licence; `make sbom` writes it."""
    bill = json.loads((ROOT / "requirements" / "sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {part["name"]: part["version"] for part in bill["components"]}
    assert listed == pins(ROOT / "requirements" / "runtime.txt")
    assert len(listed) == len(bill["components"])
    assert all(part["licenses"][0]["license"]["name"] for part in bill["components"])


def test_docker_image_copies_context_and_runs_unprivileged() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    travels = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    assert copied == travels
    assert all((ROOT / source).exists() for source in copied)
    assert "USER innerloop" in lines
    assert any("--require-hashes -r requirements/runtime.txt" in line for line in lines)


def test_minimum_jax_version_is_consistent() -> None:
    bounds = [line for line in PROJECT["project"]["dependencies"] if line.startswith("jax>=")]
    assert bounds == ["jax>=0.10.2"]
    assert PROJECT["project"]["optional-dependencies"]["cuda"] == ["jax[cuda13]>=0.10.2"]


def test_cluster_examples_are_well_formed() -> None:
    deploy = ROOT / "docs" / "guides" / "deploy"
    assert subprocess.run(["bash", "-n", str(deploy / "slurm.sh")]).returncode == 0
    text = (deploy / "kubernetes.yaml").read_text()
    assert text.count("JAX_") == 3
    assert "\t" not in text
