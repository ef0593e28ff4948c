"""What a run leaves behind: curves, readings, the last parameters."""

import json
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class History:
    """One training run; n steps were done, E evaluations made. A pytree: its arrays are the leaves.

    Where parameters stopped being finite (`diverged_at`), the run kept the last finite ones, and loss and readings are
    NaN from the step after on.
    """

    loss: np.ndarray  # [n] mean loss of each step's minibatch, before the step
    readings: dict[str, np.ndarray]  # name -> [n] or [n, leaves], what the instruments measured at each step
    params: Any  # after the last step, as trained (Nesterov: the look-ahead point)
    opt_state: Any  # after the last step
    iterates: np.ndarray | None  # [n + 1, dim] for a landscape, the start first; None for a problem
    batch_sizes: np.ndarray  # [n] int
    eval_steps: np.ndarray  # [E] int: steps done at each evaluation, 0 first
    train_loss: np.ndarray  # [E] mean loss on (at most 2,048) training examples
    validation_loss: np.ndarray  # [E]
    metric: np.ndarray  # [E] the problem's metric on the validation set; of a landscape its value
    diverged_at: int = field(default=-1, metadata={"static": True})  # step that led to non-finite parameters, -1: none
    ended: str = field(default="finished", metadata={"static": True})  # or "stopped early", "stopped", "interrupted"
    problem: str = field(default="", metadata={"static": True})
    metric_name: str = field(default="", metadata={"static": True})
    higher_is_better: bool = field(default=False, metadata={"static": True})  # of the metric

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.loss)

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
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("params", "opt_state")}

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row a step: loss, batch size, readings; evaluations where they were made.

        A reading of several numbers a step has a column for each: `name[0]`, `name[1]`, ...

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            pd: Any = import_module("pandas")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("History.to_dataframe needs pandas: pip install pandas.") from error
        frame = pd.DataFrame({"loss": self.loss, "batch_size": self.batch_sizes, **scalar_columns(self.readings)})
        frame.index.name = "step"
        evaluations = pd.DataFrame(
            {"train_loss": self.train_loss, "validation_loss": self.validation_loss, "metric": self.metric},
            index=pd.Index(self.eval_steps, name="step"),
        )
        return frame.join(evaluations, how="outer")

    def save(self, path: str | Path) -> None:
        """Writes an .npz: all of `to_dict` and the parameters (not the optimizer state: checkpoints are for that)."""
        arrays: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for name, value in self.to_dict().items():
            if name == "readings":
                arrays |= {f"readings/{key}": reading for key, reading in value.items()}
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            elif value is not None:
                plain[name] = value
        plain["params"] = []
        for i, (key_path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(self.params)):
            arrays[f"params/{i}"] = np.asarray(leaf)
            # The dtype by name: a file knows bfloat16 only as two bytes.
            plain["params"].append([[_entry(key) for key in key_path], np.asarray(leaf).dtype.name])
        with Path(path).open("wb") as file:  # a name of the user's own, without .npz put behind it
            np.savez_compressed(file, plain=np.array(json.dumps(plain)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Reads what `save` wrote. Parameters come back as nested dicts and lists (attributes as dict keys)."""
        with np.load(path, allow_pickle=False) as file:
            plain = json.loads(str(file["plain"]))
            arrays = {name: file[name] for name in file.files if name != "plain"}
        leaves = [
            (entries, arrays.pop(f"params/{i}").view(jnp.dtype(dtype)))
            for i, (entries, dtype) in enumerate(plain.pop("params"))
        ]
        names = [name for name in arrays if name.startswith("readings/")]
        taken = {name.removeprefix("readings/"): arrays.pop(name) for name in names}
        absent = {"iterates": None, "opt_state": None}
        return cls(**(absent | arrays | plain), readings=taken, params=_nested(leaves))


def scalar_columns(readings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[n] each; a reading of several numbers a step becomes `name[0]`, `name[1]`, ..."""
    columns = {}
    for name, reading in readings.items():
        flat = reading.reshape(len(reading), -1)
        names = [name] if reading.ndim == 1 else [f"{name}[{i}]" for i in range(flat.shape[1])]
        columns |= dict(zip(names, flat.T, strict=True))
    return columns


def _entry(key: Any) -> str | int:
    """A step of a tree path as JSON keeps it: a name, or an index."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            entry = getattr(key, attribute)
            return entry if isinstance(entry, int) else str(entry)
    return str(key)


def _nested(leaves: list[tuple[list[Any], np.ndarray]]) -> Any:
    """Nested containers from paths and leaves: indices make lists, names make dicts, no path is the leaf itself."""
    if len(leaves) == 1 and not leaves[0][0]:
        return leaves[0][1]
    heads = list(dict.fromkeys(entries[0] for entries, _ in leaves))
    children = {head: _nested([(e[1:], leaf) for e, leaf in leaves if e[0] == head]) for head in heads}
    return list(children.values()) if all(isinstance(head, int) for head in heads) else children
