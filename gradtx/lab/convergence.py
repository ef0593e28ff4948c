"""How fast an error falls: the power of the number of steps, measured."""

import numpy as np


def convergence_order(steps: np.ndarray, excess: np.ndarray, *, last: float = 10.0) -> float:
    """The a of an excess error that falls as k^-a, over the last tenfold of the steps; negative where it grows.

    The slope of the least-squares line through log excess over log k, each stretch of log k counting alike, so that the
    many steps at the end do not outvote the few before them. Excesses that are not above 0 (rounding) are left out.
    An order is asymptotic; this is the one that these steps show.

    Args:
        steps: [n] numbers of steps, such as `History.eval_steps`; 0 is left out.
        excess: [n] J - min J after so many steps, or [runs, n]: their mean, as the theorems speak of expected values.
        last: the slope is that from the last step / `last` on.

    Raises:
        ValueError: shapes that do not fit, `last` out of range, fewer than two excesses above 0 there.

    >>> import numpy as np
    >>> from gradtx import lab
    >>> k = np.arange(1000)
    >>> print(f"{lab.convergence_order(k, 3 / (k + 1.0)):.2f} {lab.convergence_order(k, 3 / (k + 1.0) ** 2):.2f}")
    1.00 1.99
    """
    steps, mean = np.asarray(steps, float), _mean(excess)
    if steps.ndim != 1 or steps.shape != mean.shape or not steps.size:
        shapes = f"{steps.shape} and {np.shape(excess)}"
        raise ValueError(f"convergence_order: steps [n] and excess [n] or [runs, n] must go together, got {shapes}.")
    if not 1 < last < np.inf:
        raise ValueError(f"convergence_order: last must be in (1, inf), got {last}.")
    x, y = _binned(steps, mean, last)
    if len(x) < 2:
        raise ValueError(f"convergence_order: needs two steps or more with an excess above 0, got {len(x)}.")
    return float(-np.polyfit(x, y, 1)[0])


def _mean(excess: np.ndarray) -> np.ndarray:
    excess = np.asarray(excess, float)
    return excess if excess.ndim < 2 else excess.reshape(-1, excess.shape[-1]).mean(axis=0)


def _binned(steps: np.ndarray, excess: np.ndarray, last: float) -> tuple[np.ndarray, np.ndarray]:
    """log k and log excess, the means of a dozen stretches of equal ratio."""
    is_used = (steps > 0) & (steps >= steps[-1] / last) & np.isfinite(excess) & (excess > 0)
    x, y = np.log(steps[is_used]), np.log(excess[is_used])
    if not len(x):
        return x, y
    stretch = np.floor(12 * (x - x[0]) / np.log(last) + 1e-9)
    places = [stretch == name for name in np.unique(stretch)]
    return np.array([x[place].mean() for place in places]), np.array([y[place].mean() for place in places])
