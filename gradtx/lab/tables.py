"""Tables that fit the width of the screen."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


class FittingTable(Table):
    """A rich table that leaves out its least important columns on a narrow screen, and names them in its caption.

    Args:
        leave_out: headings, in the order in which their columns are left out.
        **settings: arguments of a rich `Table`.
    """

    def __init__(self, *, leave_out: Sequence[str], **settings: Any) -> None:
        super().__init__(**settings)
        self._leave_out = tuple(leave_out)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the columns that fit."""
        narrow, gone = copy.copy(self), []
        for heading in self._leave_out:
            if _width(narrow) <= options.max_width:
                break
            narrow.columns = [column for column in narrow.columns if column.header != heading]
            gone.append(heading.replace("\n", " "))
        if gone:
            narrow.caption = f"{self.caption} The screen is too narrow for: {', '.join(gone)}."
        return Table.__rich_console__(narrow, console, options)


def _width(table: Table) -> int:
    """The width of the columns in characters: each has a blank on both sides and a line after it."""
    lines = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    return 1 + sum(3 + _longest(cells) for cells in lines)


def _longest(cells: Iterable[str]) -> int:
    return max(Text.from_markup(line).cell_len for cell in cells for line in cell.split("\n"))
