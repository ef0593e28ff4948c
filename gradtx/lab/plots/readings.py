"""One page a run: what every instrument read, against the lines that matter, each with what it means."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import SymmetricalLogLocator

import gradtx

from ..history import History
from .style import COLOURS, GREY, Picture, headline, light_grid, new_picture, styled

Run = History | Mapping[str, Any]


@dataclass(frozen=True)
class Panel:
    """One picture on the page."""

    title: str
    curves: dict[str, str]  # reading -> label
    meaning: str  # what to conclude, one or two sentences
    lines: dict[float, str] = field(default_factory=dict)  # height -> what is there
    log: bool = False
    limits: tuple[float, float] | None = None


PANELS: tuple[Panel, ...] = (
    Panel("Loss", {"loss": "minibatch loss"}, "Falling and flat is good; flat and high, or rising, is not.", log=True),
    Panel(
        "Gradient norm",
        {"gradient_norm/global": "‖g‖"},
        "Small: a minimum, saddle or plateau may be near (§2.2). Noise keeps it large. A leap: a cliff (§2.4).",
        log=True,
    ),
    Panel(
        "Step against curvature",
        {"curvature_ratio/ratio": "r = ε g'Hg / 2 g'g", "sharpness/stability": "ε λ_max / 2"},
        "Above 1 a step is expected to raise the loss; far below, the rate could grow (§2.1).",
        {1.0: "loss rises"},
        log=True,
    ),
    Panel(
        "Turning",
        {"gradient_alignment/cosine": "cos(g, last g)"},
        "Near -1: from wall to wall, rate too high (§4.1). Near 0: noise. Near 1: steps could be longer.",
        {-0.5: "oscillation", 0.0: ""},
        limits=(-1.05, 1.05),
    ),
    Panel(
        "Size of the update",
        {"update_ratio/global": "‖Δθ‖ / ‖θ‖"},
        "A rule of thumb: between 1e-4 and 1e-2.",
        {1e-4: "slow", 1e-2: "fast"},
        log=True,
    ),
    Panel(
        "Noise against signal",
        {"gradient_tests/norm": "norm test θ", "gradient_tests/inner_product": "inner-product test θ"},
        "Above the line noise is longer than signal (§2.6, §3): θ² = s² / (‖G‖² + s²).",
        {0.5**0.5: "noise = signal"},
        log=True,
    ),
    Panel(
        "Batch against noise scale",
        {"gradient_noise_scale/noise_scale": "noise scale (examples)", "batch_sizes": "batch size (examples)"},
        "Batch far below the scale: more examples pay. Far above: they are wasted (§3.1).",
        log=True,
    ),
    Panel(
        "Clipping and spikes",
        {"clipping_events/fraction": "fraction clipped", "clipping_events/shrink": "mean shrink factor"},
        "A fraction near 1: the clip is the learning rate.",
        {1.0: ""},
        limits=(-0.05, 1.1),
    ),
    Panel(
        "Gain",
        {"gain_ratio/gain_ratio": "gained / predicted", "gain_ratio/alpha": "α: 0 bottom, 1 as high up again"},
        "Gain far from 1: the loss is not what its derivatives say. α above 1: the step was twice too long.",
        {1.0: ""},
        limits=(-2, 3),
    ),
    Panel(
        "Equilibrium",
        {"stationarity/ratio": "⟨θ·g⟩ over its value at equilibrium"},
        "Near 1 the run hovers: lower the rate now (§4.1).",
        {1.0: "equilibrium"},
        limits=(-3, 5),
    ),
    Panel(
        "Path",
        {"trajectory/straightness": "distance / path length"},
        "1: straight. Far below 1 with little gained: the run wanders (§2.7).",
        {1.0: ""},
        limits=(-0.05, 1.1),
    ),
    Panel(
        "Slope of the loss",
        {"plateau/slope": "slope a step", "plateau/slope_standard_error": "its standard error"},
        "Within two standard errors of 0, the loss has stopped falling (§2.3).",
        {0.0: ""},
    ),
)


@styled
def plot_readings(run: Run) -> Picture:
    """Every reading of a run, one panel an instrument, with the lines that matter and what each panel means.

    Args:
        run: a `History`, or a dict of arrays [steps]: `loss` and readings by their names.

    Raises:
        TypeError, ValueError: what is no run, as `gradtx.diagnose` says it.

    >>> import gradtx, jax, optax
    >>> from gradtx import lab, landscapes
    >>> tx = optax.chain(gradtx.gradient_norm(), gradtx.sgd(0.1))
    >>> run = lab.run(landscapes.quadratic(10.0), tx, steps=50, key=jax.random.key(0))
    >>> print(lab.plot_readings(run).get_suptitle())
    quadratic: 50 steps: nothing amiss that these readings show.
    """
    diagnosis = gradtx.diagnose(run)  # first: it says what is wrong with what is no run
    curves = curves_of(run)
    panels = panels_of(curves)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_picture(12, 2.9 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    draw_panels(list(grid.ravel()), panels, curves)
    headline(figure, f"{name_of(run)}{diagnosis.headline}", 12)
    return figure


def curves_of(run: Run) -> dict[str, np.ndarray]:
    """All scalar curves of a run, [steps] each, where anything finite was measured."""
    if isinstance(run, Mapping):
        given = {**run, **(run.get("readings") or {})}
    else:
        given = {"loss": run.loss, "batch_sizes": run.batch_sizes, **run.readings}
    known = {name: curve for name, curve in given.items() if name not in ("problem", "readings", "iterates")}
    arrays = {name: np.asarray(curve, float) for name, curve in known.items()}
    steps = len(arrays["loss"])
    return {n: a for n, a in arrays.items() if a.shape == (steps,) and np.isfinite(a).any()}


def panels_of(curves: Mapping[str, np.ndarray]) -> list[Panel]:
    """Those that show a measurement: the batch size alone, which every run has, is none."""
    return [panel for panel in PANELS if any(name in curves and name != "batch_sizes" for name in panel.curves)]


def name_of(run: Run) -> str:
    """The problem's name and a colon, where it is known."""
    name = run.get("problem", "") if isinstance(run, Mapping) else run.problem
    return f"{name}: " if name else ""


def draw_panels(axes: list[Axes], panels: list[Panel], curves: dict[str, np.ndarray]) -> None:
    """Each panel into its axes; what is left over is hidden."""
    for place, panel in zip(axes, panels, strict=False):
        _draw(place, panel, curves)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    for place in axes[max(0, len(panels) - 3) : len(panels)]:
        place.tick_params(labelbottom=True)


def _draw(axes: Axes, panel: Panel, curves: dict[str, np.ndarray]) -> None:
    shown = {name: curves[name] for name in panel.curves if name in curves}
    is_log = panel.log and all((c[np.isfinite(c)] > 0).mean() > 0.8 for c in shown.values())
    for colour, (name, curve) in zip(COLOURS, shown.items(), strict=False):
        visible = np.where(curve > 0, curve, np.nan) if is_log else curve
        axes.plot(visible, color=colour, lw=1.2, marker="." if len(curve) < 40 else "", label=panel.curves[name])
    values = np.concatenate([c[np.isfinite(c)] for c in shown.values()])
    if is_log:
        axes.set_yscale("log")
    elif panel.log and np.abs(values).max() > 100:  # of both signs and wild: what is ordinary would be one flat line
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
        axes.locator_params("y", numticks=7)
    low, high = axes.get_ylim()
    # A few values that touch zero would take all of the panel; a twentieth is more than a few.
    floor = min(1e-5 * high, np.percentile(values[values > 0], 5) / 2) if is_log else low
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
    axes.set_title(panel.title, fontweight="bold")
    axes.set_xlabel("optimizer step\n" + textwrap.fill(panel.meaning, 52), fontsize=8.5)
    if len(shown) > 1 or panel.title != "Loss":
        axes.legend(fontsize=8, loc="best", frameon=True, edgecolor=GREY)
    light_grid(axes)
