"""Reads logs of many forms into curves with one value per step.

Accepted: a `lab.History`; a dict of arrays, lists or pandas Series; a DataFrame; a list of dicts, one per logged step.
Entries may be None, and scalars may be of any dtype or package. Names are those of the readings, or common ones such as
`grad_norm` and `lr`. A column `step` gives the step of each row. If the loss is logged less often than the readings,
such as once per epoch, each loss is put at the end of its part of the run.

A gap is a step without a logged value, which is None or NaN. A NaN counts as a gap if it belongs to a regular pattern
of logging, or if more than half of the entries are missing. Any other NaN, and every inf, counts as a computed value
that is not finite.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_ALIASES = {
    "loss": "loss", "train loss": "loss", "training loss": "loss",
    "grad norm": "gradient_norm/global", "gradient norm": "gradient_norm/global", "gnorm": "gradient_norm/global",
    "grad norm global": "gradient_norm/global", "global grad norm": "gradient_norm/global",
    "gradient norm global": "gradient_norm/global", "total norm": "gradient_norm/global",
    "lr": "learning_rate", "learning rate": "learning_rate", "learning rate value": "learning_rate",
    "train lr": "learning_rate", "batch size": "batch_size", "batch sizes": "batch_size", "bs": "batch_size",
    "step": "step", "steps": "step", "global step": "step", "iteration": "step", "iter": "step",
}  # fmt: skip
_READINGS = (
    "gradient_norm", "update_ratio", "clipping_events", "gradient_alignment", "curvature_ratio", "gain_ratio",
    "gradient_tests", "gradient_noise_scale", "sharpness", "plateau", "stationarity", "trajectory",
    "temporal_gradients",
)  # fmt: skip
_NOT_CURVES = ("readings", "iterates", "problem")


@dataclass
class Log:
    """The curves of one run, [n, ...] each in float64; NaN at gaps and at other steps without a measurement."""

    loss: np.ndarray
    is_gap: np.ndarray  # [n] bool: no loss was logged at this step
    curves: dict[str, np.ndarray]
    step: np.ndarray  # [n] number of each row
    ignored: dict[str, str] = field(default_factory=dict)  # name in the log -> why it is not used
    iterates: np.ndarray | None = None
    diverged_at: int = -1
    others: dict[str, np.ndarray] = field(default_factory=dict)  # name -> [n], curves that no rule reads


def read_log(history: Any) -> Log:
    """Reads the curves from any of the forms above.

    Raises:
        TypeError: if `history` has none of these forms, or the loss is not made of numbers.
        ValueError: if there is no loss, or the length of a curve fits no regular logging.
    """
    given, ignored = _named(history), {}
    curves: dict[str, np.ndarray] = {}
    absent: dict[str, np.ndarray] = {}
    for name, value in given.items():
        known = _known_name(name)
        if known is None:
            if name not in _NOT_CURVES:
                ignored[name] = "was ignored: it is not a reading that the diagnosis knows."
        elif known in curves:
            ignored[name] = f"was ignored: {known} is in the log already."
        elif (found := _numbers(name, known, value, ignored)) is not None:
            curves[known], absent[known] = found
    loss = curves.pop("loss", None)
    if loss is None or loss.ndim != 1 or not len(loss):
        shape = "none" if loss is None else loss.shape
        raise ValueError(f"diagnose: history must hold loss, an array [steps], got {shape}.")
    length = max([len(loss), *(len(c) for c in curves.values() if c.ndim)])
    gaps = absent["loss"]
    if len(loss) < length and length % len(loss) == 0:
        loss, gaps = _spread(loss, length), _spread(gaps, length, True)
    for name, curve in curves.items():
        if curve.ndim and len(curve) != len(loss):
            raise ValueError(f"diagnose: {name} must have one value per step, {len(loss)}, got shape {curve.shape}.")
        curves[name] = np.broadcast_to(curve, (len(loss), *curve.shape[1:])).astype(float)
    step = curves.pop("step", np.arange(len(loss)))
    for name, curve in curves.items():
        may_be_unknown = name.startswith("clipping_events/")  # NaN if no limit was given
        if curve.size and not may_be_unknown and not (np.isfinite(curve) | np.isposinf(curve)).any():
            ignored[name] = "is in the log, but none of its values is finite."
    iterates = given.get("iterates")
    is_gap = gaps | (np.isnan(loss) & _is_regular(loss))
    if not (np.isfinite(step).all() and (np.diff(step) > 0).all()):
        step = np.arange(len(loss))  # rows without a usable number count from 0
    path = None if iterates is None else np.asarray(iterates, float)
    diverged_at, others = int(getattr(history, "diverged_at", -1)), _others(given, len(loss))
    return Log(loss, is_gap, curves, step, ignored, path, diverged_at, others)


def _others(given: Mapping[str, Any], steps: int) -> dict[str, np.ndarray]:
    """Curves of numbers under names that no rule reads, such as the accuracy of a user's own loop."""
    names = [name for name in given if _known_name(name) is None and name not in _NOT_CURVES]
    read = {name: _numbers(name, name, given[name], {}) for name in names}
    return {name: found[0] for name, found in read.items() if found is not None and found[0].shape == (steps,)}


def _named(history: Any) -> dict[str, Any]:
    if isinstance(history, Mapping):
        given = dict(history)
        return given | dict(given.get("readings") or {})
    if hasattr(history, "columns") and hasattr(history, "to_dict"):  # a DataFrame, without pandas as a dependency
        return {str(name): list(history[name]) for name in history.columns}
    if hasattr(history, "loss") and hasattr(history, "readings"):
        sizes = getattr(history, "batch_sizes", None)
        given = {"loss": history.loss, **history.readings, "iterates": getattr(history, "iterates", None)}
        return given | ({} if sizes is None else {"batch_size": sizes})
    if isinstance(history, (list, tuple)) and history and all(isinstance(row, Mapping) for row in history):
        rows = _rows_by_step(history)
        names = dict.fromkeys(str(name) for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    raise TypeError(
        "diagnose: history must be a lab.History or a dict of arrays such as {'loss': [steps], "
        "'gradient_norm/global': [steps]}, a DataFrame or a list of dicts with one row per step, "
        f"got {type(history).__name__}."
    )


def _rows_by_step(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Joins rows with the same step number, because loggers may write the values of a step in several calls."""
    rows: dict[Any, dict[str, Any]] = {}
    for i, row in enumerate(history):
        number = next((v for name, v in row.items() if _known_name(str(name)) == "step"), None)
        rows.setdefault(("row", i) if number is None else float(number), {}).update(row)
    return list(rows.values())


def _known_name(name: str) -> str | None:
    if name.split("/")[0].split("@")[0] in _READINGS:
        return name
    words = " ".join(word for word in re.split(r"[/._\-\s]+", name.lower()) if word)
    return _ALIASES.get(words)


def _numbers(name: str, known: str, value: Any, ignored: dict[str, str]) -> tuple[np.ndarray, np.ndarray] | None:
    """The values of a curve, and a mask of the absent ones."""
    try:
        values = value if isinstance(value, (list, tuple)) else np.asarray(value)
        if isinstance(values, np.ndarray) and values.dtype != object:
            return _floats(values), np.zeros(values.shape[:1], bool)
        return _rows(list(values)), np.array([x is None for x in values], bool)
    except (TypeError, ValueError):
        if known != "loss":
            ignored[name] = f"was ignored: it is not made of numbers ({type(value).__name__})."
            return None
        raise TypeError(f"diagnose: {name} must be an array of numbers, got {type(value).__name__}.") from None


def _rows(values: list[Any]) -> np.ndarray:
    # Each becomes a float before they are stacked, because NumPy cannot stack scalars of bfloat16 with a NaN.
    arrays = [_floats(np.asarray(np.nan if x is None else x)) for x in values]
    shape = max((x.shape for x in arrays), key=len, default=())
    return np.array([np.full(shape, np.nan) if x.shape != shape and np.isnan(x).all() else x for x in arrays])


def _floats(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "cUSOmM":  # complex numbers, texts, objects, dates
        raise TypeError
    return values.astype(float)


def _spread(values: np.ndarray, length: int, fill: Any = np.nan) -> np.ndarray:
    """Spreads one value for each of several equal parts of the run: it is put at the end of its part."""
    wide = np.full(length, fill, values.dtype)
    per = length // len(values)
    wide[per - 1 :: per] = values
    return wide


def _is_regular(loss: np.ndarray) -> bool:
    """Whether the NaNs come from the logging: the other values are equally spaced, or more than half are NaN."""
    there = np.flatnonzero(~np.isnan(loss))
    if len(there) < 3 or len(there) == len(loss):
        return False
    gaps = np.diff(there)
    is_periodic = bool((gaps == gaps[0]).all() and gaps[0] > 1) and len(loss) - 1 - there[-1] < gaps[0]
    is_scattered = 2 * len(there) < len(loss) and gaps.max() < len(loss) / 4 and len(loss) - there[-1] < len(loss) / 4
    return is_periodic or bool(is_scattered)
