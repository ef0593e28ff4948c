"""The cost of a batch size: steps and examples to a target."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ..arguments import check_kind
from ..compare import first_step_reaching
from ..sweep_result import Measure, Sweep, check_sweeps
from .style import COLOURS, Picture, headline, light_grid, new_picture, styled


@styled
def plot_batch_sizes(sweeps: Mapping[int, Sweep], target: float, *, by: Measure = "train_loss") -> Picture:
    """Plots the steps and the examples to a target over the batch size, each size at its own best hyper-parameters.

    As long as the steps fall as 1/B (grey line), a larger batch is free if it runs in parallel. Once they level off,
    examples are wasted (Shallue et al. 2019, "Measuring the effects of data parallelism"; chapter §3.1: less than
    linear returns).

    Args:
        sweeps: {batch size: sweep}, all of the same problem.
        target: value of `by` to reach.
        by: "train_loss", "validation_loss" or "metric".

    Raises:
        ValueError: if `sweeps` is empty or `by` is "loss". TypeError: if `sweeps` holds anything but sweeps.

    >>> import gradtx, jax
    >>> from gradtx import lab, landscapes
    >>> keys, valley = jax.random.split(jax.random.key(0), 1), landscapes.noisy(landscapes.quadratic(10.0), 1.0)
    >>> grid = {"learning_rate": [0.02, 0.1]}
    >>> swept = {size: lab.sweep(valley, gradtx.sgd, grid, steps=50, keys=keys, batch_size=size) for size in (1, 8)}
    >>> print(lab.plot_batch_sizes(swept, target=0.05).get_suptitle())
    Batch size 1 needs the fewest examples and the fewest steps (12).
    """
    if by == "loss":
        raise ValueError(
            "plot_batch_sizes: by must be an evaluation (train_loss, validation_loss, metric), got 'loss'."
        )
    check_kind("plot_batch_sizes", "sweeps", sweeps, Mapping, "from batch sizes to results of lab.sweep")
    check_sweeps("plot_batch_sizes", sweeps.values())
    sizes = np.array(sorted(sweeps))
    steps = np.stack([_steps_to(sweeps[size], target, by) for size in sizes])  # [sizes, keys]
    goal = f"{by.replace('_', ' ')} {target:.3g}"
    figure = new_picture(9.5, 4.4)
    left, right = figure.subplots(1, 2)
    for axes, values, label in ((left, steps, "optimizer steps"), (right, steps * sizes[:, None], "examples seen")):
        reached = np.isfinite(values).all(axis=1)
        shown = sizes[reached]
        axes.fill_between(shown, values[reached].min(1), values[reached].max(1), color=COLOURS[0], alpha=0.2, lw=0)
        axes.plot(shown, np.median(values[reached], axis=1), "o-", color=COLOURS[0], label="median and range over keys")
        scale = "log" if reached.any() else "linear"  # a logarithmic axis needs a value
        axes.set(xscale="log", yscale=scale, xlabel="batch size (examples)", ylabel=f"{label} to {goal}")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        if reached.any():
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        light_grid(axes)
    medians = np.median(steps, axis=1)
    if np.isfinite(medians[0]):
        left.plot(sizes, medians[0] * sizes[0] / sizes, "--", color="#888888", label="1/B: no example wasted")
    left.legend()
    headline(figure, _batch_conclusion(sizes, medians, goal), 11)
    return figure


def _steps_to(sweep: Sweep, target: float, by: Measure) -> np.ndarray:
    """Steps to the target [keys], for the point of the sweep whose median over the keys is lowest."""
    higher = by == "metric" and sweep.higher_is_better
    curves = sweep.by_point(getattr(sweep, by))
    steps = np.stack([first_step_reaching(sweep.eval_steps, curve, target, higher) for curve in curves])
    return steps[np.argmin(np.median(steps, axis=1))]


def _batch_conclusion(sizes: np.ndarray, medians: np.ndarray, goal: str) -> str:
    reached = np.isfinite(medians) & (medians > 0)
    if not reached.any():
        return f"No batch size reached {goal}."
    examples = np.where(reached, medians * sizes, np.inf)
    fewest, quickest = int(np.argmin(examples)), int(np.argmin(np.where(reached, medians, np.inf)))
    text = f"Batch size {sizes[fewest]} needs the fewest examples"
    if quickest == fewest:
        return f"{text} and the fewest steps ({medians[fewest]:.0f})."
    few, factor = medians[quickest], examples[quickest] / examples[fewest]
    more = f"Batch size {sizes[quickest]} needs the fewest steps ({few:.0f}), and {factor:.1f} times as many examples."
    return f"{text} ({medians[fewest]:.0f} steps). {more}"
