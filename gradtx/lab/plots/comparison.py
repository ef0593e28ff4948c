"""Pictures of many methods on one problem or on several."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ..compare import Comparison, MethodResult, check_comparison
from ..conclusions import comparison_in_words, profile_in_words
from ..profiles import PerformanceProfile, performance_profile
from .style import GREY, Picture, headline, in_legend, light_grid, look, new_picture, styled


@styled
def plot_comparison(comparison: Comparison) -> Picture:
    """Draws a comparison of methods.

    For one problem: learning curves, steps to the target and sensitivity to the learning rate. For several problems:
    steps to each target and the performance profile.

    Args:
        comparison: the result of `lab.compare`, or one that `lab.comparisons` yields.

    Raises:
        TypeError: if `comparison` is not a comparison.
    """
    check_comparison("plot_comparison", comparison)
    return _one_problem(comparison) if len(comparison.problems) == 1 else _several_problems(comparison)


@styled
def plot_performance_profile(comparison: Comparison, max_ratio: float = 4.0) -> Picture:
    """Draws the performance profile alone.

    Args:
        comparison: as in `lab.performance_profile`.
        max_ratio: largest ratio that the profile shows, in (1, inf).

    Raises:
        ValueError: if `max_ratio` is out of range. TypeError: if `comparison` is not a comparison.
    """
    check_comparison("plot_performance_profile", comparison)
    profile = performance_profile(comparison, max_ratio)
    figure = new_picture(8, 4.6)
    _profile(figure.subplots(), profile, comparison)
    headline(figure, profile_in_words(profile), 11)
    return figure


def _one_problem(comparison: Comparison) -> Picture:
    results = comparison.results
    columns = min(len(results), 5)
    rows = -(-len(results) // columns)
    figure = new_picture(13, 2.6 * rows + 5.2)
    headline(figure, comparison_in_words(comparison), 13)
    grid = figure.add_gridspec(2, 1, height_ratios=[2.6 * rows, 4.2])
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    panels = upper.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(results) :]:
        panel.set_visible(False)
    is_rate = _is_rate(results[0])
    for i, (panel, result) in enumerate(zip(panels, results, strict=False)):
        for other in results:
            panel.plot(other.sweep.eval_steps, np.median(other.train_loss, axis=0), color=GREY, lw=0.8)
        _curves(panel, result, look(i)["color"], is_rate)
    if is_rate:  # otherwise there is only one line, and the axis label names it
        panels[0].legend(fontsize=7, loc="lower left")
    upper.supxlabel("optimizer step", fontsize=9)
    upper.supylabel("loss · error (fraction)" if is_rate else "training loss", fontsize=9)
    left, right = lower.subplots(1, 2, width_ratios=[1, 1.25])
    _steps_to_target(left, comparison, results[0].problem)
    _sensitivity(right, comparison)
    return figure


def _several_problems(comparison: Comparison) -> Picture:
    profile = performance_profile(comparison)
    columns = min(len(profile.problems), 4)
    rows = -(-len(profile.problems) // columns)
    height = 0.27 * len(comparison.methods) + 1.3
    figure = new_picture(13, rows * height + 4.6)
    headline(figure, profile_in_words(profile), 13)
    grid = figure.add_gridspec(2, 1, height_ratios=[rows * height, 3.8])
    panels = figure.add_subfigure(grid[0]).subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(profile.problems) :]:
        panel.set_visible(False)
    for panel, name in zip(panels, profile.problems, strict=False):
        _steps_to_target(panel, comparison, name)
    left, right = figure.add_subfigure(grid[1]).subplots(1, 2, width_ratios=[1.5, 1])
    _profile(left, profile, comparison)
    _scores(right, profile, comparison)
    return figure


def _is_rate(result: MethodResult) -> bool:
    return result.sweep.metric_name == "accuracy"


def _curves(panel: Axes, result: MethodResult, colour: str, is_rate: bool) -> None:
    steps = result.sweep.eval_steps
    floor = 1e-5 if is_rate else 0.0  # a logarithmic axis cannot show an error of 0
    loss = np.maximum(result.train_loss, floor)
    panel.fill_between(steps, loss.min(0), loss.max(0), color=colour, alpha=0.25, lw=0)
    panel.plot(steps, np.median(loss, 0), color=colour, label="training loss")
    if is_rate:
        error = np.maximum(np.median(1 - result.metric, 0), floor)
        panel.plot(steps, error, color=colour, ls="--", lw=1, label="validation error")
        panel.set_ylim(1e-4, 10)
    panel.set_yscale("log")
    batch = ", full batch" if result.batch_size is None else ""
    panel.set_title(f"{result.method}{batch}, ε = {result.learning_rate:.2g}", fontsize=9)
    panel.tick_params(labelsize=8)


def _steps_to_target(panel: Axes, comparison: Comparison, problem: str) -> None:
    target = comparison.target(problem)
    results = sorted(comparison.of(problem), key=lambda r: (np.median(r.steps_to(target)), r.method), reverse=True)
    taken = np.array([result.steps_to(target) for result in results])  # [methods, seeds]
    all_reach = bool(np.isfinite(np.median(taken, axis=1)).all())
    last = 1.2 * max(1, taken[np.isfinite(taken)].max()) if all_reach else comparison.settings["steps"]
    for y, (result, steps) in enumerate(zip(results, taken, strict=True)):
        colour = look(comparison.methods.index(result.method))["color"]
        reached = steps[np.isfinite(steps)]
        panel.plot(reached, np.full(len(reached), y), "o", color=colour, alpha=0.5, ms=5)
        if len(reached) == len(steps):
            panel.plot(np.median(steps), y, "|", color=colour, ms=16, mew=3)
        else:
            text = f"{len(steps) - len(reached)} of {len(steps)} never get there"
            panel.annotate(text, (1.05 * last, y), va="center", fontsize=8, color=colour)
    metric, shown = results[0].sweep.metric_name, f"{target:.0%}" if _is_rate(results[0]) else f"{target:.3g}"
    panel.set_yticks(range(len(results)), [r.method for r in results], fontsize=9)
    title = f"{problem}: {metric} {shown}"
    if len(comparison.problems) == 1:
        title = f"Steps to {shown} validation {metric} (left is quicker)"
    panel.set(ylim=(-0.6, len(results) - 0.4), xlim=(0, last * (1.02 if all_reach else 1.4)))
    panel.set(xlabel="optimizer steps (dot: one seed, bar: median)", title=title)
    light_grid(panel, "x")


def _sensitivity(panel: Axes, comparison: Comparison) -> None:
    first = comparison.results[0].sweep
    for i, result in enumerate(comparison.results):
        rates = result.sweep.axes["learning_rate"] / result.learning_rate
        finals = result.sweep.final("metric").mean(axis=1)
        finals = np.where(np.isfinite(finals), finals, np.nan)
        panel.plot(rates, finals, **look(i), ms=5, lw=1.2, label=in_legend(result.method))
    panel.axvline(1, color=GREY, zorder=0)
    if _is_rate(comparison.results[0]):
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set(xscale="log", xlabel="learning rate / best learning rate of the method")
    panel.set_ylabel(f"final validation {first.metric_name}")
    panel.set_title("Results at other learning rates (flat is good; a line ends if the runs diverged)")
    panel.legend(fontsize=8, ncols=2, loc="lower left" if first.higher_is_better else "upper left")
    light_grid(panel)


def _profile(panel: Axes, profile: PerformanceProfile, comparison: Comparison) -> None:
    taus = np.geomspace(1, profile.max_ratio, 400)
    for i, method in enumerate(comparison.methods):
        jitter = 0.006 * (i - len(comparison.methods) / 2)  # methods with equal steps would hide each other
        heights = profile.fraction(method, taus) + jitter
        panel.plot(taus, heights, **look(i), ms=5, markevery=(i * 9, 80), label=in_legend(method))
    panel.set_xscale("log")
    ticks = [t for t in (1, 1.5, 2, 3, 4, 6, 8) if t <= profile.max_ratio]
    panel.set_xticks(ticks, [f"{t:g}" for t in ticks])
    panel.minorticks_off()
    panel.set(ylim=(-0.06, 1.08), xlabel="τ: steps relative to the quickest method")
    panel.set_ylabel("problems within τ (fraction)")
    panel.set_title(f"Performance profile over {len(profile.problems)} problems (up and left is better)")
    panel.legend(fontsize=8, ncols=5, loc="upper left", bbox_to_anchor=(0, -0.14), borderaxespad=0)
    light_grid(panel)


def _scores(panel: Axes, profile: PerformanceProfile, comparison: Comparison) -> None:
    order = sorted(profile.scores.items(), key=lambda item: item[1])
    for y, (method, score) in enumerate(order):
        panel.barh(y, score, color=look(comparison.methods.index(method))["color"], alpha=0.85)
        panel.annotate(f"{score:.2f}", (score, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    panel.set_yticks(range(len(order)), [method for method, _ in order], fontsize=9)
    panel.set(xlim=(0, 1.12), xlabel=f"area under the profile up to τ = {profile.max_ratio:g}")
    panel.set_title("Score (1: quickest on every problem)")
