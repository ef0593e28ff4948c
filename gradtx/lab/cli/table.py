"""Prints the table of a command and the conclusion below it."""

import os
import textwrap

from rich.console import Console
from rich.table import Table


def print_table(table: Table, words: str) -> None:
    """Prints the table and the conclusion in words.

    The width is that of the terminal or of the variable COLUMNS, or 132 characters if the output is redirected.

    Raises:
        BrokenPipeError: if the output pipe is closed.
    """
    console = Console()
    if not (console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()):
        console = Console(width=132)
    try:
        console.print(table)
    except SystemExit:  # rich turns a broken pipe into an exit with another status
        raise BrokenPipeError from None
    print(textwrap.fill(words, console.width))
