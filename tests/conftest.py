"""Set up before `innerloop` is imported: two CPU devices, run-time shape checks, data and cache folders."""

import contextlib
import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from matplotlib.figure import Figure
from tests import shape_checks
from tests.compilation import compile_for, compiled_quickly, forget_programs, kept_in, quick_variables

import innerloop

shape_checks.install("innerloop")
innerloop.use_cores(2)

gc.set_threshold(50_000, 20, 50)  # traces have many small objects: collecting them takes a tenth of the time

hypothesis.settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("deterministic")

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
if "INNERLOOP_DATA" not in os.environ and BESIDE.is_dir():
    os.environ["INNERLOOP_DATA"] = str(BESIDE)

CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


@pytest.fixture(scope="session", autouse=True)
def threads_are_not_traced():
    """In Python 3.11, a thread, and the save in it, may die at start-up while another installs coverage's tracing."""
    threading.settrace(None)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module", autouse=True)
def compiler(request: pytest.FixtureRequest) -> None:
    """Compile quickly, except for modules marked `optimised`, which test the exact bits or the speed that users get."""
    forget_programs()  # programs of other modules are cached on disk; in memory they would add up to gigabytes
    compile_for(quick=request.node.get_closest_marker("optimised") is None)


@pytest.fixture(scope="module")
def quick_processes() -> Iterator[None]:
    """Compile quickly in the processes that a module starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_variables().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def quickly() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`with quickly():` for fixtures that outlive a module."""
    return compiled_quickly


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save every figure as an empty one, in tests that look at no figure: drawing takes seconds."""
    draw = Figure.savefig

    def savefig(figure: Figure, *args: Any, **settings: Any) -> None:
        draw(Figure(figsize=(0.1, 0.1)), *args, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`command(*words) -> (exit code, stdout, stderr)`."""
    from innerloop.cli import main  # imported late, after the hook that checks it is installed

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def complaint(command: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """The one-line error of a command that must exit with code 2 and print nothing else."""

    def run(*words: object) -> str:
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert err.startswith("innerloop: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run


@pytest.fixture
def refused(command: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """The same for a command that may have printed to stdout before."""

    def run(*words: object) -> str:
        code, _, err = command(*words)
        assert (code, err.count("\n"), "Traceback" in err) == (2, 1, False), err
        return err

    return run


@pytest.fixture(scope="module")
def no_compilation_cache():
    """Disable the disk cache of compiled programs that a command run earlier in this process turned on."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    kept = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in kept.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def pytest_configure(config: pytest.Config) -> None:
    if "INNERLOOP_CACHE" not in os.environ:
        config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="innerloop-cache-")
        os.environ["INNERLOOP_CACHE"] = config.stash[CACHE].name
    compile_for(quick=True)  # for fixtures that outlive a module
    kept_in(Path(os.environ["INNERLOOP_CACHE"], "compiled"))


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = os.environ.get("INNERLOOP_DATA", "")
    if Path(folder or "missing").is_dir():
        return
    reason = f"INNERLOOP_DATA names no folder ({folder!r}): the real data sets are absent"
    for item in items:
        if item.get_closest_marker("data"):
            item.add_marker(pytest.mark.skip(reason=reason))
