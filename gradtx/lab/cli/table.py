"""How a command prints its table, and what the table says."""

import os
import textwrap

from rich.console import Console
from rich.table import Table


def print_table(table: Table, words: str) -> None:
    """The table and what it says in words.

    As wide as the terminal or the variable COLUMNS says; 132 characters if the output is redirected.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    console = Console()
    if not (console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()):
        console = Console(width=132)
    try:
        console.print(table)
    except SystemExit:  # what rich makes of it, with a status of its own
        raise BrokenPipeError from None
    print(textwrap.fill(words, console.width))
