"""Complaints of tyro, which prints boxes of several lines, as one sentence."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable
from typing import TypeVar

from innerloop.cli.help import Capture, wrapped
from innerloop.errors import InnerloopError, did_you_mean
from innerloop.io.text import LIMIT, printable

VALUES = {
    r"invalid literal for int\(\) with base 10: (.*)": "must be a whole number",
    r"could not convert string to float: (.*)": "must be a number",
    r"Could not find valid parse for arguments: \[(.*)\]": "cannot be read",
    r"[Nn]o type matching .* could be instantiated from \[(.*?)\]\. .*": "cannot be read",
}
"""How tyro says that a value is wrong, with the value, and how we say it."""


OPTION = re.compile(r"(?<![\w.-])--?[a-zA-Z][\w.-]*")
"""An option in a help text."""

Parsed = TypeVar("Parsed")


def in_one_sentence(parse: Callable[[list[str]], Parsed], words: list[str], command: str) -> Parsed:
    """Run tyro, whose complaints echo the arguments and are printed in boxes, on the arguments of a subcommand.

    Raises InnerloopError if a setting was rejected, or an argument is missing, unknown or wrong.
    """
    told, shown = io.StringIO(), Capture()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(shown):
            return parse(words)
    except SystemExit as ended:
        print(wrapped(shown.getvalue()), end="")
        if (refused := _refusal(ended)) is not None:
            who = "--" + refused.who.replace("_", "-")
            raise InnerloopError(who, refused.problem) from None
        if ended.code and told.getvalue():
            text, listed = _read(told.getvalue())
            if text.startswith(("Unrecognized", "Missing")):
                show_help = lambda: parse(["-H" if command == "train" else "--help"])
                _check_options(words, options_in(show_help), command)
            raise _complaint(text, listed, command) from None
        for line in told.getvalue().splitlines()[:100]:
            print(printable(line, LIMIT), file=sys.stderr)
        raise


def options_in(show_help: Callable[[], object], option: re.Pattern[str] = OPTION) -> list[str]:
    """All options of a subcommand, from its help text."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        show_help()
    return sorted(set(option.findall(text.getvalue())))


def _check_options(words: list[str], options: list[str], command: str) -> None:
    """Raise InnerloopError for a word that looks like an option and is not one, suggesting similar options."""
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if OPTION.fullmatch(name) and name not in options:
            near = " or ".join(_nearest(name, options))
            hint = f"did you mean {near}?" if near else _see(command)
            raise InnerloopError(command, "unknown option", got=word.partition("=")[0], hint=hint) from None


def _nearest(name: str, options: list[str]) -> list[str]:
    """The options whose names, or their last parts, are most similar to this."""
    ratio = lambda a, b: difflib.SequenceMatcher(None, a.lstrip("-"), b.lstrip("-")).ratio()
    scores = {option: max(ratio(name, option), ratio(name, option.rpartition(".")[2])) for option in options}
    best = max(scores.values(), default=0.0)
    return [option for option, score in scores.items() if score == best >= 0.7][:3]


def _see(command: str) -> str:
    """A hint at the help of a subcommand."""
    return f"see `innerloop {command}{' PRESET -H' if command == 'train' else ' --help'}`"


def _read(box: str) -> tuple[str, list[str]]:
    """What a box says before its first rule, and the arguments that it lists there."""
    _, _, inside = re.sub("[│╭╮╰╯]", " ", box).partition("\n")  # without its title; in ASCII it has no frame
    first = next((part for part in re.split(r"\n? *[─-]{4,} *\n", inside + "\n") if part.strip()), "")
    return " ".join(first.split()), re.findall(r"^ {6}(\S.*?) *$", first, re.MULTILINE)


def _refusal(ended: BaseException | None) -> InnerloopError | None:
    """The InnerloopError that ended the program, if there is one."""
    while ended is not None and not isinstance(ended, InnerloopError):
        ended = ended.__context__
    return ended


def _wrong_choice(argument: str, value: str, choices: list[str]) -> InnerloopError:
    """The error for a value that is none of the choices."""
    # Sorted, as tyro's order may change; to leave the option out means None.
    choices = sorted({*choices} - {"None"})
    commas = "separate values by spaces, not by commas"
    hint = commas if "," in value else did_you_mean(value.strip("'"), choices, "")
    wrong = f"must be one of {', '.join(map(repr, choices))}"
    return InnerloopError(argument, wrong, got=value, hint=hint)


def _complaint(text: str, listed: list[str], command: str) -> InnerloopError:
    """The error that tyro's text is about."""
    see = _see(command)
    if text.startswith("Missing from"):
        return InnerloopError(command, f"needs {' and '.join(listed)}", hint=see)
    if unknown := re.match(r"Unrecognized options: ([^,]*)", text):
        return InnerloopError(command, "unexpected argument", got=unknown[1], hint=see)
    if choice := re.match(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)\.", text):
        return _wrong_choice(choice[2], choice[1], re.findall("'(.*?)'", choice[3]))
    if missing := re.match(r"Missing value for argument '(\S+)'", text):
        return InnerloopError(missing[1], "needs a value", hint=see)
    if parsing := re.match(r"Error parsing (\S+): (.*)", text):
        for pattern, wrong in VALUES.items():
            if value := re.search(f"{pattern}$", parsing[2]):
                return InnerloopError(parsing[1], wrong, got=value[1], hint=see)
        return InnerloopError(parsing[1], parsing[2].rstrip("."), hint=see)
    return InnerloopError(command, text.rstrip(".") or "wrong arguments", hint=see)
