"""When, from what source and on what machine something was measured."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path


def commit() -> str:
    """The commit of the working tree, with a plus if the package's source was changed."""
    ask = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    changed = ask("status", "--porcelain", "--untracked-files=no", "--", "src")
    return ask("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as Linux tells it, else as Python does."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def circumstances() -> dict[str, str]:
    """Commit, date and processor."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "python": platform.python_version(),
    }
