"""Tab completion: what bash offers, asked of bash itself; the scripts of the other shells by their lines."""

import shutil
import subprocess
from pathlib import Path

import pytest

from innerloop.cli import COMMANDS, completion


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "innerloop.bash"
    path.write_text(completion.script("bash"), encoding="utf-8")
    return path


def offered(script: Path, *words: str) -> list[str]:
    """What bash would offer with the cursor at the end of the last word."""
    ask = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _innerloop; echo "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", ask, "bash", str(script), "innerloop", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ev"], ["evaluate"]),
        (["train", "sinusoid-mam"], ["sinusoid-maml", "sinusoid-maml-plus-plus"]),
        (["evaluate", "sinusoid-mam"], ["sinusoid-maml"]),
        (["train", "sinusoid-maml", "--data.no-f"], ["--data.no-flip"]),
        (["train", "--model.f"], ["--model.features", "--model.filters"]),
        (["train", "--rl.cl"], ["--rl.clip"]),
        (["train", "sinusoid-maml", "--inner.lear"], ["--inner.learning-rate"]),
        (["train", "--outer.meta-b"], ["--outer.meta-batch"]),
        (["evaluate", "runs/x", "--norm"], ["--normalization"]),
        (["report", "sinusoid-m"], ["sinusoid-maml"]),
        (["quickstart", "sinusoid"], []),
        (["completion", "f"], ["fish"]),
    ],
)
def test_bash_completes_words(bash: Path, words: list[str], expected: list[str]):
    assert offered(bash, *words) == expected


def test_every_command_is_offered(bash: Path):
    assert offered(bash, "") == list(COMMANDS)


def test_zsh_script_wraps_bash_script(bash: Path):
    first, _, rest = completion.script("zsh").partition("\n")
    assert first == "autoload -U +X bashcompinit && bashcompinit"
    assert rest == bash.read_text("utf-8")


def test_fish_script_has_one_line_per_word():
    lines = completion.script("fish").splitlines()
    assert "complete -c innerloop -n __fish_use_subcommand -f -a train" in lines
    assert "complete -c innerloop -n '__fish_seen_subcommand_from train' -l inner.learning-rate" in lines
    assert "complete -c innerloop -n '__fish_seen_subcommand_from evaluate' -a sinusoid-maml" in lines
    assert len(lines) == len(set(lines)) == sum(1 + len(found) for found in completion.words().values())


def test_unknown_shell_is_rejected(command):
    code, out, err = command("completion", "tcsh")
    assert (code, out) == (2, "")
    assert "bash" in err
