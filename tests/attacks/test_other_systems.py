"""Windows and macOS: nothing that they lack is called unless it is known to be there."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest

from innerloop.cli import COMMANDS
from innerloop.training.storage import checkpoint_manager

SOURCE = Path(__file__).resolve().parents[2] / "src"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = words("crypt curses fcntl grp nis posix pty pwd readline resource spwd syslog termios tty")
"""Modules that Windows lacks."""

NAMES = {
    "os": words(
        """WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG WTERMSIG chown chroot confstr ctermid fchdir fchmod fchown
        fork forkpty fpathconf fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority
        getresgid getresuid getsid getuid initgroups killpg lchown lockf major makedev mkfifo mknod nice openpty
        pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork
        sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups setpgid
        setpriority setregid setresgid setresuid setreuid setsid setuid statvfs sync sysconf sysconf_names
        tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY
        O_SYNC O_DSYNC O_NOCTTY"""
    ),
    "signal": words(
        """SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1
        SIGUSR2 SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending
        sigtimedwait sigwait sigwaitinfo"""
    ),
    "time": words("clock_gettime clock_settime pthread_getcpuclockid tzset"),
    "socket": words("AF_UNIX SO_REUSEPORT"),
}
"""What Windows lacks in modules that it has."""

ASKS = ("hasattr(os,", "getattr(os,", "sys.platform", "os.name")
"""Conditions that know the system."""

PLACES = {"/proc/cpuinfo": "provenance.py"}
"""Files of one system, and where their absence is handled."""


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def guarded(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether it runs only where it was asked for, or its absence is caught."""
    while (child := node) in parents:
        node = parents[node]
        if isinstance(node, ast.If | ast.IfExp) and any(ask in ast.unparse(node.test) for ask in ASKS):
            return True
        if isinstance(node, ast.Try) and child in node.body:
            caught = " ".join(ast.unparse(h.type) for h in node.handlers if h.type)
            if "ImportError" in caught or "AttributeError" in caught:
                return True
    return False


def lacking(tree: ast.AST) -> Iterator[str]:
    """What Windows lacks."""
    parents = parents_of(tree)
    for node in ast.walk(tree):
        found = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found = " ".join(MODULES.intersection(names))
            for home in names:
                found += " ".join(NAMES.get(home, frozenset()).intersection(a.name for a in node.names))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = node.attr if node.attr in NAMES.get(node.value.id, ()) else ""
        if found and not guarded(node, parents):
            yield found


def elsewhere(tree: ast.AST) -> Iterator[str]:
    """What does something else on Windows: text where bytes are meant, other encodings, names, shells."""
    inside = {id(n) for call in calls(tree, "open", "os.close") for a in call.args for n in ast.walk(a)}
    for call in calls(tree):
        name, words = ast.unparse(call.func), ast.unparse(call)
        given = {keyword.arg for keyword in call.keywords}
        if name == "os.rename" or (name.endswith(".rename") and len(call.args) == 1 and not given):
            yield f"{name}: fails where the target exists; use replace"
        if name == "os.open" and "O_CREAT" in words and id(call) not in inside and "_SAFE" not in words:
            yield "os.open: bytes are changed without O_BINARY"
        if given & {"preexec_fn", "pass_fds", "shell"}:
            yield f"{name}: {given}"
        as_text = name.startswith("subprocess.") and given & {"text", "universal_newlines"}
        if as_text and "encoding" not in given:
            yield f"{name}: text of the locale's encoding"
        if name.endswith(("fdopen", "TemporaryFile")) and "encoding" not in given and "b'" not in words:
            yield f"{name}: text of the locale's encoding"
        if name.endswith("get_context") and "'fork'" in words:
            yield f"{name}: processes are spawned"


def calls(tree: ast.AST, *names: str) -> list[ast.Call]:
    """All calls, or those of these functions."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if not names or ast.unparse(call.func) in names]


def places(tree: ast.AST) -> Iterator[str]:
    """Files of one system, and formats of times that Windows does not know."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(("/proc/", "/dev/", "/tmp/", "/etc/", "/sys/", "/usr/", "/var/")):
                yield node.value
            if node.value.startswith("%") and "%-" in node.value:
                yield node.value


def test_source_avoids_platform_specific_calls():
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        found = [*lacking(tree), *elsewhere(tree), *(p for p in places(tree) if PLACES.get(p) != path.name)]
        if path.name == "tensorboard.py":  # its flags have a name
            assert "O_BINARY" in path.read_text("utf-8")
        assert not found, f"{path.name}: {found}"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("os.fork()", True),
        ("signal.raise_signal(signal.SIGKILL)", True),
        ("import fcntl", True),
        ("from resource import getrusage", True),
        ("from os import getuid", True),
        ("try:\n import fcntl\nexcept OSError: 0", True),
        ("try: 0\nexcept ImportError:\n import fcntl", True),
        ("if os.path.exists(x): os.getuid()", True),
        ("os.rename(a, b)", True),
        ("path.rename(b)", True),
        ("os.write(os.open(a, os.O_CREAT | os.O_WRONLY), x)", True),
        ("subprocess.run(x, text=True)", True),
        ("subprocess.Popen(x, preexec_fn=f)", True),
        ("os.fdopen(x, 'w')", True),
        ("open('/proc/self/status', encoding='utf-8')", True),
        ("time.strftime('%-d')", True),
        ("multiprocessing.get_context('fork')", True),
        ("try:\n import fcntl\nexcept ImportError: 0", False),
        ("n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", False),
        ("if sys.platform != 'win32': os.getuid()", False),
        ("getattr(os, 'O_NOFOLLOW', 0)", False),
        ("open(os.open(a, os.O_CREAT | os.O_RDWR), 'a', encoding='utf-8')", False),
        ("subprocess.run(x, text=True, encoding='utf-8')", False),
        ("os.replace(a, b); os.kill(x, signal.SIGTERM); frame.rename(columns=x)", False),
    ],
)
def test_portability_check_finds_unguarded_calls(code: str, wrong: bool):
    tree = ast.parse(code)
    assert bool([*lacking(tree), *elsewhere(tree), *places(tree)]) == wrong


def test_windows_checkpoint_paths_need_no_symlink(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Links are for paths that Orbax misreads; where no link can be made, the path itself has to do."""
    assert checkpoint_manager.is_plain(PureWindowsPath(r"C:\Users\me\runs\a-b"))
    assert not checkpoint_manager.is_plain(tmp_path / "[x]")
    made = checkpoint_manager.linked(tmp_path)
    assert made is not None
    assert (Path(made.name) / "checkpoints").samefile(tmp_path)
    made.cleanup()

    def refused(*paths: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refused)
    assert checkpoint_manager.linked(tmp_path) is None


def test_help_is_encodable_in_cp1252():
    """As on a console of Windows: the usage of each command, and all presets."""
    asked = [["--help"], ["list"], *([name, "--help"] for name in COMMANDS)]
    script = f"import sys; from innerloop.cli import main; sys.exit(max(main(words) for words in {asked}))"
    plain = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "cp1252:strict",
    }
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | plain, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("cp1252")
    assert all(f"usage: innerloop {name} " in text for name in COMMANDS)
