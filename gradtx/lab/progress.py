"""A progress bar, which is shown only on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    total: int, label: str, show: bool | None = None, console: Console | None = None
) -> Iterator[Callable[[int, str], None]]:
    """Yields `advance(done, text)`, which adds `done` to the progress, up to `total`, and shows `text`.

    If `show` is None, the bar is shown if `console` is a terminal. If `console` is None, it is standard error.
    """
    console = console or Console(stderr=True)
    if not (console.is_terminal if show is None else show):
        yield lambda done, text="": None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done, text="": bar.update(task, advance=done, description=f"{label} {text}".strip())
