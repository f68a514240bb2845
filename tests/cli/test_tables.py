"""Tables in terminals of every width."""

import io

import pytest

from innerloop.cli.common import Terminal
from innerloop.cli.tables import new_table

ROWS = [
    ("sinusoids, 10 points", "runs/long-folder/maml", "0.1234 ± 0.0056", "70 000"),
    (),
    ("", "runs/anil", "0.65 ± 0.12", "5"),
]


def lines(width: int, *optional: str) -> list[str]:
    """What a terminal of this width shows."""
    out = io.StringIO()
    table = new_table("problem", "run", "mean ±", "meta-steps", left=2, rows=ROWS, optional=optional)
    Terminal(file=out, width=width, soft_wrap=True).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", range(28, 100, 4))
@pytest.mark.parametrize("optional", [(), ("problem", "meta-steps")])
def test_table_fits_width_without_truncating_numbers(width: int, optional: tuple[str, ...]) -> None:
    shown = lines(width, *optional)
    told = "\n".join(shown)
    table = shown[:-1] if told.endswith(".") else shown  # the terminal wraps the sentence below it
    assert max(map(len, table)) <= width
    assert "…" not in told
    assert all(cell in told for cell in ("0.65 ± 0.12", "5"))
    assert width < 30 or "0.1234 ± 0.0056" in told


def test_a_narrow_terminal_leaves_out_optional_columns() -> None:
    heading, *_, last = lines(60, "problem", "meta-steps")[1:]
    assert heading.split() == ["run", "mean", "±", "meta-steps"]
    assert last == "A wider terminal also shows: problem."
    assert "wider" not in " ".join(lines(100, "problem", "meta-steps"))


def test_cell_text_wraps_between_words() -> None:
    first, second = (line.split()[:2] for line in lines(68)[3:5])
    assert (first, second) == (["sinusoids,", "runs/long-folder/maml"], ["10", "points"])


def test_a_very_narrow_terminal_shows_one_cell_per_line() -> None:
    assert lines(40) == [
        "problem     sinusoids, 10 points",
        "run         runs/long-folder/maml",
        "mean ±      0.1234 ± 0.0056",
        "meta-steps  70 000",
        "",
        "run         runs/anil",
        "mean ±      0.65 ± 0.12",
        "meta-steps  5",
        "",
    ]
