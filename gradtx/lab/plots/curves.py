"""Curves of a quantity over the steps, with bands over runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradtx._core.arguments import checked_count

from ..history import History, scalar_columns
from ..recorder import Recorder
from ..sweep_result import Sweep
from .style import Picture, headline, in_legend, light_grid, look, new_picture, styled

Runs = History | Recorder | Sequence[History | Recorder] | Sweep
EVALUATED = ("train_loss", "validation_loss", "metric")


@styled
def plot_curves(runs: Runs | Mapping[str, Runs], what: str = "loss", *, smooth: int | None = None) -> Picture:
    """Plots the median over runs, in a band from the lowest to the highest value of any run.

    Smoothing takes medians, which hide a spike. The band spans all measured values, so it still shows the spike.

    Args:
        runs: a History or a Recorder, several of them (drawn as a band), a Sweep (its best point, with a band over its
            keys), or {name: any of these}.
        what: "loss", "train_loss", "validation_loss", "metric", or the name of a reading. Use `name[i]` if the reading
            has several numbers per step.
        smooth: number of steps in each median, so that minibatch noise does not hide the trend. The default, for
            values that are measured at every step, is a 50th of the steps.

    Raises:
        ValueError: if `what` is not a curve of the runs, or `runs` is empty. TypeError: if `runs` holds other objects.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> run = lab.run(landscapes.quadratic(10.0), gradtx.sgd(0.1), steps=50, key=jax.random.key(0))
    >>> print(lab.plot_curves(run).get_suptitle())
    The minibatch loss ends at 1.64e-05.
    """
    named = runs_by_name("plot_curves", runs)
    if smooth is not None:
        checked_count("plot_curves", "smooth", smooth)
    figure = new_picture(8, 4.6)
    axes = figure.subplots()
    first = _list(next(iter(named.values())))[0]
    metric = getattr(first, "metric_name", "metric")
    names = {"loss": "minibatch loss", "train_loss": "training loss", "metric": f"validation {metric}"}
    label = names.get(what, _reading_in_words(what))
    ends, positive = {}, True
    for i, (name, given) in enumerate(named.items()):
        steps, values = curve_of("plot_curves", given, what)
        low = high = values
        if what not in EVALUATED and len(steps):
            steps, values, low, high = _smoothed(steps, values, smooth or max(1, len(steps) // 50))
        colour = look(i)["color"]
        known = np.isfinite(values).any(axis=0)  # leaves out steps at which every run has diverged
        steps, values, low, high = steps[known], values[:, known], low[:, known], high[:, known]
        middle = np.nanmedian(values, axis=0) if len(steps) else np.zeros(0)
        if len(steps) and (len(values) > 1 or (high > low).any()):
            lowest, highest = np.nanmin(low, axis=0), np.nanmax(high, axis=0)
            axes.fill_between(steps, lowest, highest, color=colour, alpha=0.2, lw=0)
        axes.plot(steps, middle, **look(i), ms=5, markevery=max(1, len(steps) // 8), label=in_legend(name))
        positive &= bool((middle > 0).all())
        ends[name] = middle[-1] if len(middle) else np.nan
    if positive and what != "metric" and np.isfinite(list(ends.values())).any():
        axes.set_yscale("log")
    axes.set(xlabel="optimizer step", ylabel=label)
    light_grid(axes)
    if any(named):
        axes.legend()
    headline(figure, _conclusion(label, ends, what == "metric" and getattr(first, "higher_is_better", True)), 11)
    return figure


def _reading_in_words(name: str) -> str:
    """Turns `gradient_norm/global` into "gradient norm (global)"."""
    instrument, _, part = name.replace("_", " ").partition("/")
    return f"{instrument} ({part})" if part else instrument


def runs_by_name(function: str, runs: Runs | Mapping[str, Runs]) -> dict[str, Runs]:
    """The runs of each line by its name. Raises if there are none, or if something else is among them."""
    named: dict[str, Any] = dict(runs) if isinstance(runs, Mapping) and not isinstance(runs, Recorder) else {"": runs}
    for given in named.values():
        one = isinstance(given, History | Recorder | Sweep)
        if not one and not (isinstance(given, Sequence) and all(isinstance(run, History | Recorder) for run in given)):
            kinds = "a History, a Recorder, several of them, a Sweep, or a dict of these"
            raise TypeError(f"{function}: runs must be {kinds}, got {given!r}.")
    if not named or not all(_list(given) for given in named.values()):
        raise ValueError(f"{function}: runs must hold at least one History or Sweep for each line, got none.")
    if any(isinstance(run, Recorder) and not run.steps for given in named.values() for run in _list(given)):
        raise ValueError(
            f"{function}: runs must have recorded a step, got a Recorder without one: call log(loss=value)."
        )
    return named


def curve_of(function: str, given: Runs, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [runs, n]. Longer runs are cut to the length of the shortest."""
    runs = _runs_of_best(given) if isinstance(given, Sweep) else [_curves_of(run) for run in _list(given)]
    if what not in runs[0]:
        raise ValueError(f"{function}: what must be one of {', '.join(runs[0])}, got {what!r}.")
    shortest = min(len(run[what]) for run in runs)
    try:
        values = np.stack([np.asarray(run[what][:shortest], float) for run in runs])
    except (TypeError, ValueError):
        raise ValueError(f"{function}: {what} must be a curve of numbers, got {runs[0][what][:1]!r}.") from None
    return steps_of(_list(given)[0], what)[:shortest], values


def steps_of(run: History | Recorder | Sweep, what: str) -> np.ndarray:
    """The steps at which a curve was measured: the steps of the evaluations, or all steps."""
    if isinstance(run, Recorder):
        return run["step"]
    return run.eval_steps if what in EVALUATED else np.arange(run.loss.shape[-1])


def _list(given: Runs) -> list[Any]:
    return [given] if isinstance(given, History | Recorder | Sweep) else list(given)


def _curves_of(run: History | Recorder) -> dict[str, np.ndarray]:
    if isinstance(run, Recorder):
        return scalar_columns({name: values for name, values in run.table().items() if name != "step"})
    evaluated = {name: getattr(run, name) for name in EVALUATED}
    return {"loss": run.loss, **evaluated, **scalar_columns(run.readings)}


def _runs_of_best(sweep: Sweep) -> list[dict[str, np.ndarray]]:
    """The curves of the sweep's best point, one dict for each key."""
    best = int(sweep.order()[0])
    return [scalar_columns(sweep.curves(best, key)) for key in range(sweep.loss.shape[-2])]


def _smoothed(steps: np.ndarray, values: np.ndarray, window: int) -> tuple[np.ndarray, ...]:
    """The mean step, medians, lowest and highest values of blocks of `window` steps; the last block may be longer."""
    window = min(window, len(steps))
    ends = np.arange(window, len(steps) - window + 1, window)  # of all blocks but the last
    centres = np.array([part.mean() for part in np.split(steps, ends)])
    blocks = np.split(values, ends, axis=1)
    middle, low, high = (
        np.stack([_of_finite(statistic, block) for block in blocks], axis=1)
        for statistic in (np.median, np.min, np.max)
    )
    return centres, middle, low, high


def _of_finite(statistic: Callable[[np.ndarray], Any], block: np.ndarray) -> np.ndarray:
    """The statistic [runs] of each run's finite values, NaN if it has none."""
    finite = [run[np.isfinite(run)] for run in block]
    return np.array([statistic(run) if len(run) else np.nan for run in finite])


def _conclusion(label: str, ends: dict[str, float], higher_is_better: bool) -> str:
    if not np.isfinite(list(ends.values())).any():
        return f"The {label} is never finite."
    if len(ends) == 1:
        return f"The {label} ends at {next(iter(ends.values())):.3g}."
    sign = -1 if higher_is_better else 1
    order = sorted(ends, key=lambda name: sign * ends[name] if np.isfinite(ends[name]) else np.inf)
    ranked = "; ".join(f"{name}: {ends[name]:.3g}" for name in order)
    return f"Final {label}, {'highest' if higher_is_better else 'lowest'} first. {ranked}."
