"""The result of a run: curves, readings, the last parameters."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .archive import grouped, read_archive, tree_from_plain, tree_to_plain, write_archive
from .extra import imported


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class History:
    """One training run of n steps and E evaluations. It is a pytree: its arrays are the leaves.

    If the parameters stopped being finite (`diverged_at`), the run kept the last finite ones, and loss and readings are
    NaN from the next step on.
    """

    loss: np.ndarray  # [n] mean loss of each step's minibatch, before the step
    readings: dict[str, np.ndarray]  # name -> [n] or [n, leaves], measured by the instruments at each step
    params: Any  # after the last step, as trained (Nesterov: the look-ahead point)
    opt_state: Any  # after the last step
    iterates: np.ndarray | None  # [n + 1, dim] for a landscape, the start first; None for a problem
    batch_sizes: np.ndarray  # [n] int
    eval_steps: np.ndarray  # [E] int: steps done before each evaluation; starts with 0
    train_loss: np.ndarray  # [E] mean loss on (at most 2,048) training examples
    validation_loss: np.ndarray  # [E]
    metric: np.ndarray  # [E] the problem's metric on the validation set; for a landscape its value
    diverged_at: int = field(default=-1, metadata={"static": True})  # step that made parameters non-finite; -1: none
    ended: str = field(default="finished", metadata={"static": True})  # or "stopped early", "stopped", "interrupted"
    problem: str = field(default="", metadata={"static": True})
    metric_name: str = field(default="", metadata={"static": True})
    higher_is_better: bool = field(default=False, metadata={"static": True})  # of the metric
    best_params: Any = None  # those of the best metric (Nesterov: behind the look-ahead point)

    @property
    def steps(self) -> int:
        """The number of steps done."""
        return len(self.loss)

    @property
    def best_step(self) -> int:
        """Steps done at the evaluation with the best metric, the first of equals; -1 if every metric is NaN."""
        best = best_evaluation(self.metric, self.higher_is_better)
        return int(self.eval_steps[best]) if best >= 0 else -1

    def __repr__(self) -> str:
        """A summary; the fields hold the numbers."""
        ended = self.ended if self.diverged_at < 0 else f"{self.ended}, diverged at step {self.diverged_at}"
        lines = [f"History of {self.problem or 'a run'}: {self.steps} steps, {ended}"]
        if self.steps:
            lines.append(f"  loss             {self.loss[0]:.4g} -> {self.loss[-1]:.4g} (minibatches)")
        if len(self.eval_steps):
            lines.append(f"  evaluations      {len(self.eval_steps)}, the last at step {self.eval_steps[-1]}")
            for name in ("train_loss", "validation_loss", "metric"):
                curve, label = getattr(self, name), self.metric_name or "value" if name == "metric" else name
                lines.append(f"  {label:<16} {curve[0]:.4g} -> {curve[-1]:.4g}")
        if self.readings:
            names = sorted(self.readings)
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            lines.append(f"  readings         {', '.join(names[:4])}{more}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but parameters and optimizer state, as NumPy arrays and plain values."""
        parameters = ("params", "opt_state", "best_params")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in parameters}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with one row per step: loss, batch size, readings, and evaluations at their steps.

        A reading of several numbers per step has a column for each: `name[0]`, `name[1]`, ...

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        pd = imported("pandas", "History.to_dataframe needs pandas: pip install pandas.")
        frame = pd.DataFrame({"loss": self.loss, "batch_size": self.batch_sizes, **scalar_columns(self.readings)})
        frame.index.name = "step"
        evaluations = pd.DataFrame(
            {"train_loss": self.train_loss, "validation_loss": self.validation_loss, "metric": self.metric},
            index=pd.Index(self.eval_steps, name="step"),
        )
        return frame.join(evaluations, how="outer")

    def save(self, path: str | Path) -> None:
        """Writes an .npz: all of `to_dict` and the parameters. Checkpoints hold the optimizer state.

        A save that fails leaves an older file of this name as it was.
        """
        known = {name: value for name, value in self.to_dict().items() if value is not None}
        arrays = {name: value for name, value in known.items() if isinstance(value, dict | np.ndarray | jax.Array)}
        trees = {}
        for name in ("params", "best_params"):
            leaves: list[Any] = []
            trees[name] = tree_to_plain(getattr(self, name), leaves)
            arrays[name] = dict(enumerate(leaves))
        plain = {"trees": trees} | {name: value for name, value in known.items() if name not in arrays}
        write_archive(path, "History", plain, arrays)

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Reads what `save` wrote. Parameters come back in dicts, lists and tuples; objects as dicts of attributes.

        Raises:
            ValueError: the file is of another kind or format, or damaged.
        """
        plain, arrays = read_archive(path, "History")
        known: dict[str, Any] = {"iterates": None, "opt_state": None}
        known |= grouped(arrays, "readings", "params", "best_params")
        for name, described in plain.pop("trees").items():
            known[name] = tree_from_plain(described, list(known[name].values()))
        return cls(**known, **plain)


def best_evaluation(metric: Any, higher_is_better: bool) -> int:
    """The index of the best metric, the first of equals; -1 if all are NaN.

    >>> best_evaluation([0.5, float("nan"), 0.8, 0.8], higher_is_better=True)
    2
    """
    values = np.asarray(metric, float) * (-1 if higher_is_better else 1)
    return -1 if np.isnan(values).all() else int(np.nanargmin(values))


def scalar_columns(readings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One column [n] per reading. A reading of several numbers per step becomes `name[0]`, `name[1]`, ..."""
    columns = {}
    for name, reading in readings.items():
        reading = np.asarray(reading)
        flat = reading.reshape(len(reading), -1)
        names = [name] if reading.ndim == 1 else [f"{name}[{i}]" for i in range(flat.shape[1])]
        columns |= dict(zip(names, flat.T, strict=True))
    return columns
