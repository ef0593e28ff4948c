"""Pictures of the fall of the excess error, on axes that show a power of the steps as a straight line."""

from collections.abc import Iterator, Mapping
from typing import get_args

import numpy as np

from ..convergence import convergence_order
from ..sweep_result import Measure, Sweep
from .curves import Runs, curve_of, runs_by_name, steps_of
from .style import Picture, headline, in_legend, light_grid, look, new_picture, styled


@styled
def plot_convergence(runs: Runs | Mapping[str, Runs], minimum: float = 0.0, *, what: Measure = "train_loss") -> Picture:
    """Plots the excess error J - min J over the steps on logarithmic axes: k^-a is a straight line of slope -a.

    The line is the mean over runs, and the band around it is two standard errors wide on each side. The dashed line is
    the power of k that `lab.convergence_order` fits to the last tenfold of the steps.

    Args:
        runs: a History or a Recorder, several of them, a Sweep (a line for each of its points), or {name: any of
            these}.
        minimum: min J, which is `Problem.optimum` or `Landscape.minimum`.
        what: the evaluated "train_loss", "validation_loss" or "metric", or "loss", the loss of each step's minibatch.

    Raises:
        ValueError: if `what` is not one of these names, or `runs` is empty. TypeError: if `runs` holds other objects.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> run = lab.run(landscapes.quadratic(1e6, dim=30), gradtx.sgd(1e-6), steps=1000, key=jax.random.key(0))
    >>> print(lab.plot_convergence(run).get_suptitle())
    Over the last tenfold of the steps the excess error falls as k^-1.00.
    """
    if what not in get_args(Measure):
        raise ValueError(f"plot_convergence: what must be one of {', '.join(get_args(Measure))}, got {what!r}.")
    named = runs_by_name("plot_convergence", runs)
    figure = new_picture(8, 4.8)
    axes = figure.subplots()
    orders = {}
    for i, (name, (steps, values)) in enumerate(_lines(named, what)):
        is_shown = (steps > 0) & np.isfinite(values).all(axis=0)
        steps, excess = steps[is_shown], values[:, is_shown] - minimum
        middle, style = excess.mean(axis=0), look(i)
        if (middle > 0).sum() < 2:  # interrupted, diverged, or already at the minimum
            orders[name] = np.nan
            axes.plot([], [], **style, ms=5, label=in_legend(f"{name}: too short" if name else "too short"))
            continue
        if len(excess) > 1:
            error = 2 * excess.std(axis=0, ddof=1) / len(excess) ** 0.5
            low = np.maximum(middle - error, middle / 10)  # a logarithmic axis cannot show 0
            axes.fill_between(steps, low, middle + error, color=style["color"], alpha=0.2, lw=0)
        order = orders[name] = convergence_order(steps, excess)
        label = f"{name}: {_trend_in_words(order)}" if name else _trend_in_words(order)
        markers = _spread_out(steps, 7)
        axes.plot(steps, np.where(middle > 0, middle, np.nan), **style, ms=5, markevery=markers, label=in_legend(label))
        tail = steps[steps >= steps[-1] / 10]
        height = np.exp(np.nanmean(np.log(np.where(middle > 0, middle, np.nan)[-len(tail) :]) + order * np.log(tail)))
        axes.plot(tail, height * tail**-order, "--", color="k", lw=0.9, zorder=3)
    if np.isfinite(list(orders.values())).any():  # a logarithmic axis needs a value
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel="optimizer step k", ylabel="excess error J - min J")
    axes.plot([], [], "--k", lw=0.9, label="fitted power of k")
    light_grid(axes)
    axes.legend()
    headline(figure, _conclusion(orders), 11)
    return figure


def _lines(named: Mapping[str, Runs], what: Measure) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yields the name, the steps [n] and the values [runs, n] of each line."""
    for name, given in named.items():
        if not isinstance(given, Sweep):
            yield name, curve_of("plot_convergence", given, what)
            continue
        members = given.by_point(getattr(given, what))
        for index, member in enumerate(members):
            point = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in given.point(index).items())
            label = name if name and len(members) == 1 else f"{name}, {point}" if name else point
            yield label, (steps_of(given, what), member)


def _spread_out(steps: np.ndarray, count: int) -> list[int]:
    """Indices of at most `count` markers, at equal ratios of the steps."""
    return np.unique(np.searchsorted(steps, np.geomspace(steps[0], steps[-1], count)).clip(max=len(steps) - 1)).tolist()


def _trend_in_words(order: float) -> str:
    if np.isnan(order):
        return "has too few steps above 0 to tell"
    return "stays" if abs(order) <= 0.1 else f"{'falls' if order > 0 else 'grows'} as k^{-order:.2f}"


def _conclusion(orders: Mapping[str, float]) -> str:
    lead = "Over the last tenfold of the steps the excess error"
    if len(orders) == 1:
        return f"{lead} {_trend_in_words(next(iter(orders.values())))}."
    ranked = sorted(orders, key=lambda name: -orders[name] if np.isfinite(orders[name]) else np.inf)
    return f"{lead}: {'; '.join(f'{name} {_trend_in_words(orders[name])}' for name in ranked)}."
