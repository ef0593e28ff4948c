"""Pictures that say what to conclude."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .compare import Comparison, MethodResult

# Okabe & Ito 2008: told apart with any colour vision; the marker repeats what the colour says.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933", "#882255", "#666666")
MARKERS = "osD^vP*X<>"
GREY = "#c8c8c8"


def plot_comparison(comparison: Comparison) -> Figure:
    """Learning curves of each method against all the others, steps to the target, sensitivity to the learning rate."""
    results = comparison.results
    columns = min(len(results), 5)
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(13, 2.6 * rows + 5.2), layout="constrained", dpi=110)
    figure.suptitle(_headline(comparison), fontsize=13, fontweight="bold", x=0.01, ha="left")
    grid = figure.add_gridspec(2, 1, height_ratios=[2.6 * rows, 4.2])
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    panels = upper.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(results) :]:
        panel.set_visible(False)
    for i, (panel, result) in enumerate(zip(panels, results, strict=False)):
        for other in results:
            panel.plot(other.curves.steps, _middle(other, "train_loss"), color=GREY, linewidth=0.8)
        _curves(panel, result, COLOURS[i % len(COLOURS)])
    panels[0].legend(fontsize=7, loc="lower left", framealpha=0.9)
    upper.supxlabel("optimizer step", fontsize=9)
    upper.supylabel("loss (nats) · error (fraction)", fontsize=9)

    left, right = lower.subplots(1, 2, width_ratios=[1, 1.25])
    _steps_to_target(left, comparison)
    _sensitivity(right, comparison)
    return figure


def _middle(result: MethodResult, field: str) -> np.ndarray:
    return np.median(getattr(result.curves, field)[result.best], axis=0)


def _curves(panel: Axes, result: MethodResult, colour: str) -> None:
    steps, best = result.curves.steps, result.best
    loss, error = result.curves.train_loss[best], 1 - result.curves.validation_metric[best]
    floor = 1e-5  # a loss or an error of 0 has no place on a logarithmic axis
    panel.fill_between(
        steps, np.maximum(loss.min(0), floor), np.maximum(loss.max(0), floor), color=colour, alpha=0.25, lw=0
    )
    panel.plot(steps, np.maximum(np.median(loss, 0), floor), color=colour, label="training loss")
    panel.plot(steps, np.maximum(np.median(error, 0), floor), color=colour, ls="--", lw=1, label="validation error")
    panel.set_yscale("log")
    panel.set_ylim(1e-4, 10)
    batch = ", full batch" if result.batch_size is None else ""
    panel.set_title(f"{result.method}{batch}, ε = {result.learning_rate:.2g}", fontsize=9)
    panel.tick_params(labelsize=8)


def _steps_to_target(panel: Axes, comparison: Comparison, target: float = 0.95) -> None:
    results = sorted(comparison.results, key=lambda r: (np.median(r.steps_to(target)), r.method), reverse=True)
    medians = [np.median(r.steps_to(target)) for r in results]
    seen = [s for r in results for s in r.steps_to(target) if np.isfinite(s)]
    last = comparison.settings["steps"] if not np.all(np.isfinite(medians)) else 1.2 * max(seen)
    for y, result in enumerate(results):
        steps = result.steps_to(target)
        colour = COLOURS[comparison.results.index(result) % len(COLOURS)]
        reached = steps[np.isfinite(steps)]
        panel.plot(reached, np.full(len(reached), y), "o", color=colour, alpha=0.5, ms=5)
        if len(reached) == len(steps):
            panel.plot(np.median(steps), y, "|", color=colour, ms=16, mew=3)
        else:
            missing = len(steps) - len(reached)
            panel.annotate(
                f"{missing} of {len(steps)} never", (last, y), ha="right", va="center", fontsize=8, color=colour
            )
    panel.set_yticks(range(len(results)), [r.method for r in results], fontsize=9)
    panel.set_ylim(-0.6, len(results) - 0.4)
    panel.set_xlim(0, last * 1.02)
    panel.set_xlabel("optimizer steps (dot: a seed, bar: median)")
    panel.set_title(f"Steps to {target:.0%} validation accuracy (further left is quicker)", fontsize=10, loc="left")
    panel.grid(axis="x", color="#e6e6e6")


def _sensitivity(panel: Axes, comparison: Comparison) -> None:
    for i, result in enumerate(comparison.results):
        curves = result.curves
        panel.plot(
            curves.learning_rates / result.learning_rate,
            curves.validation_metric[..., -1].mean(axis=1),
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            ms=5,
            lw=1.2,
            label=result.method,
        )
    panel.axvline(1, color=GREY, zorder=0)
    panel.set_xscale("log")
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set_xlabel("learning rate / best learning rate of the method")
    panel.set_ylabel("final validation accuracy")
    panel.set_title("How much a wrong learning rate costs (flat is forgiving)", fontsize=10, loc="left")
    panel.legend(fontsize=8, ncols=2, loc="lower left")
    panel.grid(color="#e6e6e6")


def _headline(comparison: Comparison) -> str:
    """The conclusion, read off the numbers."""

    def accuracy(result: MethodResult) -> np.ndarray:
        return result.curves.validation_metric[result.best, :, -1]

    best = max(comparison.results, key=lambda r: accuracy(r).mean())
    spread = accuracy(best).std()
    tied = [
        r.method for r in comparison.results if accuracy(r).mean() >= accuracy(best).mean() - spread and r is not best
    ]
    quickest = min(comparison.results, key=lambda r: np.median(r.steps_to(0.95)))
    steps = np.median(quickest.steps_to(0.95))
    text = f"{comparison.problem}: {best.method} ends highest, {accuracy(best).mean():.1%} ± {spread:.1%} of validation"
    text += f", within one spread of it: {', '.join(tied)}. " if tied else ", the others more than one spread below. "
    text += (
        f"Quickest to 95\u00a0%: {quickest.method}, {steps:.0f} steps."
        if np.isfinite(steps)
        else "None reached 95\u00a0%."
    )
    return "\n".join(textwrap.wrap(text, 115))
