"""A run while it goes on: a few curves and the current diagnosis, in a notebook or a terminal.

They are drawn in a thread of their own, once a second at most and never more than a tenth of the time, so that the loop
does not wait for them.
"""

import atexit
import threading
import time
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

import gradtx

from .plots.explore import in_a_notebook
from .plots.readings import curves_of, draw_panels, panels_of
from .plots.style import RC, Picture, headline, names_as_they_are, new_picture

PAUSE = 1.0  # seconds
BLOCKS = "▁▂▃▄▅▆▇█"


class LiveView:
    """Draws a recorder again and again. It is silent where there is neither a notebook nor a terminal."""

    def __init__(self, recorder: Any) -> None:
        self._recorder = recorder
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._show: Any = None
        self._live: Live | None = None
        self._drawn = 0  # calls of the recorder that the last picture knew of

    def start(self) -> None:
        """At the first record; later it returns at once."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        if in_a_notebook():
            from IPython.display import DisplayHandle

            handle = DisplayHandle()
            handle.display("waiting for the first steps")
            self._show = lambda: handle.update(live_picture(self._recorder))
        elif (console := Console(stderr=True)).is_terminal:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()
            self._show = lambda: self._live and self._live.update(live_text(self._recorder), refresh=True)
        else:
            return
        atexit.register(self.close)
        self._thread.start()

    def close(self) -> None:
        """The last state, and the end of the thread."""
        if self._thread is None or self._show is None or self._is_over.is_set():
            return
        self._is_over.set()
        self._thread.join()
        self._draw()
        if self._live is not None:
            self._live.stop()
        atexit.unregister(self.close)

    def _run(self) -> None:
        pause = PAUSE
        while not self._is_over.wait(pause):
            started = time.monotonic()
            self._draw()
            pause = max(PAUSE, 9 * (time.monotonic() - started))

    def _draw(self) -> None:
        calls = self._recorder.calls
        if calls == self._drawn:
            return
        self._drawn = calls
        try:
            self._show()
        except Exception as error:  # a picture that fails ends no training
            self._show = lambda: None
            print(f"Recorder: the live view ends: {error}")


def verdict(run: Mapping[str, Any]) -> str:
    """What the run shows so far, in a sentence."""
    try:
        return gradtx.diagnose(run).headline
    except ValueError:  # no loss yet
        return f"{len(run.get('step', ()))} steps, no loss yet."


def live_picture(run: Mapping[str, Any]) -> Picture:
    """Up to three panels and the verdict, for a notebook."""
    with mpl.rc_context(RC):
        curves = _finite(run)
        panels = panels_of(curves)[:3]
        figure = new_picture(12, 3.2)
        if panels:
            places = figure.subplots(1, len(panels), squeeze=False)
            draw_panels(list(places.ravel()), panels, curves)
        headline(figure, verdict(run), 12)
    names_as_they_are(figure)
    return figure


def live_text(run: Mapping[str, Any]) -> Group:
    """A line for each of up to eight curves and the verdict, for a terminal."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "course", "now"):
        table.add_column(heading, no_wrap=True)
    curves = {name: curve for name, curve in _finite(run).items() if name != "step" and np.isfinite(curve).any()}
    for name, curve in list(curves.items())[:8]:
        finite = curve[np.isfinite(curve)]
        table.add_row(name.replace("[", r"\["), spark(curve), f"{finite[-1]:.4g}")
    return Group(table, verdict(run))


def spark(curve: np.ndarray, width: int = 40) -> str:
    """A curve as one line of text, medians of stretches; logarithmic where all is above 0. A gap is a blank.

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
    """The curves, the loss first; empty where no loss was recorded yet."""
    return curves_of(run) if "loss" in run else {}
