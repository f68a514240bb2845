"""`innerloop completion`: a shell script that completes commands, presets and options."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import tyro

from innerloop.cli.common import parse
from innerloop.cli.complaints import options_in

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9](?![\w-]|\.\*)")
TAKES_PRESETS: tuple[str, ...] = ("train", "list")
TAKES_WEIGHTS: tuple[str, ...] = ("evaluate", "adapt", "export", "analyze", "report", "compare")

BASH = r"""_innerloop() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={commands}
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _innerloop innerloop
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
"""zsh runs the bash script."""


@dataclass(frozen=True)
class Completion:
    """Print a script that makes your shell complete commands, presets and options.

    bash: eval "$(innerloop completion bash)" in ~/.bashrc; zsh: the same with `zsh`, in ~/.zshrc; fish: innerloop
    completion fish > ~/.config/fish/completions/innerloop.fish
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell."""


def run(argv: Sequence[str]) -> int:
    """Run `innerloop completion` and return the exit code."""
    arguments = parse(Completion, argv)
    print(script(arguments.shell), end="")
    return 0


def script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """The script for a shell."""
    known = words()
    if shell == "fish":
        return "".join(_fish(command, found) for command, found in known.items())
    cases = "\n".join(f"        {c}) words={shlex.quote(' '.join(found))} ;;" for c, found in known.items())
    bash = BASH.format(commands=shlex.quote(" ".join(known)), cases=cases)
    return bash if shell == "bash" else ZSH + bash


def _fish(command: str, found: list[str]) -> str:
    """The lines of one command: its name, and what may follow it."""
    lines = [f"complete -c innerloop -n __fish_use_subcommand -f -a {command}"]
    within = f"complete -c innerloop -n '__fish_seen_subcommand_from {command}'"
    lines += [f"{within} -l {w[2:]}" if w.startswith("--") else f"{within} -a {w}" for w in found]
    return "\n".join(lines) + "\n"


def words() -> dict[str, list[str]]:
    """What may follow each command: its options, and presets where it takes one (for some, only those with weights)."""
    from innerloop.cli import COMMANDS
    from innerloop.config.presets.registry import all_presets
    from innerloop.training.storage import shipped

    presets = dict.fromkeys(TAKES_PRESETS, list(all_presets()))
    presets |= dict.fromkeys(TAKES_WEIGHTS, shipped.names())
    found = {name: options(name) + presets.get(name, []) for name in COMMANDS}
    found["completion"] += ["bash", "zsh", "fish"]
    return {name: list(dict.fromkeys(after)) for name, after in found.items()}


def options(command: str) -> list[str]:
    """The options named in a command's help text; those of `train` include the settings of every kind of preset."""
    from innerloop.cli import MODULES

    module = import_module(f"innerloop.cli.{MODULES.get(command, command)}")
    words = ["navigation-maml-trpo", "-H"] if command == "train" else ["--help"]
    return options_in(lambda: module.run(words), OPTION)
