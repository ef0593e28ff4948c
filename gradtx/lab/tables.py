"""Tables that fit the width of the screen."""

import copy
import os
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table


class FittingTable(Table):
    """A rich table that leaves out columns on a narrow screen, in the order of `leave_out`, and names them below it."""

    def __init__(self, *, leave_out: Sequence[str], **settings: Any) -> None:
        super().__init__(caption_justify="left", **settings)
        self._leave_out = tuple(leave_out)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Renders the columns that fit."""
        narrow, gone = copy.copy(self), []
        for heading in self._leave_out:
            # The natural width, as if the screen had any width.
            if Measurement.get(console, options.update_width(10_000), narrow).maximum <= options.max_width:
                break
            narrow.columns = [column for column in narrow.columns if column.header != heading]
            gone.append(heading.replace("\n", " "))
        if gone:
            narrow.caption = f"{self.caption} The screen is too narrow for: {', '.join(gone)}."
        return Table.__rich_console__(narrow, console, options)


def print_table(table: Table, words: str) -> None:
    """Prints a table and the conclusion in words. Raises `BrokenPipeError` if the output pipe is closed.

    The width is that of the terminal or of the variable COLUMNS, or 132 characters if the output is redirected.
    """
    console = Console()
    if not (console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()):
        console = Console(width=132)
    try:
        console.print(table)
    except SystemExit:  # rich turns a broken pipe into an exit with another status
        raise BrokenPipeError from None
    print(textwrap.fill(words, console.width))
