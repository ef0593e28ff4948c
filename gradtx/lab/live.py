"""A live view of a run: a few curves and the current diagnosis, in a notebook or a terminal."""

import atexit
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

import gradtx

from .plots.explore import in_a_notebook
from .plots.readings import curves_of, draw_panels, panels_of
from .plots.style import Picture, headline, new_picture, styled

PAUSE = 1.0  # seconds
BLOCKS = "▁▂▃▄▅▆▇█"


class LiveView:
    """Draws a recorder repeatedly. It shows nothing outside a notebook or a terminal."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._show: Any = None
        self._stop = lambda: None
        self._drawn = 0  # calls of the recorder before the last picture

    def start(self) -> None:
        """Starts the view at the first record. Later calls do nothing."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        if in_a_notebook():
            from IPython.display import DisplayHandle

            handle = DisplayHandle()
            handle.display("waiting for the first steps")
            self._show = lambda: handle.update(live_picture(self._recorder))
        elif (console := Console(stderr=True)).is_terminal:
            live = Live(console=console, auto_refresh=False)
            live.start()
            self._show = lambda: live.update(live_text(self._recorder), refresh=True)
            self._stop = live.stop
        else:
            return
        atexit.register(self.close)
        self._thread.start()

    def close(self) -> None:
        """Draws the last state and ends the thread."""
        if self._thread is None or self._show is None or self._is_over.is_set():
            return
        self._is_over.set()
        self._thread.join()
        self._draw()
        self._stop()
        atexit.unregister(self.close)

    def _run(self) -> None:
        pause = PAUSE
        while not self._is_over.wait(pause):
            started = time.monotonic()
            self._draw()
            pause = max(PAUSE, 9 * (time.monotonic() - started))  # draws for at most a tenth of the time

    def _draw(self) -> None:
        calls = self._recorder.calls
        if calls == self._drawn:
            return
        self._drawn = calls
        try:
            self._show()
        except Exception as error:  # a failed picture must not end the training
            self._show = lambda: None
            print(f"Recorder: the live view ends: {error}")


def verdict(run: Mapping[str, Any]) -> str:
    """The diagnosis of the run so far, in one sentence."""
    try:
        return gradtx.diagnose(run).headline
    except ValueError:  # no loss yet
        return f"{len(run.get('step', ()))} steps, no loss yet."


@styled
def live_picture(run: Mapping[str, Any]) -> Picture:
    """The picture for a notebook: up to three panels and the verdict."""
    curves = _finite(run)
    panels = panels_of(curves)[:3]
    figure = new_picture(12, 3.2)
    if panels:
        places = figure.subplots(1, len(panels), squeeze=False)
        draw_panels(list(places.ravel()), panels, curves)
    headline(figure, verdict(run), 12)
    return figure


def live_text(run: Mapping[str, Any]) -> Group:
    """The text for a terminal: one line for each of up to eight curves, and the verdict."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "course", "now"):
        table.add_column(heading, no_wrap=True)
    curves = {name: curve for name, curve in _finite(run).items() if name != "step" and np.isfinite(curve).any()}
    for name, curve in list(curves.items())[:8]:
        finite = curve[np.isfinite(curve)]
        table.add_row(name.replace("[", r"\["), spark(curve), f"{finite[-1]:.4g}")
    return Group(table, verdict(run))


def spark(curve: np.ndarray, width: int = 40) -> str:
    """A curve as one line of text. Each character is a median; a gap is a blank. Positive curves are logarithmic.

    >>> print(spark(np.array([1.0, 2.0, np.nan, 8.0])))
    ▁▃ █
    """
    finite = curve[np.isfinite(curve)]
    values = np.log(np.where(curve > 0, curve, np.nan)) if len(finite) and (finite > 0).all() else curve
    parts = np.array_split(values, min(width, len(values)))
    heights = np.array([np.median(p[np.isfinite(p)]) if np.isfinite(p).any() else np.nan for p in parts])
    if not np.isfinite(heights).any():
        return ""
    low, high = np.nanmin(heights), np.nanmax(heights)
    scaled = (heights - low) / (high - low) if high > low else np.where(np.isfinite(heights), 0.0, np.nan)
    return "".join(" " if np.isnan(x) else BLOCKS[min(7, int(8 * x))] for x in scaled)


def _finite(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The curves of a run, the loss first. It is empty if no loss was recorded yet."""
    return curves_of(run) if "loss" in run else {}
