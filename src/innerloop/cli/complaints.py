"""Complaints of tyro, which prints boxes of several lines, as one sentence."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterator

from innerloop.errors import InnerloopError
from innerloop.io.text import LIMIT, printable

VALUES = {
    r"invalid literal for int\(\) with base 10: (.*)": "must be a whole number",
    r"could not convert string to float: (.*)": "must be a number",
    r"Could not find valid parse for arguments: (.*)": "cannot be read",
    r"[Nn]o type matching .* could be instantiated from (.*?)\. .*": "cannot be read",
}
"""How tyro says that a value is wrong, with the value, and how we say it."""


@contextlib.contextmanager
def in_one_sentence(command: str) -> Iterator[None]:
    """Run tyro, whose complaints echo the arguments and are printed in boxes.

    Args:
        command: the subcommand, for hints.

    Raises:
        InnerloopError: a setting was rejected, or an argument is missing, unknown or wrong.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    except SystemExit as ended:
        if (refused := _refusal(ended)) is not None:
            who = "--" + refused.who.replace("_", "-")
            raise InnerloopError(who, str(refused).removeprefix(f"{refused.who}: ")) from None
        if ended.code and told.getvalue():
            raise _complaint(told.getvalue(), command) from None
        for line in told.getvalue().splitlines()[:100]:
            print(printable(line, LIMIT), file=sys.stderr)
        raise


def _refusal(ended: BaseException | None) -> InnerloopError | None:
    """The InnerloopError that ended the program, if there is one."""
    while ended is not None and not isinstance(ended, InnerloopError):
        ended = ended.__context__
    return ended


def _complaint(box: str, command: str) -> InnerloopError:
    """The error that a box is about: what it says before its first rule, and the arguments that it lists."""
    _, _, inside = re.sub("[│╭╮╰╯]", " ", box).partition("\n")  # without its title; in ASCII it has no frame
    parts = [part for part in re.split(r"\n? *[─-]{4,} *\n", inside + "\n") if part.strip()]
    text = " ".join(parts[0].split()) if parts else ""
    listed = lambda text: re.findall(r"^ {6}(\S.*?) *$", text, re.MULTILINE)
    see = f"see `innerloop {command}{' PRESET -H' if command == 'train' else ' --help'}`"
    if text.startswith("Missing from"):
        return InnerloopError(command, f"needs {' and '.join(listed(parts[0]))}", hint=see)
    if unknown := re.match(r"Unrecognized options: ([^,]*)", text):
        near = [line.split()[0].rstrip(",") for line in listed(inside) if line.startswith("--")]
        what = "unknown option" if unknown[1].startswith("-") else "unexpected argument"
        return InnerloopError(command, what, got=unknown[1], hint=f"did you mean {near[0]}?" if near else see)
    if choice := re.match(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)\.", text):
        # Sorted, as tyro's order may change from run to run; None is what leaving the option out means.
        choices = sorted({*re.findall("'(.*?)'", choice[3])} - {"None"})
        near = difflib.get_close_matches(choice[1].strip("'"), choices, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        wrong = f"must be one of {', '.join(map(repr, choices))}"
        return InnerloopError(choice[2], wrong, got=choice[1], hint=hint)
    if missing := re.match(r"Missing value for argument '(\S+)'", text):
        return InnerloopError(missing[1], "needs a value", hint=see)
    if parsing := re.match(r"Error parsing (\S+): (.*)", text):
        for pattern, wrong in VALUES.items():
            if value := re.fullmatch(pattern, parsing[2]):
                return InnerloopError(parsing[1], wrong, got=value[1], hint=see)
        return InnerloopError(parsing[1], parsing[2].rstrip("."), hint=see)
    return InnerloopError(command, text.rstrip(".") or "wrong arguments", hint=see)
