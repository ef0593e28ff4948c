"""The result of a sweep, with the names of its axes."""

import textwrap
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from rich.table import Table

from .archive import grouped, read_archive, write_archive
from .arguments import check_kind
from .tables import FittingTable

Measure = Literal["loss", "train_loss", "validation_loss", "metric"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """All members of a sweep: grid points (one axis per hyper-parameter; a random grid has one axis) x K keys.

    n steps, E evaluations. A member that diverged keeps its last finite parameters. Its `loss` and `readings` are NaN
    from the step after `diverged_at` on, and its evaluations repeat that of those parameters.
    """

    axes: dict[str, np.ndarray]  # hyper-parameter -> its values; in a random grid one value per point
    is_random: bool  # one axis of points instead of one per hyper-parameter
    loss: np.ndarray  # [*grid, K, n] mean loss of each step's minibatch, before the step
    readings: dict[str, np.ndarray]  # name -> [*grid, K, n], or [*grid, K, n, leaves]
    eval_steps: np.ndarray  # [E] int
    train_loss: np.ndarray  # [*grid, K, E] on (at most 2,048) training examples
    validation_loss: np.ndarray  # [*grid, K, E]
    metric: np.ndarray  # [*grid, K, E] on the validation set; for a landscape its value
    diverged_at: np.ndarray  # [*grid, K] int: the step that led to parameters that are not finite, -1: none
    finished: np.ndarray  # [*grid, K] bool: false if an interrupt came before its end
    problem: str
    metric_name: str
    higher_is_better: bool  # whether a higher metric is better
    method: str = ""  # the name of make_tx, if it has one

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes of `loss`."""
        return (*(("point",) if self.is_random else self.axes), "key", "step")

    def final(self, by: Measure = "loss") -> np.ndarray:
        """Final values [*grid, K]. Members that diverged or were not finished get the worst value, inf or -inf."""
        if by not in get_args(Measure):
            raise ValueError(f"Sweep: by must be one of {', '.join(get_args(Measure))}, got {by!r}.")
        worst = -np.inf if by == "metric" and self.higher_is_better else np.inf
        values = getattr(self, by)[..., -1]
        return np.where(self.finished & (self.diverged_at < 0) & np.isfinite(values), values, worst)

    @property
    def num_points(self) -> int:
        """Number of grid points."""
        return self.finished[..., 0].size

    def by_point(self, values: np.ndarray) -> np.ndarray:
        """An array [*grid, K, ...] of this sweep as [points, K, ...], in the order of the flat indices."""
        return values.reshape(self.num_points, *values.shape[self.finished.ndim - 1 :])

    def curves(self, point: int, key: int) -> dict[str, np.ndarray]:
        """The curves and readings of one member by their names; `point` is the flat index of its grid point."""
        named = {name: getattr(self, name) for name in get_args(Measure)} | self.readings
        return {name: self.by_point(values)[point, key] for name, values in named.items()}

    def order(self, by: Measure = "loss") -> np.ndarray:
        """Flat indices of the grid points, best mean over the keys first, points with a diverged key last."""
        return ranking([self.final(by)], by == "metric" and self.higher_is_better)

    def point(self, index: int) -> dict[str, float]:
        """The hyper-parameters of the point with this flat index."""
        if self.is_random:
            return {name: column[index].item() for name, column in self.axes.items()}
        place = np.unravel_index(index, self.loss.shape[: len(self.axes)])
        return {name: axis[i].item() for (name, axis), i in zip(self.axes.items(), place, strict=True)}

    def best(self, by: Measure = "loss") -> dict[str, float]:
        """The hyper-parameters with the best mean final value over the keys. Points with a diverged key are last.

        All members of a key see the same last minibatch, so that their `loss` can be compared. If minibatches are
        small, `train_loss` and `metric` are less noisy.

        Raises:
            ValueError: if every member diverged or was not finished.
        """
        check_has_best("Sweep.best", [self], by)
        return self.point(int(self.order(by)[0]))

    def table(self, rows: int = 10, by: Measure = "loss") -> Table:
        """The best points, with the spread over the keys. A narrow screen shows fewer columns, but always `by`."""
        order = self.order(by)
        return sweep_table([("", self, int(index)) for index in order[:rows]], len(order), by)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as NumPy arrays and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def save(self, path: str | Path) -> None:
        """Writes an .npz file. A failed save leaves an older file of this name unchanged."""
        values = self.to_dict()
        arrays = {name: value for name, value in values.items() if isinstance(value, dict | np.ndarray | jax.Array)}
        plain = {name: value for name, value in values.items() if name not in arrays}
        write_archive(path, "Sweep", plain, arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Sweep":
        """Reads a file that `save` wrote.

        Raises:
            ValueError: if the file is of another kind or format, or damaged.
        """
        plain, arrays = read_archive(path, "Sweep")
        return cls(**plain, **grouped(arrays, "axes", "readings"))


def ranking(finals: list[np.ndarray], higher: bool) -> np.ndarray:
    """Flat indices of all points of several grids, best first. `finals` are [*grid, K], inf or -inf if a key diverged.

    Points with a diverged key come last, those with fewer diverged keys first.
    """
    keys = [final.reshape(-1, final.shape[-1]) for final in finals]
    share = np.concatenate([(~np.isfinite(final)).mean(axis=1) for final in keys])
    good = [np.where(np.isfinite(final), final, np.nan) for final in keys]
    means = np.concatenate([[np.nanmean(v) if np.isfinite(v).any() else np.inf for v in final] for final in good])
    means = np.where(np.isfinite(means), -means if higher else means, np.inf)
    return np.lexsort((means, share))


def check_sweeps(caller: str, sweeps: Collection[Any]) -> None:
    """Raises if there are no sweeps, or something else is among them."""
    if not sweeps:
        raise ValueError(f"{caller}: sweeps must hold at least one Sweep, got none.")
    for sweep in sweeps:
        check_kind(caller, "each of sweeps", sweep, Sweep, "which lab.sweep returns")


def check_has_best(caller: str, sweeps: list[Sweep], by: Measure) -> None:
    """Raises if no member of any sweep ended at a finite value."""
    if any(np.isfinite(sweep.final(by)).any() for sweep in sweeps):
        return
    members = sum(sweep.finished.size for sweep in sweeps)
    diverged = sum(int((sweep.diverged_at >= 0).sum()) for sweep in sweeps)
    raise ValueError(
        f"{caller}: no member has a finite {by.replace('_', ' ')} at the end ({diverged} of {members} diverged), "
        "so none is best. Sweep smaller learning rates."
    )


def sweep_table(points: list[tuple[str, Sweep, int]], total: int, by: Measure, named: bool = False) -> Table:
    """One row per point, given as (name of its sweep, sweep, flat index). `total` is the number of all points."""
    first = points[0][1]
    names = list(dict.fromkeys(name for _, sweep, _ in points for name in sweep.axes))
    measures: tuple[Measure, ...] = get_args(Measure)
    metric = "\n".join(textwrap.wrap(first.metric_name, 14))
    headings = {m: metric if m == "metric" else m.replace("_", "\n") for m in measures}
    who = f"{first.problem}, {first.method}" if first.method and not named else first.problem
    table = FittingTable(
        title=f"{who}: best {len(points)} of {total} points by final {by}",
        caption=f"Mean ± standard deviation over {first.loss.shape[-2]} keys, {first.loss.shape[-1]} steps. "
        "Diverged: how many of these keys; they are left out of the mean.",
        leave_out=[*(headings[m] for m in ("validation_loss", "train_loss", "loss", "metric") if m != by), "diverged"],
    )
    if named:
        table.add_column("sweep")
    for name in [*names, *headings.values(), "diverged"]:
        table.add_column(name, justify="right")
    for name, sweep, index in points:
        keys = {m: sweep.by_point(getattr(sweep, m))[index, :, -1] for m in measures}
        ended = [values[np.isfinite(values)] for values in keys.values()]
        spreads = [f"{values.mean():.4g} ± {values.std():.2g}" if values.size else "-" for values in ended]
        point = sweep.point(index)
        values = [f"{point[axis]:.4g}" if axis in point else "-" for axis in names]
        diverged = int((sweep.by_point(sweep.diverged_at)[index] >= 0).sum())
        table.add_row(*([name] if named else []), *values, *spreads, f"{diverged}")
    return table
