"""How a command prints its table."""

from rich.console import Console
from rich.table import Table


def print_table(table: Table) -> None:
    """As wide as the terminal; as wide as it is where nobody watches, as one cut to 80 columns would lose what it says.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    console = Console()
    try:
        (console if console.is_terminal else Console(width=132)).print(table)
    except SystemExit:  # what rich makes of it, with a status of its own
        raise BrokenPipeError from None
