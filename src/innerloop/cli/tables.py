"""Tables that fit the terminal without a number cut short."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from innerloop.io.text import printable

GAP = 3
"""Characters between two columns, and at both ends of a row together."""


@dataclass(frozen=True)
class FittedTable:
    """A table that is as wide as the terminal at most.

    In a narrow terminal it leaves out optional columns and then breaks headings and texts between words. Where even
    that does not fit, the cells of each row are printed one below the other.

    Attributes:
        headings: of all columns.
        rows: the cells; an empty row separates groups of rows.
        left: the number of columns, from the left, of texts; the others hold numbers, which are never broken.
        optional: headings of columns that a narrow terminal leaves out, in this order.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 0
    optional: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The table, as rich prints it."""
        room, shown = options.max_width, list(range(len(self.headings)))
        optional = [self.headings.index(heading) for heading in self.optional]
        while optional and _total(map(self._natural, shown)) > room:
            shown.remove(optional.pop(0))
        least = _total(map(self._least, shown))
        if least > room:
            yield self._stacked()
            return
        yield self._table(shown, room - least)
        if left_out := [heading for i, heading in enumerate(self.headings) if i not in shown]:
            yield Text(f"A wider terminal also shows: {', '.join(left_out)}.")

    def _cells(self, i: int) -> list[str]:
        """The cells of one column."""
        return [printable(row[i]) for row in self.rows if row]

    def _natural(self, i: int) -> int:
        """The width of a column without line breaks."""
        return max(map(cell_len, (self.headings[i], *self._cells(i))))

    def _least(self, i: int) -> int:
        """The smallest width of a column: its longest word, or its longest number."""
        cells = " ".join(self._cells(i)).split() if i < self.left else self._cells(i)
        return max(map(cell_len, (*self.headings[i].split(), *cells)), default=0)

    def _table(self, shown: Sequence[int], spare: int) -> Table:
        """The table of these columns, which share the spare room from left to right."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i in shown:
            least = self._least(i)
            width = min(self._natural(i), least + spare)
            spare -= width - least
            table.add_column(self.headings[i], justify="left" if i < self.left else "right", width=width)
        for row in self.rows:
            if row:
                table.add_row(*(row[i] for i in shown))
            else:
                table.add_section()
        return table

    def _stacked(self) -> Table:
        """One line for each cell that is not empty."""
        table = Table.grid("", "", padding=(0, 2, 0, 0))
        for column in table.columns:
            column.overflow = "fold"
        for row in filter(None, self.rows):
            for heading, cell in zip(self.headings, row, strict=True):
                if cell:
                    table.add_row(heading, cell)
            table.add_row()
        return table


def _total(widths: Iterable[int]) -> int:
    """The width of a table whose columns have these widths."""
    widths = list(widths)
    return sum(widths) + GAP * len(widths) - 1


def new_table(
    *headings: str, left: int = 0, rows: Iterable[Iterable[str]] = (), optional: Sequence[str] = ()
) -> FittedTable:
    """A table whose first `left` columns hold text and the others numbers; see `FittedTable`."""
    return FittedTable(headings, [tuple(row) for row in rows], left, optional)
