"""What a sweep found, with the names of its axes."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from rich.table import Table

from .archive import read_archive, write_archive

Measure = Literal["loss", "train_loss", "validation_loss", "metric"]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every member of a sweep: grid points (one axis a hyper-parameter; a random grid has one axis) x K keys.

    n steps, E evaluations. A member that diverged is frozen at its last finite parameters: NaN in `loss` and `readings`
    from the step after `diverged_at` on, the evaluation of those parameters repeated.
    """

    axes: dict[str, np.ndarray]  # hyper-parameter -> its values; of a random grid one value a point
    is_random: bool  # one axis of points instead of one a hyper-parameter
    loss: np.ndarray  # [*grid, K, n] mean loss of each step's minibatch, before the step
    readings: dict[str, np.ndarray]  # name -> [*grid, K, n], or [*grid, K, n, leaves]
    eval_steps: np.ndarray  # [E] int
    train_loss: np.ndarray  # [*grid, K, E] on (at most 2,048) training examples
    validation_loss: np.ndarray  # [*grid, K, E]
    metric: np.ndarray  # [*grid, K, E] on the validation set; of a landscape its value
    diverged_at: np.ndarray  # [*grid, K] int: the step that led to parameters that are not finite, -1: none
    finished: np.ndarray  # [*grid, K] bool: false where an interrupt came before
    problem: str
    metric_name: str
    higher_is_better: bool  # of the metric

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the axes of `loss`."""
        return (*(("point",) if self.is_random else self.axes), "key", "step")

    def final(self, by: Measure = "loss") -> np.ndarray:
        """[*grid, K], where each member ended; one that diverged or was not finished has the worst value there is."""
        if by not in get_args(Measure):
            raise ValueError(f"Sweep: by must be one of {', '.join(get_args(Measure))}, got {by!r}.")
        worst = -np.inf if by == "metric" and self.higher_is_better else np.inf
        values = getattr(self, by)[..., -1]
        return np.where(self.finished & (self.diverged_at < 0) & np.isfinite(values), values, worst)

    def order(self, by: Measure = "loss") -> np.ndarray:
        """Flat indices of the grid points, best first: by the mean over the keys."""
        means = self.final(by).mean(axis=-1).ravel()
        return np.argsort(-means if by == "metric" and self.higher_is_better else means, kind="stable")

    def point(self, index: int) -> dict[str, float]:
        """The hyper-parameters of a flat index."""
        if self.is_random:
            return {name: column[index].item() for name, column in self.axes.items()}
        place = np.unravel_index(index, self.loss.shape[: len(self.axes)])
        return {name: axis[i].item() for (name, axis), i in zip(self.axes.items(), place, strict=True)}

    def best(self, by: Measure = "loss") -> dict[str, float]:
        """The hyper-parameters with the best final value, mean over the keys; what diverged comes last.

        All members of a key see the same last minibatch, so that `loss` compares like with like; `train_loss` and
        `metric` are less noisy where minibatches are small.
        """
        return self.point(int(self.order(by)[0]))

    def table(self, rows: int = 10, by: Measure = "loss") -> Table:
        """The best points, with the spread over the keys."""
        keys, steps = self.loss.shape[-2:]
        order = self.order(by)
        table = Table(
            title=f"{self.problem}: best {min(rows, len(order))} of {len(order)} points by final {by}",
            caption=f"Mean ± standard deviation over {keys} keys, {steps} steps. Diverged: members of {keys}.",
            caption_justify="left",
        )
        for name in self.axes:
            table.add_column(name, justify="right")
        measures: tuple[Measure, ...] = get_args(Measure)
        finals = {measure: getattr(self, measure)[..., -1].reshape(-1, keys) for measure in measures}
        for measure in measures:
            table.add_column(self.metric_name if measure == "metric" else measure.replace("_", "\n"), justify="right")
        table.add_column("diverged", justify="right")
        diverged = (self.diverged_at >= 0).reshape(-1, keys).sum(axis=1)
        for index in order[:rows]:
            with np.errstate(invalid="ignore"):  # what diverged may have ended at infinity
                spreads = [f"{finals[m][index].mean():.4g} ± {finals[m][index].std():.2g}" for m in measures]
            table.add_row(*(f"{v:.4g}" for v in self.point(int(index)).values()), *spreads, f"{diverged[index]}")
        return table

    def to_dict(self) -> dict[str, Any]:
        """Every field, as NumPy arrays and plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def save(self, path: str | Path) -> None:
        """Writes an .npz. A save that fails leaves an older file of this name as it was."""
        nested = {f"{group}/{name}": a for group in ("axes", "readings") for name, a in getattr(self, group).items()}
        flat = {name: value for name, value in self.to_dict().items() if name not in ("axes", "readings")}
        arrays = {name: value for name, value in flat.items() if isinstance(value, np.ndarray | jax.Array)}
        plain = {name: value for name, value in flat.items() if name not in arrays}
        write_archive(path, "Sweep", plain, arrays | nested)

    @classmethod
    def load(cls, path: str | Path) -> "Sweep":
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is of another kind or format, or damaged.
        """
        plain, arrays = read_archive(path, "Sweep")
        known: dict[str, Any] = plain | {"axes": {}, "readings": {}}
        for name, array in arrays.items():
            group, _, rest = name.partition("/")
            if rest:
                known[group][rest] = array
            else:
                known[name] = array
        return cls(**known)
