"""Record when, from which commit and on which machine something was measured."""

import platform
import shutil
import subprocess
from datetime import UTC, datetime

from innerloop.training.storage.provenance import processor


def commit() -> str:
    """The commit of the working tree, with a plus if `src` has uncommitted changes; empty without git."""
    if shutil.which("git") is None:
        return ""
    ask = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "src")
    return ask("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def circumstances() -> dict[str, str]:
    """Commit, date, processor and Python version."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "python": platform.python_version(),
    }
