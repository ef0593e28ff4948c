"""A quantity over the steps, with bands over runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..history import History
from ..sweep_result import Sweep
from .style import Picture, headline, light_grid, look, new_picture, styled

Runs = History | Sequence[History] | Sweep
EVALUATED = ("train_loss", "validation_loss", "metric")


@styled
def plot_curves(runs: Runs | Mapping[str, Runs], what: str = "loss", *, smooth: int | None = None) -> Picture:
    """One line each: the median over runs, in a band from their lowest to their highest.

    Args:
        runs: a History, several of them (a band), a Sweep (its best point, a band over its keys), or {name: any of these}.
        what: "loss", "train_loss", "validation_loss", "metric", or the name of a reading.
        smooth: median over so many steps, so that minibatch noise does not hide the course; default a 50th of the steps for
            what is measured at every step.
    """
    named = dict(runs) if isinstance(runs, Mapping) else {"": runs}
    figure = new_picture(8, 4.6)
    axes = figure.subplots()
    ends, positive = {}, True
    for i, (name, given) in enumerate(named.items()):
        steps, values = _curve(given, what)
        if what not in EVALUATED:
            steps, values = _smoothed(steps, values, max(1, values.shape[1] // 50) if smooth is None else smooth)
        colour = look(i)["color"]
        middle = np.nanmedian(values, axis=0)
        if len(values) > 1:
            axes.fill_between(
                steps, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.2, lw=0
            )
        axes.plot(steps, middle, **look(i), ms=5, markevery=max(1, len(steps) // 8), label=name or None)
        finite = middle[np.isfinite(middle)]
        positive &= bool((finite > 0).all())
        ends[name] = finite[-1] if len(finite) else np.nan
    if positive and what != "metric":
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=what.replace("_", " "))
    light_grid(axes)
    if any(named):
        axes.legend()
    headline(figure, _conclusion(what, ends), 11)
    return figure


def _curve(given: Runs, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [runs, n]."""
    if isinstance(given, Sweep):
        index = int(given.order()[0])
        keys = given.loss.shape[-2]
        values = given.readings[what] if what in given.readings else getattr(given, what, None)
        steps = given.eval_steps if what in EVALUATED else np.arange(given.loss.shape[-1])
        if isinstance(values, np.ndarray):
            return steps, values.reshape(-1, keys, values.shape[-1])[index]
        names = given.readings
    else:
        histories = [given] if isinstance(given, History) else list(given)
        names = histories[0].readings
        if what == "loss" or what in EVALUATED or what in names:
            rows = [h.readings[what] if what in names else getattr(h, what) for h in histories]
            shortest = min(len(row) for row in rows)
            steps = histories[0].eval_steps if what in EVALUATED else np.arange(shortest)
            return steps[:shortest], np.stack([row[:shortest] for row in rows])
    raise ValueError(f"plot_curves: what must be one of {', '.join(('loss', *EVALUATED, *names))}, got {what!r}.")


def _smoothed(steps: np.ndarray, values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Medians of blocks of `window` steps."""
    blocks = values.shape[1] // window
    cut = values[:, : blocks * window].reshape(len(values), blocks, window)
    finite = np.isfinite(cut).any(axis=-1)
    medians = np.full(finite.shape, np.nan)
    medians[finite] = np.nanmedian(cut[finite], axis=-1)
    return steps[: blocks * window].reshape(blocks, window).mean(axis=1), medians


def _conclusion(what: str, ends: dict[str, float]) -> str:
    label = what.replace("_", " ")
    if len(ends) == 1:
        return f"The {label} ends at {next(iter(ends.values())):.3g}."
    order = sorted(ends, key=lambda name: ends[name] if np.isfinite(ends[name]) else np.inf)
    return f"Final {label}, lowest first: {', '.join(f'{name} {ends[name]:.3g}' for name in order)}."
