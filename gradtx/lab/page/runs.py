"""The runs that a page shows, from any object that holds runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import gradtx

from ..compare import Comparison, MethodResult
from ..conclusions import comparison_in_words, sweep_in_words
from ..history import History
from ..plots.curves import EVALUATED
from ..plots.readings import NO_STEP, has_steps
from ..recorder import Recorder
from ..sweep_result import Sweep


@dataclass(frozen=True)
class ShownRun:
    """One run of the page."""

    name: str
    run: Any  # anything that `gradtx.diagnose` takes
    diagnosis: gradtx.Diagnosis
    group: str = ""  # the problem, if the page shows several
    eval_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    evaluations: dict[str, np.ndarray] = field(default_factory=dict)  # label -> [E]

    @property
    def headline(self) -> str:
        """The diagnosis in one sentence."""
        return self.diagnosis.headline if has_steps(self.run) else NO_STEP


def runs_of(given: Any, name: str = "") -> list[ShownRun]:
    """A list of one or more runs. Raises if `given` holds something that is not a run, as `gradtx.diagnose` does."""
    if isinstance(given, Comparison):
        several = len(given.problems) > 1
        return [run for result in given.results for run in _of_method(result, name, several)]
    if isinstance(given, Sweep):
        return _of_sweep(given, int(given.order()[0]), name)
    if isinstance(given, Mapping) and given and all(map(_holds_runs, given.values())):
        return [run for key, value in given.items() for run in runs_of(value, _joined(name, str(key)))]
    if isinstance(given, list | tuple) and given and all(map(_holds_runs, given)) and not _are_rows(given):
        return [run for i, value in enumerate(given) for run in runs_of(value, _joined(name, f"run {i + 1}"))]
    return [_one(given, name)]


def summary_of(given: Any) -> str:
    """The conclusion over all runs, if there is one."""
    if isinstance(given, Comparison):
        return comparison_in_words(given)
    return sweep_in_words(given) if isinstance(given, Sweep) else ""


def _holds_runs(value: Any) -> bool:
    """Whether a value is one run or several runs, and not a single curve."""
    if isinstance(value, Recorder | History | Sweep | Comparison):
        return True
    if isinstance(value, Mapping):
        return any(map(_is_array, value.values())) or (bool(value) and all(map(_holds_runs, value.values())))
    is_frame = hasattr(value, "columns") and hasattr(value, "to_dict")
    return is_frame or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping))


def _is_array(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def _are_rows(given: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list of dicts is the log of one run, a row for each step."""
    return all(isinstance(row, Mapping) and not _is_array(row.get("loss")) for row in given)


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _one(run: Any, name: str) -> ShownRun:
    problem = run.get("problem", "") if isinstance(run, Mapping) else getattr(run, "problem", "")
    shown = ShownRun(name or str(problem) or "run", run, _diagnosed(run, name))
    if isinstance(run, History):
        return replace(shown, eval_steps=run.eval_steps, evaluations=_evaluations(run.to_dict(), run.metric_name))
    return shown


def _diagnosed(run: Any, name: str) -> gradtx.Diagnosis:
    if not has_steps(run):
        return gradtx.Diagnosis((), {}, {}, 0)
    try:
        return gradtx.diagnose(run)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        said = str(error).removeprefix("diagnose: ")
        raise kind(f"report: run {name!r}: {said}" if name else f"report: {said}") from error


def _evaluations(curves: Mapping[str, Any], metric_name: str) -> dict[str, np.ndarray]:
    """The curves of the evaluations. A landscape has only its value, which is all three."""
    loss, validation, metric = (np.asarray(curves[name]) for name in EVALUATED)
    if np.array_equal(loss, metric, equal_nan=True) and np.array_equal(validation, metric, equal_nan=True):
        named = {metric_name: metric}
    else:
        named = {"training loss": loss, "validation loss": validation, f"validation {metric_name}": metric}
    return {label.strip(): curve for label, curve in named.items() if curve.size}


def _of_sweep(sweep: Sweep, point: int, name: str, keys: slice = slice(None), group: str = "") -> list[ShownRun]:
    """One run for each key at a point of the grid, without those that an interrupt left out."""
    where = ", ".join(f"{axis.replace('_', ' ')} {value:.3g}" for axis, value in sweep.point(point).items())
    finished = np.flatnonzero(sweep.by_point(sweep.finished)[point])[keys]
    if not len(finished):
        raise ValueError("report: the best point of the sweep was not finished, so there is nothing to show.")
    several = sweep.finished.shape[-1] > 1 and keys == slice(None)
    shown = []
    for key in finished:
        curves = sweep.curves(point, int(key))
        run = {name: curve for name, curve in curves.items() if name not in EVALUATED}
        full = _joined(name or sweep.method or sweep.problem, where, f"key {key}" if several else "")
        evaluations = _evaluations(curves, sweep.metric_name)
        shown.append(ShownRun(full, run, _diagnosed(run, full), group, sweep.eval_steps, evaluations))
    return shown


def _of_method(result: MethodResult, name: str, several: bool) -> list[ShownRun]:
    """The first seed at the best learning rate: all methods start there and see the same minibatches."""
    full = _joined(name, f"{result.problem}: {result.method}" if several else result.method)
    return _of_sweep(result.sweep, result.best, full, slice(1), result.problem if several else "")
