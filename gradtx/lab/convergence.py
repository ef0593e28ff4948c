"""Measures how fast an error falls, as a power of the number of steps."""

import numpy as np


def convergence_order(steps: np.ndarray, excess: np.ndarray, *, last: float = 10.0) -> float:
    """The a of an excess error that falls as k^-a, over the last tenfold of the steps; negative if the error grows.

    It comes from the slope of the least-squares line through log excess over log k. Equal bins of log k have equal
    weight, so that the many late steps do not outweigh the few early ones. Excesses of 0 or less (rounding) are left
    out. A theoretical order is asymptotic; this one is measured on the given steps.

    Args:
        steps: [n] numbers of steps, such as `History.eval_steps`; 0 is left out.
        excess: [n] J - min J after these steps, or [runs, n]. The mean over runs is used, because the theorems are
            about expected values.
        last: the steps from the last step / `last` on are used.

    Raises:
        ValueError: if shapes do not fit, `last` is out of range, or fewer than two of these excesses are above 0.

    >>> import numpy as np
    >>> from gradtx import lab
    >>> k = np.arange(1000)
    >>> print(f"{lab.convergence_order(k, 3 / (k + 1.0)):.2f} {lab.convergence_order(k, 3 / (k + 1.0) ** 2):.2f}")
    1.00 1.99
    """
    steps, excess = np.asarray(steps, float), np.asarray(excess, float)
    mean = excess.mean(axis=tuple(range(excess.ndim - 1)))  # over the runs, if there are several
    if steps.ndim != 1 or steps.shape != mean.shape or not steps.size:
        shapes = f"{steps.shape} and {excess.shape}"
        raise ValueError(f"convergence_order: steps [n] and excess [n] or [runs, n] must go together, got {shapes}.")
    if not 1 < last < np.inf:
        raise ValueError(f"convergence_order: last must be in (1, inf), got {last}.")
    is_used = (steps > 0) & (steps >= steps[-1] / last) & np.isfinite(mean) & (mean > 0)
    x, y = np.log(steps[is_used]), np.log(mean[is_used])
    bin_number = np.floor(12 * (x - x[:1]) / np.log(last) + 1e-9)  # a dozen bins of equal width in log k
    bins = [bin_number == number for number in np.unique(bin_number)]
    if len(bins) < 2:
        raise ValueError(f"convergence_order: needs two steps or more with an excess above 0, got {len(bins)}.")
    return float(-np.polyfit([x[is_in].mean() for is_in in bins], [y[is_in].mean() for is_in in bins], 1)[0])
