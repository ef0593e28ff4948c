"""Pictures of a sweep: a map of two hyper-parameters, and the sensitivity to one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from ..conclusions import sweep_in_words
from ..sweep_result import Measure, Sweep, check_sweeps
from .style import Picture, headline, in_legend, light_grid, look, new_picture, styled


@styled
def plot_sweep(sweep: Sweep, x: str = "learning_rate", y: str | None = None, *, by: Measure = "loss") -> Picture:
    """Maps the final loss (or metric) over two hyper-parameters. Each cell shows the best over all further ones.

    Args:
        sweep: a sweep over a Cartesian grid with at least two hyper-parameters.
        x, y: the names of the axes; y defaults to the first axis other than x.
        by: "loss", "train_loss", "validation_loss" or "metric", averaged over the keys.

    Raises:
        ValueError: if the sweep does not have both axes, `x` and `y` are equal, or `by` is another name.
        TypeError: if `sweep` is not a sweep.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> keys, valley = jax.random.split(jax.random.key(0), 1), landscapes.quadratic(10.0)
    >>> make_tx = lambda learning_rate, momentum: gradtx.sgd(learning_rate, momentum)
    >>> grid = {"learning_rate": [0.01, 0.1, 0.3], "momentum": [0.0, 0.5]}
    >>> swept = lab.sweep(valley, make_tx, grid, steps=50, keys=keys)
    >>> print(lab.plot_sweep(swept, by="train_loss").get_suptitle().split(" (")[0])
    quadratic: best at learning rate 0.1, momentum 0.5
    """
    check_sweeps("plot_sweep", [sweep])
    y = y or next((name for name in sweep.axes if name != x), None)
    if sweep.is_random or y is None or x not in sweep.axes or y not in sweep.axes or x == y:
        raise ValueError(
            f"plot_sweep: x and y must be two of the sweep's axes {list(sweep.axes)}, got {x!r} and {y!r}."
        )
    higher = by == "metric" and sweep.higher_is_better
    names = list(sweep.axes)
    hidden = [name for name in names if name not in (x, y)]
    best_of = np.max if higher else np.min
    values = best_of(sweep.final(by).mean(axis=-1), axis=tuple(names.index(name) for name in hidden))
    values = values.T if names.index(x) < names.index(y) else values
    values = np.where(np.isfinite(values), values, np.nan)

    figure = new_picture(8, 0.5 * len(values) + 2.8)
    axes = figure.subplots()
    axes.set_facecolor("#f4dcdc")
    finite = values[np.isfinite(values)]
    norm = LogNorm() if finite.size and (finite > 0).all() and not higher else None
    image = axes.imshow(values, aspect="auto", origin="lower", cmap="cividis" if higher else "cividis_r", norm=norm)
    bar = figure.colorbar(image, label=f"final {_label(sweep, by)}")
    bar.outline.set_visible(False)
    _write_cells(axes, values, image)
    if finite.size:
        best = np.nanargmax(values) if higher else np.nanargmin(values)
        row, column = np.unravel_index(best, values.shape)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="#D55E00", lw=3))
    axes.set_xticks(range(len(sweep.axes[x])), [f"{v:.2g}" for v in sweep.axes[x]])
    axes.set_yticks(range(len(sweep.axes[y])), [f"{v:.3g}" for v in sweep.axes[y]])
    axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "))
    if hidden:
        axes.set_title(f"Each cell shows the best over {', '.join(hidden).replace('_', ' ')}.", fontsize=9)
    headline(figure, sweep_in_words(sweep, by), 11)
    return figure


def _write_cells(axes: Axes, values: np.ndarray, image: Any) -> None:
    """Writes the number into each cell, or a cross if a member diverged."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.text(column, row, "×", ha="center", va="center", color="#882255", fontsize=12)
            continue
        luminance = np.dot(image.to_rgba(value)[:3], (0.2126, 0.7152, 0.0722))
        ink = "w" if luminance < 0.45 else "k"
        axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8, color=ink)


@styled
def plot_sensitivity(
    sweeps: Sweep | Mapping[str, Sweep], x: str = "learning_rate", *, by: Measure = "loss", minimum: float = 0.0
) -> Picture:
    """Plots the final loss (or metric) over one hyper-parameter. In a wide valley a wrong choice costs little.

    The line is the mean over the keys, and the band runs from their best to their worst value. Of all further
    hyper-parameters it takes the best values. A line ends where a member diverged. With a `minimum`, such as
    `Problem.optimum`, the picture shows the excess over it.

    Args:
        sweeps: a sweep over a Cartesian grid with the axis `x`, or {name: sweep} for one line per sweep.
        x: the hyper-parameter.
        by: "loss", "train_loss", "validation_loss" or "metric".
        minimum: number that is subtracted from the final values.

    Raises:
        ValueError: if a sweep does not have the axis `x`, `by` is another name, or there is no sweep.
        TypeError: if `sweeps` holds anything but sweeps.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> keys, valley = jax.random.split(jax.random.key(0), 1), landscapes.quadratic(10.0)
    >>> swept = lab.sweep(valley, gradtx.sgd, {"learning_rate": [0.01, 0.1, 0.3]}, steps=50, keys=keys)
    >>> print(lab.plot_sensitivity({"sgd": swept, "again": swept}, by="train_loss").get_suptitle())
    Best final train loss by learning rate. sgd: 1.33e-05 at 0.1; again: 1.33e-05 at
    0.1.
    """
    named = dict(sweeps) if isinstance(sweeps, Mapping) else {"": sweeps}
    check_sweeps("plot_sensitivity", named.values())
    figure = new_picture(8, 4.6)
    axes = figure.subplots()
    bests, is_any_finite = {}, False
    for i, (name, sweep) in enumerate(named.items()):
        if sweep.is_random or x not in sweep.axes:
            raise ValueError(f"plot_sensitivity: x must be an axis of the sweep, one of {list(sweep.axes)}, got {x!r}.")
        higher = by == "metric" and sweep.higher_is_better
        finals = np.moveaxis(sweep.final(by) - minimum, list(sweep.axes).index(x), 0)
        finals = finals.reshape(len(sweep.axes[x]), -1, finals.shape[-1])
        means = finals.mean(axis=-1)
        chosen = (means.argmax if higher else means.argmin)(axis=1)
        best = np.take_along_axis(finals, chosen[:, None, None], axis=1)[:, 0]
        best = np.where(np.isfinite(best).all(axis=1, keepdims=True), best, np.nan)
        middle, values = best.mean(axis=1), sweep.axes[x]
        axes.fill_between(values, best.min(axis=1), best.max(axis=1), color=look(i)["color"], alpha=0.2, lw=0)
        axes.plot(values, middle, **look(i), ms=5, label=in_legend(name))
        bests[name] = _best_in_words(name, values, middle, higher)
        is_any_finite |= bool(np.isfinite(middle).any())
    first = next(iter(named.values()))
    if by != "metric" and is_any_finite:  # a logarithmic axis needs a value
        axes.set_yscale("log")
    if all((sweep.axes[x] > 0).all() for sweep in named.values()):
        axes.set_xscale("log")
    measure = f"final {'excess ' if minimum else ''}{_label(first, by)}"
    axes.set(xlabel=x.replace("_", " "), ylabel=measure)
    light_grid(axes)
    if any(named):
        axes.legend()
    best = f"{sweep_in_words(first, by)} " if len(named) == 1 and not minimum else ""
    headline(figure, f"{best}Best {measure} by {x.replace('_', ' ')}. {'; '.join(bests.values())}.", 11)
    return figure


def _best_in_words(name: str, values: np.ndarray, middle: np.ndarray, higher: bool) -> str:
    start = f"{name}: " if name else ""
    if not np.isfinite(middle).any():
        return f"{start}no value is finite"
    place = int(np.nanargmax(middle) if higher else np.nanargmin(middle))
    edge = " (the edge of the grid)" if len(values) > 2 and place in (0, len(values) - 1) else ""
    return f"{start}{middle[place]:.3g} at {values[place]:.3g}{edge}"


def _label(sweep: Sweep, by: Measure) -> str:
    return sweep.metric_name if by == "metric" else by.replace("_", " ")
