"""Results as a table to read, and as JSON for other programs."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from .archive import whole_file
from .compare import Comparison, MethodResult, check_comparison
from .profiles import performance_profile
from .tables import FittingTable

HEADINGS = (
    "batch", "learning\nrate", "steps to\ntarget", "area", "final\nloss", "validation\nmetric", "early\nstop",
    "diverged", "time\n(s)",
)  # fmt: skip
# On a narrow screen these columns are left out, in this order.
LEAVE_OUT = ("time\n(s)", "area", "batch", "early\nstop", "diverged", "final\nloss", "learning\nrate")


def comparison_table(comparison: Comparison) -> Table:
    """Makes a table with one row per method and problem, at its best learning rate.

    Spreads are standard deviations over the seeds. On a narrow screen some columns are left out; method, steps to the
    target, metric and score stay. With more than one problem a last block holds the scores of the performance profile.

    Returns:
        A rich table: `rich.print` shows it.

    Raises:
        TypeError: if `comparison` is not the result of `compare`, or one that `comparisons` yields.
    """
    check_comparison("comparison_table", comparison)
    settings = comparison.settings
    several = len(comparison.problems) > 1
    descriptions = "; ".join(settings["problems"].values()) if not several else f"{len(comparison.problems)} problems"
    table = FittingTable(
        leave_out=LEAVE_OUT,
        title=f"{descriptions}: {settings['seeds']} seeds, {settings['steps']} steps",
        caption=_caption(settings, several),
    )
    table.add_column("method")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    profile = performance_profile(comparison)
    for problem, target in profile.targets.items():
        if several:
            table.add_section()
        name = f"[bold]{problem}[/bold]" if several else "target"
        metric = "\n".join(textwrap.wrap(comparison.of(problem)[0].sweep.metric_name, 14))
        table.add_row(name, "", "", f"{target:.4g}", "", "", metric, *[""] * 3)
        for result in comparison.of(problem):
            table.add_row(*_cells(result, target))
    if several:
        table.add_section()
        table.add_row("[bold]score[/bold]", *[""] * 9)
        for method, score in sorted(profile.scores.items(), key=lambda item: -item[1]):
            table.add_row(method, "", "", f"{score:.2f}", *[""] * 6)
    return table


def _caption(settings: dict[str, Any], several: bool) -> str:
    return (
        f"Each method had the same budget: {settings['learning_rates']} learning rates. The table shows the one with "
        "the best validation metric, so this metric is a little too good. *: at the edge of its grid. "
        f"Steps to target: median, measured every {settings['evaluate_every']} steps. Area: mean height of the "
        f"training-loss curve. Early stop: median step after {settings['patience']} evaluations without a better "
        "metric. Diverged: share of the members of the whole grid."
        + (" Score: area under the performance profile up to a factor of 4 (AlgoPerf)." if several else "")
    )


def _cells(result: MethodResult, target: float) -> tuple[str, ...]:
    finals = result.metric[:, -1]
    scale = 100 if result.sweep.metric_name == "accuracy" else 1
    edge = "*" if result.best in (0, len(result.sweep.axes["learning_rate"]) - 1) else ""
    stopped = result.stopped_at[result.stopped_at >= 0]
    loss = result.train_loss[:, -1]
    final_loss = f"{loss.mean():.3g} ± {loss.std():.1g}"
    metric = f"{scale * finals.mean():.4g} ± {scale * finals.std():.2g}" + (" %" if scale == 100 else "")
    return (
        result.method,
        "all" if result.batch_size is None else str(result.batch_size),
        "-" if result.has_diverged else f"{result.learning_rate:.2g}{edge}",
        _steps(result.steps_to(target)),
        *(["-", "-", "diverged"] if result.has_diverged else [f"{result.area.mean():.4g}", final_loss, metric]),
        f"{np.median(stopped):.0f}" if 2 * len(stopped) > len(result.stopped_at) else "-",
        f"{np.mean(result.sweep.diverged_at >= 0):.0%}",
        f"{result.seconds:.1f}",
    )


def _steps(steps: np.ndarray) -> str:
    """The median of the steps. If some seeds did not reach the target, it also gives how many did."""
    reached = int(np.isfinite(steps).sum())
    if reached == 0:
        return "never"
    shown = f"{np.median(steps):.0f}" if np.isfinite(np.median(steps)) else "-"
    return shown if reached == len(steps) else f"{shown} ({reached}/{len(steps)})"


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as plain lists and numbers: settings, all evaluations of all members, and the choices.

    Numbers that are not finite (steps to a target that was not reached, a loss that diverged) become None for JSON.

    Raises:
        TypeError: if `comparison` is not the result of `compare`, or one that `comparisons` yields.
    """
    check_comparison("comparison_to_dict", comparison)
    profile = performance_profile(comparison)
    return {
        "settings": comparison.settings,
        "targets": profile.targets,
        "scores": profile.scores,
        "results": [
            {
                "problem": result.problem,
                "method": result.method,
                "batch_size": result.batch_size,
                "seconds": result.seconds,
                "best_learning_rate": result.learning_rate,
                "steps_to_target": _finite(result.steps_to(profile.targets[result.problem])),
                "area": _finite(result.area),
                "stopped_at": result.stopped_at.tolist(),
                "stopped_metric": _finite(result.stopped_metric),
                "learning_rates": result.sweep.axes["learning_rate"].tolist(),
                "metric_name": result.sweep.metric_name,
                "eval_steps": result.sweep.eval_steps.tolist(),
                **{name: _finite(getattr(result.sweep, name)) for name in ("train_loss", "validation_loss", "metric")},
                "diverged_at": result.sweep.diverged_at.tolist(),
            }
            for result in comparison.results
        ],
    }


def _finite(values: np.ndarray) -> list[Any]:
    """Nested lists, with None for numbers that are not finite: JSON has neither NaN nor inf."""
    objects = values.astype(object)
    objects[~np.isfinite(values)] = None
    return objects.tolist()


def save_comparison(comparison: Comparison, path: str | Path) -> None:
    """Writes `comparison_to_dict` as JSON. It replaces an old file, which stays if the write is interrupted.

    Raises:
        TypeError: if `comparison` is not the result of `compare`, or one that `comparisons` yields.
    """
    check_comparison("save_comparison", comparison)
    with whole_file(path) as partial:
        partial.write_text(json.dumps(comparison_to_dict(comparison)), encoding="utf-8")
