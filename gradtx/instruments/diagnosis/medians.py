"""Medians and means of curves that have gaps: over *stretches*, up to 40 equal parts of the run, or over its last part.

Neither one odd step nor minibatch noise moves a median.
"""

import itertools

import numpy as np

STRETCHES = 40


def stretches_of(steps: int, count: int = STRETCHES) -> list[slice]:
    """Up to `count` equal parts of so many steps."""
    edges = np.linspace(0, steps, min(count, max(1, steps)) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def medians(curve: np.ndarray, keep_inf: bool = False, count: int = STRETCHES) -> np.ndarray:
    """Medians over the stretches; NaN if a part has no finite value (no number, with `keep_inf`)."""
    return np.array([median_of(curve[part], keep_inf) for part in stretches_of(len(curve), count)])


def median_of(values: np.ndarray, keep_inf: bool = False) -> float:
    """Median of the finite values (of all numbers, with `keep_inf`); NaN if there is none."""
    known = np.sort(values[~np.isnan(values)] if keep_inf else values[np.isfinite(values)])
    if not len(known):
        return float("nan")
    low, high = known[(len(known) - 1) // 2], known[len(known) // 2]
    return float(low if np.isinf(high) else (low + high) / 2)  # inf is more than any number, not a number itself


def mean_of(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def late(values: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The last `share` of the steps."""
    return values[len(values) - max(1, round(share * len(values))) :]


def early(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The first `share` of the steps."""
    return values[: max(1, round(share * len(values)))]


def late_median(values: np.ndarray | None, share: float = 0.5) -> float:
    """Median of the last `share`; NaN if nothing is known."""
    return float("nan") if values is None else median_of(late(values, share))


def early_median(values: np.ndarray | None, share: float = 0.1) -> float:
    """Median of the first `share`; NaN if nothing is known."""
    return float("nan") if values is None else median_of(early(values, share))
