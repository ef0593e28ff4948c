"""One page per run: a panel for each instrument, with reference lines and a sentence on what the curves mean."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import SymmetricalLogLocator

import gradtx
from gradtx.instruments.diagnosis.logs import read_log

from ..history import History
from .style import COLOURS, GREY, Picture, headline, light_grid, new_picture, styled

Run = History | Mapping[str, Any]


NO_STEP = "No step was recorded, so there is nothing to show."


@dataclass(frozen=True)
class Panel:
    """One panel of the page."""

    title: str
    curves: dict[str, str]  # reading -> label
    meaning: Callable[[Mapping[str, np.ndarray]], str]  # curves -> one or two sentences on what they show
    lines: dict[float, str] = field(default_factory=dict)  # height of a reference line -> its label
    log: bool = False
    limits: tuple[float, float] | None = None


def _late(curve: np.ndarray | None, share: float = 0.5) -> float:
    """Median of the finite values in the last `share` of the curve; NaN if there are none."""
    if curve is None:
        return float("nan")
    part = curve[len(curve) - max(1, round(share * len(curve))) :]
    part = part[np.isfinite(part)]
    return float(np.median(part)) if len(part) else float("nan")


def _describe_loss(curves: Mapping[str, np.ndarray]) -> str:
    loss = curves["loss"]
    known = loss[np.isfinite(loss)]
    if not len(known):
        return "No loss is finite."
    end = float(np.median(known[-max(1, len(known) // 10) :]))
    lost = "" if len(known) == len(loss) or np.isfinite(loss[-1]) else " It ends as NaN or inf."
    word = "fell" if end < known[0] else "rose"
    return (
        f"The loss {word} from {known[0]:.3g} to {end:.3g} (lowest {known.min():.3g}, highest {known.max():.3g}).{lost}"
    )


def _describe_norm(curves: Mapping[str, np.ndarray]) -> str:
    norm = curves["gradient_norm/global"]
    known = norm[np.isfinite(norm)]
    usual, largest, last = float(np.median(known)), float(known.max()), _late(norm, 0.1)
    said = f"The norm is usually {usual:.2g}, at most {largest:.2g}, and {last:.2g} at the end."
    theta = _late(curves.get("gradient_tests/norm"))
    if theta > 0.7:
        return f"{said} Most of it is noise, so it cannot show a critical point (§2.2)."
    if np.isnan(theta):
        return f"{said} Its noise was not measured, so it cannot show a critical point (§2.2)."
    is_far = last > 0.3 * np.median(known[: max(1, round(0.1 * len(known)))])
    return f"{said} It is mostly signal" + (", and no critical point is near (§2.2)." if is_far else ".")


def _describe_step(curves: Mapping[str, np.ndarray]) -> str:
    ratio = curves.get("curvature_ratio/ratio")
    if ratio is None:
        last = _late(curves["sharpness/stability"])
        return f"The sharpness is {last:.2g} times the limit for this learning rate (§2.1)."
    known = ratio[np.isfinite(ratio)]
    past = int(np.sum(np.abs(known) >= 1))
    if past > 0:
        return f"{past:,} of {known.size:,} measured steps are expected to raise the loss (|r| of 1 or more, §2.1)."
    return f"r is about {np.median(known):.2g} and stays below 1. No step is expected to raise the loss (§2.1)."


def _describe_turning(curves: Mapping[str, np.ndarray]) -> str:
    cosine = _late(curves["gradient_alignment/cosine"])
    meaning = (
        "Each gradient points against the one before (§4.1)" if cosine < -0.5
        else "Consecutive gradients have little in common" if cosine < 0.3
        else "Consecutive gradients agree in part" if cosine < 0.9
        else "Consecutive gradients have nearly the same direction"
    )  # fmt: skip
    return f"The late cosine is {cosine:.2f}. {meaning}."


def _describe_update(curves: Mapping[str, np.ndarray]) -> str:
    size = _late(curves["update_ratio/global"])
    place = "below" if size < 1e-4 else "above" if size > 1e-2 else "within"
    text = f"The length of the late steps is {size:.1e} times that of the parameters"
    return f"{text}. This is {place} the usual range, 1e-4 to 1e-2."


def _describe_noise(curves: Mapping[str, np.ndarray]) -> str:
    theta = _late(curves.get("gradient_tests/norm"))
    if np.isnan(theta):
        inner = _late(curves.get("gradient_tests/inner_product"))
        return f"The slope along the gradient has an error of {inner:.0%} (§3)."
    return f"In the last half noise is {min(theta**2, 1):.0%} of the squared gradient (§2.6, §3)."


def _describe_batch(curves: Mapping[str, np.ndarray]) -> str:
    scale, batch = _late(curves.get("gradient_noise_scale/noise_scale"), 1.0), _late(curves.get("batch_size"), 1.0)
    if np.isnan(scale):
        return "No signal is left to compare the noise with."
    said = f"Noise and signal are equal in batches of about {scale:.3g} examples"
    return f"{said} (§3.1)." if np.isnan(batch) else f"{said}. Each step uses {batch:.3g} (§3.1)."


def _describe_clipping(curves: Mapping[str, np.ndarray]) -> str:
    fraction = _late(curves.get("clipping_events/fraction"), 0.1)
    if np.isnan(fraction):
        return "No limit was given, so nothing is clipped."
    rest = ", so the limit sets the step length" if fraction > 0.9 else ""
    return f"At the end {fraction:.0%} of the steps are clipped{rest}."


def _describe_gain(curves: Mapping[str, np.ndarray]) -> str:
    gain, alpha = _late(curves.get("gain_ratio/gain_ratio")), _late(curves.get("gain_ratio/alpha"))
    if np.isnan(gain):
        return f"The late steps end at α = {alpha:.2g}: 0 is the minimum along the step, 1 is as high beyond it."
    return f"The late steps gain {gain:.2g} times as much as the derivatives predict."


def _describe_balance(curves: Mapping[str, np.ndarray]) -> str:
    ratio = _late(curves["stationarity/ratio"], 0.2)
    place = "in equilibrium" if 0.77 < ratio < 1.3 else "not in equilibrium yet"
    return f"The late ratio is {ratio:.2g}, so the run is {place} (§4.1)."


def _describe_path(curves: Mapping[str, np.ndarray]) -> str:
    straight = _late(curves["trajectory/straightness"], 0.1)
    return f"The distance from start to end is {straight:.0%} of the path's length (§2.7)."


def _describe_slope(curves: Mapping[str, np.ndarray]) -> str:
    slope, error = _late(curves.get("plateau/slope"), 0.1), _late(curves.get("plateau/slope_standard_error"), 0.1)
    if np.isnan(error):
        return f"The late slope is {slope:.2g} per step (§2.3)."
    word = "still falls" if slope < -2 * error else "rises" if slope > 2 * error else "has stopped falling"
    return f"The late slope is {slope:.2g} ± {error:.1g} per step: the loss {word} (§2.3)."


PANELS: tuple[Panel, ...] = (
    Panel("Loss", {"loss": "minibatch loss"}, _describe_loss, log=True),
    Panel("Gradient norm", {"gradient_norm/global": "‖g‖"}, _describe_norm, log=True),
    Panel(
        "Step against curvature",
        {"curvature_ratio/ratio": "r = -u'Hu / 2 g'u", "sharpness/stability": "ε λ_max / 2"},
        _describe_step,
        {1.0: "loss rises"},
        log=True,
    ),
    Panel(
        "Cosine of gradients",
        {"gradient_alignment/cosine": "cos(g, previous g)"},
        _describe_turning,
        {-0.5: "oscillation", 0.0: ""},
        limits=(-1.05, 1.05),
    ),
    Panel(
        "Size of the update",
        {"update_ratio/global": "‖Δθ‖ / ‖θ‖"},
        _describe_update,
        {1e-4: "slow", 1e-2: "fast"},
        log=True,
    ),
    Panel(
        "Noise against signal",
        {"gradient_tests/norm": "norm test θ", "gradient_tests/inner_product": "inner-product test θ"},
        _describe_noise,
        {0.5**0.5: "noise = signal"},
        log=True,
    ),
    Panel(
        "Batch against noise scale",
        {"gradient_noise_scale/noise_scale": "noise scale (examples)", "batch_size": "batch size (examples)"},
        _describe_batch,
        log=True,
    ),
    Panel(
        "Clipping and spikes",
        {"clipping_events/fraction": "fraction clipped", "clipping_events/shrink": "mean shrink factor"},
        _describe_clipping,
        {1.0: ""},
        limits=(-0.05, 1.1),
    ),
    Panel(
        "Gain against prediction",
        {"gain_ratio/gain_ratio": "gained / predicted", "gain_ratio/alpha": "α: 0 minimum, 1 as high again"},
        _describe_gain,
        {1.0: ""},
        limits=(-2, 3),
    ),
    Panel(
        "Equilibrium with the noise",
        {"stationarity/ratio": "⟨θ·g⟩ / its value at equilibrium"},
        _describe_balance,
        {1.0: "equilibrium"},
        limits=(-3, 5),
    ),
    Panel(
        "Straightness of the path",
        {"trajectory/straightness": "distance / path length"},
        _describe_path,
        {1.0: ""},
        limits=(-0.05, 1.1),
    ),
    Panel(
        "Slope of the loss",
        {"plateau/slope": "slope per step", "plateau/slope_standard_error": "its standard error"},
        _describe_slope,
        {0.0: ""},
    ),
)


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
