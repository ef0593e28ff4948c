"""Rules on places with a small gradient: saddles and flat regions.

The rules use ‖G‖, the gradient norm without the noise of the minibatch. The norm of a minibatch's gradient never falls
below its noise, so it cannot show a critical point (Goodfellow et al. 2016, §8.2.2 speak of the true gradient). If the
gradient is small at some time and large later, the run has passed a place that is nearly critical. The curvature along
the gradient, relative to the largest met, tells its kind: clearly negative is a saddle, near 0 is a flat region.
"""

import numpy as np

from .evidence import Evidence
from .medians import SEGMENTS, finite, median_of, medians, segments_of
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken

_SMALL, _NEGATIVE, _FLAT = 0.25, -0.005, 0.02  # relative to the largest norm, and to the largest curvature
_CRITICAL = 0.5  # the `_order` of saddles, up to degenerate ones of m = 3


def shelf(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if ‖G‖ is small over a part of the run and large after it, while the loss falls further.

    Source: Dauphin et al. 2014; Goodfellow et al. 2016, §8.2.3. Wrong if `critical_point` there finds no small
    gradient.
    """
    signal = e.signal_norms
    if e.norm is None or signal is None:
        for challenge in ("saddle", "plateau"):
            verdict.needs(challenge, "gradtx.gradient_norm()")
        return []
    if len(signal) < 5 or not np.isfinite(signal).any() or not np.nanmax(signal) > 0:
        return []
    _rule_out(e, signal, verdict)
    if e.curvature is None:
        for challenge in ("saddle", "plateau"):
            verdict.needs(challenge, "gradtx.observed(tx) or gradtx.curvature_ratio(learning_rate)")
        return []
    if found := _passed(e, signal, e.curvature, verdict):
        return [found]
    return _flat_from_the_start(e, s, medians(e.norm), medians(e.curvature))


def _rule_out(e: Evidence, signal: np.ndarray, verdict: Verdict) -> None:
    lowest = float(np.nanmin(signal) / np.nanmax(signal))
    if lowest > 0.1 and (e.noise_squared is not None or e.gradients_agree):
        reason = f"the gradient without its noise never fell below {lowest:.0%} of its largest, so no critical point"
        verdict.rules_out("minima, saddles and plateaus", reason + " was near (chapter §2.2).")
    elif lowest > 0.1:
        verdict.needs(
            "minima, saddles and plateaus",
            "gradtx.gradient_tests(), because the norm of a minibatch's gradient never falls below its noise",
        )


def _passed(e: Evidence, signal: np.ndarray, curvature: np.ndarray, verdict: Verdict) -> Finding | None:
    """Finds a dip of ‖G‖, or a small ‖G‖ from the start, after which the loss falls further."""
    count = len(signal)
    curvature, level = medians(curvature, count=count), medians(e.loss, count=count)
    edges, steepest = segments_of(e.steps, count), float(np.nanmax(np.abs(curvature)))
    if not steepest > 0:
        return None
    dips = _dips(signal)
    for k in dips if e.resolution > SEGMENTS else dips[:3]:
        top = k + 1 + int(np.nanargmax(signal[k + 1 :]))
        if not _is_clear(e, edges[k], edges[top]):
            continue
        # The lowest of many medians is low by chance, by about two of their errors.
        lower = float(np.nanmin(level[k:])) + 2 * 1.25 * e.scatter / max(1, e.steps // count) ** 0.5
        if not lower < level[k] - 1.5 * e.scatter:
            continue
        came = k > 0 and signal[k] < _SMALL * np.nanmax(signal[: k + 1])
        part = [i for i in np.flatnonzero(signal < _SMALL * signal[top]) if i <= top]
        if not came and len(part) < 0.05 * count:
            continue
        lowest = float(np.nanmin(curvature[max(0, k - 1) : top + 1])) / steepest
        order = _order(signal, curvature, k, top)
        first, last = edges[min(part)].start, edges[max(part)].stop - 1
        numbers = {"norm": signal[k], "after": signal[top], "relative_curvature": lowest, "level": level[k]}
        where = (
            f"Around step {e.name(edges[k].start)} the gradient norm is only {number(signal[k])}, and later it is "
            f"{number(signal[top])}"
        )
        is_deep = came and signal[k] < 0.05 * min(np.nanmax(signal[: k + 1]), signal[top])
        if lowest < (_NEGATIVE if is_deep else -_FLAT) and order <= _CRITICAL:
            text = f"{where}. Curvature along it is negative ({lowest:.1%} of the largest), so the run passed a saddle."
            return finding("saddle", text, numbers, (first, last), "high")
        if e.signal_share(edges[k]) < 0.5:  # the curvature along mostly noise is not that along ‖G‖
            where_to_look = "gradtx.critical_point at such a place, because the small gradient there is mostly noise"
            verdict.needs("saddle", where_to_look)
        near_zero = float(np.nanmedian(np.abs(curvature[part]))) / steepest
        if (near_zero < _FLAT or _CRITICAL < order < np.inf) and level[k] - lower > 0.2 * e.drop:
            text = f"{where}. In between there is hardly any curvature ({near_zero:.2%} of the largest)."
            return finding("plateau", text, numbers, (first, last), "high")
    return None


def _is_clear(e: Evidence, low: slice, high: slice) -> bool:
    """Whether ‖G‖ is surely smaller in one part than in the other, and not by the chance of its estimate.

    Either ‖G‖² differs by three standard errors, and two more for the choice of the largest of many; or all of the
    gradient, noise included, is at most half as long.
    """
    if e.noise_squared is None or e.norm is None or median_of(e.norm[low]) < 0.5 * median_of(e.norm[high]):
        return True
    known = [finite(e.norm[part] ** 2 - e.noise_squared[part]) for part in (low, high)]
    if min(map(len, known)) < 2:
        return True
    error = float(np.sqrt(sum(np.var(x, ddof=1) / len(x) for x in known)))
    return float(known[1].mean() - known[0].mean()) > 5 * error


def _order(signal: np.ndarray, curvature: np.ndarray, k: int, top: int) -> float:
    """The power of the gradient as which the negative curvature grows on the way out, from segment k to `top`.

    By Taylor's theorem it is (m - 2) / (m - 1) where the loss leaves a critical point as the m-th power of the
    distance: 0 at an ordinary saddle, 1/2 at a degenerate one. On a flat region both die away together: about 1.
    """
    near = k + 1
    while near < top and not signal[near] > 4 * signal[k]:
        near += 1
    from_here = -np.nan_to_num(curvature[k : top + 1])
    at = int(np.argmax(from_here[: near + 1 - k]))
    first, largest = float(from_here[at]), float(from_here.max())
    if not (first > 0 and 0 < signal[k + at] < signal[top]):
        return 0.0 if largest > 0 and not signal[k] > 0 else float("inf")
    return float(np.log(first / largest) / np.log(signal[k + at] / signal[top]))


def _dips(signal: np.ndarray) -> list[int]:
    """The segments after which the gradient becomes more than four times as large, deepest first."""
    largest = float(np.nanmax(signal))
    after = np.maximum.accumulate(np.where(np.isfinite(signal), signal, -np.inf)[:0:-1])[::-1]  # the largest one
    # A smaller gradient is only rounding error.
    found = np.flatnonzero((after > 1e-5 * largest) & (signal[:-1] < _SMALL * after))
    return sorted((int(k) for k in found), key=lambda k: (signal[k] / after[k], k))


def _flat_from_the_start(e: Evidence, s: StepsTaken, norms: np.ndarray, curvature: np.ndarray) -> list[Finding]:
    """Finds a run that started on a flat place and has not left it: its gradient grows, along negative curvature."""
    grew = norms[-1] / max(norms[0], 1e-300)
    bends_away = np.nanmax(curvature) < 0
    smooth = np.mean(np.diff(norms) > 0) > 0.9
    if not (bends_away and smooth and grew > 1.2 and not s.way() < 0.1 and e.is_falling) or e.noise_squared is not None:
        return []
    text = (
        f"The gradient norm grows from {number(norms[0])} to {number(norms[-1])}, and the curvature along the gradient "
        "is negative all the way. The run started on a flat place and has not left it yet."
    )
    numbers = {"norm": norms[0], "after": norms[-1], "grew": grew}
    return [finding("plateau", text, numbers, (0, e.steps - 1), "medium")]
