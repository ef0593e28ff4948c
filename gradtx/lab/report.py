"""Results as a table to read and as JSON to go on with."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from .compare import Comparison, MethodResult


def comparison_table(comparison: Comparison) -> Table:
    """One row a method at its best learning rate; spreads are standard deviations over the seeds."""
    settings = comparison.settings
    table = Table(
        title=f"{settings['problem']}: {settings['seeds']} seeds, {settings['steps']} steps",
        caption=(
            f"Each method had the same budget: {settings['learning_rates']} learning rates; shown is the one with the "
            "best validation accuracy, so that accuracy flatters a little. * at the edge of its grid. "
            f"Steps to 90 % and 95 % are medians, seen every {settings['evaluate_every']} steps. "
            f"Early stop: median step with {settings['patience']} evaluations without a better accuracy."
        ),
        caption_justify="left",
    )
    table.add_column("method")
    for heading in ("batch", "learning\nrate", "steps to\n90 %", "steps to\n95 %", "final loss\n(nats)"):
        table.add_column(heading, justify="right")
    for heading in ("validation\naccuracy (%)", "early\nstop", "diverged", "time\n(s)"):
        table.add_column(heading, justify="right")
    for result in comparison.results:
        table.add_row(*_cells(result))
    return table


def _cells(result: MethodResult) -> tuple[str, ...]:
    curves = result.curves
    loss = curves.train_loss[result.best, :, -1]
    accuracy = 100 * curves.validation_metric[result.best, :, -1]
    edge = "*" if result.best in (0, len(curves.learning_rates) - 1) else ""
    stopped = result.stopped_at[result.stopped_at >= 0]
    return (
        result.method,
        "all" if result.batch_size is None else str(result.batch_size),
        f"{result.learning_rate:.2g}{edge}",
        _steps(result.steps_to(0.90)),
        _steps(result.steps_to(0.95)),
        f"{loss.mean():.4f} ± {loss.std():.4f}",
        f"{accuracy.mean():.1f} ± {accuracy.std():.1f}",
        f"{np.median(stopped):.0f}" if 2 * len(stopped) > len(result.stopped_at) else "-",
        f"{np.mean(curves.diverged_at >= 0):.0%}",
        f"{result.seconds:.1f}",
    )


def _steps(steps: np.ndarray) -> str:
    """The median; where not every seed got there, how many did."""
    reached = int(np.isfinite(steps).sum())
    if reached == 0:
        return "never"
    shown = f"{np.median(steps):.0f}" if np.isfinite(np.median(steps)) else "-"
    return shown if reached == len(steps) else f"{shown} ({reached}/{len(steps)})"


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything, as plain lists and numbers: settings, every curve of every member, and what was chosen."""
    return {
        "problem": comparison.problem,
        "settings": comparison.settings,
        "results": [
            {
                "method": result.method,
                "batch_size": result.batch_size,
                "seconds": result.seconds,
                "best_learning_rate": result.learning_rate,
                "steps_to_90": _finite(result.steps_to(0.90)),
                "steps_to_95": _finite(result.steps_to(0.95)),
                "stopped_at": result.stopped_at.tolist(),
                "stopped_metric": result.stopped_metric.tolist(),
                "curves": {name: _finite(np.asarray(value)) for name, value in vars(result.curves).items()},
            }
            for result in comparison.results
        ],
    }


def _finite(values: np.ndarray) -> list[Any]:
    """As nested lists, with None where a number is not finite: JSON has neither NaN nor inf."""
    return np.where(np.isfinite(values), values, None).tolist()  # pyright: ignore[reportCallIssue, reportArgumentType]


def save_comparison(comparison: Comparison, path: Path) -> None:
    """Writes the JSON so that a break in the middle leaves the last whole file, never half of one."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(comparison_to_dict(comparison)), encoding="utf-8")
    os.replace(partial, path)
