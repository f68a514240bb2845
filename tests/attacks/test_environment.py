"""Variables, encodings, closed streams and missing homes: the work goes on, or one sentence says why not."""

import ast
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from innerloop import cli
from innerloop.analysis import result_cache
from innerloop.cli import common, streams
from innerloop.errors import InnerloopError
from innerloop.parallel.cpu_devices import use_cores
from innerloop.tasks.class_arrays import ClassArrays
from innerloop.tasks.datasets import image_folder, memmap, mini_imagenet
from innerloop.tasks.io import cache, download
from innerloop.training.memory.memory_plan import available_memory
from innerloop.training.storage.sources import weights_path

SOURCE = Path(__file__).resolve().parents[2] / "src"
NOBODY = "~nobody-of-this-name/x"
LIST = (sys.executable, "-m", "innerloop", "list", "sinusoid-maml")


def run(*words: str, redirect: str = "", **changes: str | None) -> subprocess.CompletedProcess[bytes]:
    """A command of its own, by a shell for its redirections; a variable that is None is taken away."""
    variables = {name: value for name, value in (os.environ | changes).items() if value is not None}
    script = f'exec "$@" {redirect}'
    return subprocess.run(["bash", "-c", script, "bash", *words], env=variables, capture_output=True)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-16"])
def test_unencodable_characters_are_escaped(encoding: str):
    """θ and ± are escaped where they are not to be had."""
    told = (
        "import sys; from innerloop.cli import main; from innerloop.cli.common import console;"
        "from innerloop import cli; cli.dispatch = lambda argv: console().print('\\u03b8 \\u00b1 \\u2713') or 0;"
        "sys.exit(main([]))"
    )
    done = run(sys.executable, "-c", told, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    wanted = "θ ± ✓".encode(encoding, "backslashreplace").decode(encoding)
    assert text.strip() == wanted


def test_commands_work_in_c_locale():
    """Old systems without UTF-8: options, tables and errors."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert run(*LIST, **plain).returncode == 0
    done = run(*LIST[:-1], "θ/[/x]", **plain)
    assert done.returncode == 2
    assert done.stderr.startswith(b"innerloop: ")
    assert done.stderr.isascii()
    assert b"[/x]" in done.stderr


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_give_no_traceback(redirect: str):
    """Nothing is written into a file that took a closed stream's number, and no stream is missing."""
    done = run(*LIST[:-1], "nope", redirect=redirect)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr + done.stdout


def test_closed_stream_descriptors_open_null_device():
    script = (
        "import os, sys; from innerloop.cli import streams; streams._open_closed();"
        "same = os.path.sameopenfile; null = os.open(os.devnull, os.O_RDWR);"
        "assert null > 2 and same(null, 1) and same(null, 2); print('x'); print('y', file=sys.stderr)"
    )
    assert run(sys.executable, "-c", script, redirect=">&- 2>&-").returncode == 0


@pytest.mark.parametrize(("platforms", "named"), [("cuda", "cuda"), ("no-such", "no-such")])
def test_unavailable_jax_platform_is_reported(platforms: str, named: str):
    words = ("evaluate", "sinusoid-maml", "--tasks", "2")
    done = run(*LIST[:-2], *words, JAX_PLATFORMS=platforms)
    if platforms == "cuda" and done.returncode == 0:
        pytest.skip("there is CUDA")
    assert done.returncode == 2
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("innerloop: JAX: cannot start (")
    assert f"got {named}; unset JAX_PLATFORMS" in last
    assert b"Traceback" not in done.stderr


def test_unknown_home_folder_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """In every place that takes a path with `~`."""
    monkeypatch.setenv("INNERLOOP_CACHE", NOBODY)
    for named, make in {
        "INNERLOOP_CACHE": download.cache_folder,
        "image_folder.load": lambda: image_folder.load(NOBODY),
        "image_folder.read_classes": lambda: image_folder.read_classes(NOBODY),
        "mini_imagenet.load": lambda: mini_imagenet.load(NOBODY),
        "memmap.build": lambda: memmap.build(NOBODY, tmp_path / "x.npy"),
        "memmap": lambda: memmap.open(NOBODY),
        "root": lambda: download._data_folders(NOBODY),
    }.items():
        with pytest.raises(
            InnerloopError, match=f"^{named}: names a home folder that does not exist, got '~nobody"
        ):
            make()
    assert cli.main(["train", "sinusoid-maml", "--folder", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()


def test_train_reports_images_in_unknown_home_folder(command, tmp_path: Path):
    words = ("--data.dataset", "folder", "--data.folder", NOBODY, "--folder", tmp_path / "run")
    code, _, err = command("train", "glyphs-5way-1shot-maml", *words)
    assert code == 2
    assert "names a home folder that does not exist" in err
    assert "Traceback" not in err


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container with a number for a user."""
    for name in ("HOME", "INNERLOOP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_caches_are_skipped_without_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, four_classes: ClassArrays
):
    """No folder called `~` is made, and what is only kept for the next time is done without."""
    monkeypatch.chdir(tmp_path)
    without_home(monkeypatch)
    with pytest.raises(InnerloopError, match="no home folder to keep it in; set INNERLOOP_CACHE"):
        download.cache_folder()
    with pytest.warns(UserWarning, match="compiled programs are not cached"):
        assert common._usable_cache() is None
    with pytest.warns(UserWarning, match="continuing without a cache"):
        assert cache.cached("x", "x", lambda: four_classes) is four_classes
    with pytest.warns(UserWarning, match="result of an experiment could not be cached"):
        result_cache.save("x", {"a": 1})
    assert result_cache.load("x") is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def four_classes() -> ClassArrays:
    import numpy as np

    examples = np.zeros((4, 2, 2, 1), np.uint8)
    return ClassArrays(examples, np.arange(4, dtype=np.int32), np.ones(4, np.int32), tuple("abcd"))


def test_unwritable_cache_gives_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A file where its folder should be, which stops the superuser too."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "file" / "x"))
    with pytest.warns(UserWarning, match="compiled programs are not cached .*Not a directory"):
        assert common._usable_cache() is None
    with pytest.warns(UserWarning, match="result of an experiment could not be cached .*Not a directory"):
        result_cache.save("x", {"a": 1})
    assert result_cache.load("x") is None
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path))
    assert common._usable_cache() == tmp_path / "compiled"
    for damage in (b"\xff", b"[" * 100_000, b'{"a"'):
        result_cache._folder().mkdir(exist_ok=True)
        (result_cache._folder() / "x.json").write_bytes(damage)
        assert result_cache.load("x") is None


def test_jax_variable_sets_minimum_cached_compile_time(monkeypatch: pytest.MonkeyPatch):
    """Without it, all are, also those that compile quickly."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, 5.0)
        monkeypatch.setenv(name.upper(), "5.0")
        common._keep_compiled()
        assert getattr(jax.config, name) == 5.0
        monkeypatch.delenv(name.upper())
        common._keep_compiled()
        assert getattr(jax.config, name) == 0.0
    finally:
        jax.config.update(name, before)


def test_warnings_are_formatted_without_source_location(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Without a line of code, and with control characters as escapes."""
    before = warnings.formatwarning
    with streams.prepared():
        told = warnings.formatwarning(UserWarning("innerloop: \x1b[31mx"), UserWarning, "a.py", 1)
    assert told == "innerloop: \\x1b[31mx\n"
    assert warnings.formatwarning is before


@pytest.mark.parametrize("name", ["runs/nope", "./nope", "../nope", "/nope", "~/nope", "nope/"])
def test_missing_path_is_not_treated_as_preset(name: str, complaint):
    assert "there is no such folder or file" in complaint("evaluate", name)
    with pytest.raises(InnerloopError, match="there is no such folder or file; give a run's folder"):
        weights_path(name)


def test_use_cores_can_be_called_twice():
    """The first cell of a notebook, run again after the others."""
    use_cores(2)  # as conftest did, before JAX started
    use_cores()
    with pytest.raises(InnerloopError, match="JAX has started already"):
        use_cores(3)
    for wrong in (0, 1025, 10**9):
        with pytest.raises(InnerloopError, match="the number of devices must be 1"):
            use_cores(wrong)


def test_available_memory_works_without_sysconf(monkeypatch: pytest.MonkeyPatch):
    """Windows has none of it."""
    monkeypatch.delattr(os, "sysconf_names")
    monkeypatch.delattr(os, "sysconf")
    assert available_memory() == 2**63


def test_source_opens_text_files_with_explicit_encoding():
    """No file's encoding is left to the locale."""
    others = (
        "archive.open",
        "self.recorder.open",
        "os.open",
        "tarfile.open",
        "gzip.open",
        "memmap.open",
        "PIL.Image.open",
        "webbrowser.open",
        "read_text",
    )
    for path in SOURCE.rglob("*.py"):
        for call in (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)):
            name, words = ast.unparse(call.func), ast.unparse(call)
            own = path.name == "memmap.py" and name == "open"  # its function of this name
            if f".{name}".endswith((".open", ".read_text", ".write_text")) and name not in others and not own:
                told = ("utf-8", "ascii", "'rb'", "'wb'")
                assert any(x in words for x in told), f"{path.name}: {words}"


def test_list_json_is_ascii():
    """Whatever reads it needs no encoding."""
    done = run(*LIST, "--json")
    assert done.stdout.isascii()
    assert json.loads(done.stdout)[0]["name"] == "sinusoid-maml"
