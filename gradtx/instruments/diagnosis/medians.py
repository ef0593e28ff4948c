"""Medians of a curve that has gaps: over *stretches*, up to 40 equal parts of the run, or over its last part.

Neither one odd step nor minibatch noise moves them.
"""

import numpy as np

STRETCHES = 40


def medians(curve: np.ndarray, keep_inf: bool = False) -> np.ndarray:
    """Medians over up to `STRETCHES` equal parts; NaN where a part has no finite value (no number, with `keep_inf`)."""
    return np.array([median_of(part, keep_inf) for part in np.array_split(curve, min(STRETCHES, len(curve)))])


def median_of(values: np.ndarray, keep_inf: bool = False) -> float:
    """Median of the finite values (of all numbers, with `keep_inf`); NaN where there is none."""
    known = np.sort(values[~np.isnan(values)] if keep_inf else values[np.isfinite(values)])
    if not len(known):
        return float("nan")
    low, high = known[(len(known) - 1) // 2], known[len(known) // 2]
    return float(low if np.isinf(high) else (low + high) / 2)  # inf is more than any number, not a number itself


def late(values: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The finite values of the last `share`."""
    part = values[len(values) - max(1, round(share * len(values))) :]
    return part[np.isfinite(part)]


def late_median(values: np.ndarray | None, share: float = 0.5) -> float:
    """Median of the last `share`; NaN where nothing is known."""
    return float("nan") if values is None else median_of(late(values, share))
