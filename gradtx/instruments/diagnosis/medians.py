"""Medians and means of curves that have gaps, over *segments* (up to 40 equal parts of the run) or over its last part.

A median is not moved by a single outlier, and little by minibatch noise.
"""

import itertools

import numpy as np

SEGMENTS = 40


def segments_of(steps: int, count: int = SEGMENTS) -> list[slice]:
    """The segments: up to `count` equal parts of `steps` steps."""
    edges = np.linspace(0, steps, min(count, max(1, steps)) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def medians(curve: np.ndarray, keep_inf: bool = False, count: int = SEGMENTS) -> np.ndarray:
    """Medians over the segments; NaN if a segment has no finite value (or, with `keep_inf`, no number)."""
    parts = segments_of(len(curve), count)
    rows = np.full((len(parts), max(part.stop - part.start for part in parts) + 1), np.nan)
    for row, part in zip(rows, parts, strict=True):
        row[: part.stop - part.start] = curve[part]
    return _row_medians(rows, keep_inf)


def finite(values: np.ndarray) -> np.ndarray:
    """The values that are finite."""
    return values[np.isfinite(values)]


def median_of(values: np.ndarray, keep_inf: bool = False) -> float:
    """Median of the finite values (or, with `keep_inf`, of all numbers); NaN if there is none."""
    return float(_row_medians(np.append(values, np.nan)[None], keep_inf)[0])


def _row_medians(rows: np.ndarray, keep_inf: bool) -> np.ndarray:
    """The median of each row. Each has a NaN at its end, so that none is empty."""
    known = np.sort(rows if keep_inf else np.where(np.isfinite(rows), rows, np.nan))  # NaN comes last
    count = np.count_nonzero(~np.isnan(known), axis=1)
    middle = np.maximum(count - 1, 0) // 2, count // 2
    low, high = (known[np.arange(len(rows)), at] for at in middle)
    return np.where(np.isinf(high), low, (low + high) / 2)  # the mean of a number and inf is not useful


def mean_of(values: np.ndarray) -> float:
    """Mean of the finite values; NaN if there is none."""
    known = finite(values)
    return float(known.mean()) if len(known) else float("nan")


def scatter_of(values: np.ndarray) -> float:
    """Standard deviation about a slow trend, from the median difference of neighbours."""
    return 1.4826 * float(np.median(np.abs(np.diff(values)))) / 2**0.5


def late(values: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The values of the last `share` of the steps."""
    return values[len(values) - max(1, round(share * len(values))) :]


def early(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The values of the first `share` of the steps."""
    return values[: max(1, round(share * len(values)))]


def late_median(values: np.ndarray | None, share: float = 0.5) -> float:
    """Median of the last `share`; NaN if nothing is known."""
    return float("nan") if values is None else median_of(late(values, share))


def early_median(values: np.ndarray | None, share: float = 0.1) -> float:
    """Median of the first `share`; NaN if nothing is known."""
    return float("nan") if values is None else median_of(early(values, share))


def shrinkage(sizes: np.ndarray) -> float:
    """The factor by which the late ones of these sizes are smaller than the first ones."""
    return early_median(sizes, 0.04) / max(late_median(sizes), 1e-300)
