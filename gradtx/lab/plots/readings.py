"""One page per run: a panel for each instrument, with reference lines and a sentence on what the curves mean."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import SymmetricalLogLocator

import gradtx
from gradtx.instruments.diagnosis.logs import read_log

from ..history import History
from .panel_list import PANELS, Panel
from .style import COLOURS, GREY, Picture, headline, light_grid, new_picture, styled

Run = History | Mapping[str, Any]
NO_STEP = "No step was recorded, so there is nothing to show."


@styled
def plot_readings(run: Run) -> Picture:
    """Draws every reading of a run: one panel per instrument, with reference lines and a sentence on its meaning.

    Args:
        run: a `History`, or a dict of arrays [steps]: `loss` and readings by their names.

    Raises:
        TypeError, ValueError: if `run` is not a run; the error is that of `gradtx.diagnose`.

    >>> import gradtx, jax, optax
    >>> from gradtx import lab, landscapes
    >>> tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.1))
    >>> run = lab.run(landscapes.quadratic(10.0), tx, steps=50, key=jax.random.key(0))
    >>> print(lab.plot_readings(run).get_suptitle())
    quadratic: 50 steps: these readings show no problem.
    """
    # `diagnose` comes first because it checks `run`.
    said = gradtx.diagnose(run).headline if has_steps(run) else NO_STEP
    curves = curves_of(run)
    panels = panels_of(curves) or [PANELS[0]]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_picture(12, 2.9 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    draw_panels(list(grid.ravel()), panels, curves)
    headline(figure, f"{name_of(run)}{said}", 12)
    return figure


def curves_of(run: Run) -> dict[str, np.ndarray]:
    """The scalar curves [steps] of a run that hold a finite value, and always the loss and the number of each step."""
    if not has_steps(run):
        return {"loss": np.zeros(0), "step": np.zeros(0)}
    log = read_log(run)
    given = {"loss": log.loss, **log.curves, "step": log.step}
    steps = len(log.loss)
    return {n: a for n, a in given.items() if n == "loss" or (a.shape == (steps,) and np.isfinite(a).any())}


def has_steps(run: Run) -> bool:
    """Whether a step was recorded. A run that was interrupted early may have none, so it cannot be diagnosed."""
    loss = run.get("loss") if isinstance(run, Mapping) else getattr(run, "loss", None)
    return not (isinstance(run, Mapping | History) and loss is not None and np.shape(loss) == (0,))


def panels_of(curves: Mapping[str, np.ndarray]) -> list[Panel]:
    """The panels that show a measurement. The batch size alone does not count, because every run has it."""
    return [panel for panel in PANELS if any(name in curves and name != "batch_size" for name in panel.curves)]


def name_of(run: Run) -> str:
    """The problem's name and a colon, or an empty string if the name is unknown."""
    name = run.get("problem", "") if isinstance(run, Mapping) else getattr(run, "problem", "")
    return f"{name}: " if name else ""


def draw_panels(axes: list[Axes], panels: list[Panel], curves: dict[str, np.ndarray]) -> None:
    """Draws each panel into its axes. Axes without a panel are hidden."""
    for place, panel in zip(axes, panels, strict=False):
        _draw(place, panel, curves)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    for place in axes[max(0, len(panels) - 3) : len(panels)]:
        place.tick_params(labelbottom=True)


def scale_of(panel: Panel, measured: list[np.ndarray]) -> str:
    """How the heights of a panel are drawn: "log", "symlog" or "linear"; `measured` are the finite values by curve."""
    if not panel.log:
        return "linear"
    if all((finite > 0).mean() > 0.8 if len(finite) else False for finite in measured):
        return "log"
    # If values of both signs differ widely, a linear axis would show the ordinary ones as one flat line.
    is_wild = any(np.abs(finite).max() > 100 for finite in measured if len(finite))
    return "symlog" if is_wild else "linear"


def floor_of(values: np.ndarray, high: float) -> float:
    """The lowest height that a logarithmic panel shows. Fewer than a twentieth of the values may lie below it.

    A few values near zero would otherwise take up most of the panel.
    """
    return float(min(1e-5 * high, np.percentile(values[values > 0], 5) / 2))


def _draw(axes: Axes, panel: Panel, curves: dict[str, np.ndarray]) -> None:
    shown = {name: curves[name] for name in panel.curves if name in curves}
    axes.set_title(panel.title, fontweight="bold")
    axes.set_xlabel("optimizer step\n" + textwrap.fill(panel.meaning(curves), 52), fontsize=8.5)
    measured = [curve[np.isfinite(curve)] for curve in shown.values()]
    scale = scale_of(panel, measured)
    is_log = scale == "log"
    for colour, (name, curve) in zip(COLOURS, shown.items(), strict=False):
        visible = np.where(curve > 0, curve, np.nan) if is_log else curve
        marker = "." if len(curve) < 40 else ""
        axes.plot(curves["step"], visible, color=colour, lw=1.2, marker=marker, label=panel.curves[name])
    values = np.concatenate(measured)
    if is_log:
        axes.set_yscale("log")
    elif scale == "symlog":
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
        axes.locator_params("y", numticks=7)
    low, high = axes.get_ylim()
    floor = floor_of(values, high) if is_log else low
    if low < floor:
        axes.set_ylim(low := floor, high)
    for height, text in panel.lines.items():
        if is_log and not low / 30 < height < high * 30:
            continue
        axes.axhline(height, color="k", lw=0.8, ls=(0, (4, 3)))
        if text:
            at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 8}
            axes.annotate(text, (1, height), **at, bbox={"fc": "w", "ec": "none", "alpha": 0.7, "pad": 1})
    if panel.limits:
        axes.set_ylim(*panel.limits)
    if not len(values):
        axes.annotate("no finite value", (0.5, 0.5), xycoords="axes fraction", ha="center")
    if len(shown) > 1 or panel.title != "Loss":
        axes.legend(fontsize=8, loc="best", frameon=True, edgecolor=GREY)
    light_grid(axes)
