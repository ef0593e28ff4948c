"""Rule on steps that are too short: a learning rate that is too low, or one that decays too soon.

A step of ratio r goes 2|r| of the way to the minimum that slope and curvature predict along it. The sum over the run
is the number of such ways. If it is below 1, the whole run is less than one good step.
"""

import numpy as np

from .evidence import Evidence
from .medians import early_median, finite, late_median, mean_of, median_of, medians, shrinkage
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken

# The ratio r that a remedy aims at. It is half of that in `too_high.py`: the steps become longer than any that the run
# has taken, and the curvature ahead may be larger than the largest met.
_SAFE = 0.1
_BACK = "tx = optax.chain(tx, optax.scale_by_schedule(optax.piecewise_constant_schedule(1.0, {{{fell_at}: {factor}}})))"
_USUAL_UPDATE = 3e-3  # ‖Δθ‖ / ‖θ‖ per step if nothing better is known: about 1e-3 (Karpathy, CS231n notes)


def learning_rate_too_low(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if all steps together are less than one good step, while the gradient keeps its size and is not noise, and
    the steepest curvature that was met stands steps twice as long.

    Source: Goodfellow et al. 2016, §8.3.1, and the quadratic model of eq. 8.10. Wrong if longer steps end no lower.
    """
    norm = e.norm
    if norm is None or e.steps < 20:
        verdict.needs("learning_rate_too_low", "gradtx.gradient_norm()")
        return []
    is_noise = e.is_lost_in_noise if s.ratio is None or e.has_late_signal is None else not e.has_late_signal
    early, late = (_signal(e, norm, part) for part in (slice(e.steps // 10), slice(e.steps - e.steps // 4, e.steps)))
    if not early > 0 or is_noise:
        return []
    kept = late / early
    if (at := _fell_at(e, s, norm, late)) is not None:
        return [_decayed(e, s, at)]
    if s.ratio is None:
        return _without_ratio(e, norm, verdict, kept)
    way = s.way()
    is_short = way < 0.3 or (way < 1 and e.is_falling)
    if is_short and kept > 0.5 and 2 * _steepest(e, s) < _SAFE:
        text = (
            f"All {e.steps} steps together cover {way:.2g} of the way to the minimum that slope and curvature "
            f"predict. The gradient kept {min(kept, 9.99):.0%} of its size."
        )
        numbers = {"way": way, "norm_kept": kept, "typical_ratio": s.typical, "factor": _factor(e, s)}
        return [finding("learning_rate_too_low", text, numbers, (0, e.steps - 1), "high")]
    if way > 5:
        reason = f"the steps cover {number(way)} times the predicted way to the minimum."
        verdict.rules_out("learning_rate_too_low", reason)
    return []


def _signal(e: Evidence, norm: np.ndarray, part: slice) -> float:
    """‖G‖ over some steps, or ‖g‖ if its noise is unknown."""
    share = e.signal_share(part)
    size = np.sqrt(mean_of(norm[part] ** 2))
    return float(size * np.sqrt(max(0.0, share))) if np.isfinite(share) else median_of(norm[part])


def _factor(e: Evidence, s: StepsTaken) -> float:
    """The factor that brings r up to `_SAFE`.

    If noise is most of the gradient, the curvature along it is that along the noise, and the steepest direction may be
    far steeper. Then the usual length of an update is a second bound, unless the parameters started at 0.
    """
    factor, moved = _SAFE / max(_steepest(e, s), 1e-9), e.curve("update_ratio/global")
    if e.late_share < 0.5 and moved is not None and 0 < float(np.nansum(moved)) < 0.1:
        factor = min(factor, _USUAL_UPDATE / late_median(moved))
    return float(np.clip(factor, 2, 1e6))


def _steepest(e: Evidence, s: StepsTaken) -> float:
    """The ratio of late steps along the steepest curvature that was met, or the largest that was measured.

    A run on the floor of a valley takes steps that are short for the floor, but not for the walls.
    """
    assert s.ratio is not None
    sizes = np.abs(s.ratio)
    largest = float(np.nanpercentile(sizes, 99))
    if e.curvature is None:
        return largest
    reached = late_median(sizes / np.abs(e.curvature)) * float(np.max(finite(e.curvature), initial=0.0))
    return float(np.nanmax([largest, reached]))


def _fell_at(e: Evidence, s: StepsTaken, norm: np.ndarray, late_signal: float) -> int | None:
    """The step from which on the steps are far shorter although curvature and gradient are the same, or None."""
    rates = s.learning_rates
    if s.ratio is not None:
        sizes = np.abs(s.ratio)
        if not (s.way(e.steps // 2) < 0.1 and shrinkage(sizes) > 30):
            return None
        if e.curvature is not None and shrinkage(np.abs(e.curvature)) > 0.1 * shrinkage(sizes):
            return None  # the curvature fell by as much, so the steps did not become shorter
        rates = sizes if rates is None else rates
    elif rates is None or not (s.shrank > 30 and e.late_cosine > 0.2):
        return None
    below = np.flatnonzero(rates < 0.1 * early_median(rates, 0.04))
    if not len(below) or below[0] > 0.6 * e.steps or s.shrank < 30:
        return None
    at = int(below[0])
    middle = slice(at, min(e.steps, at + max(3, e.steps // 10)))
    before, share = median_of(norm[middle]), e.signal_share(middle)
    signal = before * np.sqrt(max(share, 0.0)) if np.isfinite(share) else before
    return at if late_signal > 0.5 * signal > 0 else None


def _decayed(e: Evidence, s: StepsTaken, at: int) -> Finding:
    text = (
        f"From step {e.name(at)} on, the steps are {number(s.shrank)} times shorter than at the start. The gradient "
        "keeps its size from there on, so most of the way is left. The learning rate decays too soon."
    )
    numbers = {"fell_at": at, "shrank": s.shrank, "factor": min(s.shrank, 1e6)}
    advice = "Let the learning rate decay later. Until you change the schedule, this line cancels its decay."
    return finding("learning_rate_too_low", text, numbers, (at, e.steps - 1), "high", remedy=_BACK, advice=advice)


def _without_ratio(e: Evidence, norm: np.ndarray, verdict: Verdict, kept: float) -> list[Finding]:
    """A finding if no reading changed from the first steps to the last, because the parameters hardly moved."""
    verdict.needs("learning_rate_too_low", "gradtx.observed(tx), for the ratio of the steps taken")
    parts = medians(norm, count=20)
    middle = median_of(parts)
    same_norm = 0.8 < kept < 1.25 and 0.6 * middle < np.nanmin(parts) and np.nanmax(parts) < 1.6 * middle
    same_norm = same_norm and float(np.nanmax(norm)) < 4 * middle
    curvature, same_curvature = e.curvature, True
    if curvature is not None:
        first, last = early_median(curvature), late_median(curvature, 0.25)
        scale = max(abs(first), abs(last), 0.1 * float(np.nanmax(np.abs(curvature))))
        known = finite(curvature)
        between = float(np.percentile(known, 75) - np.percentile(known, 25)) if len(known) else 0.0
        same_curvature = abs(last - first) < max(0.35 * scale, 0.5 * between)
    sees_signal = e.late_cosine > 0.2 or e.gradients_agree
    falls_steadily = np.isnan(e.late_cosine) and e.is_falling and e.scatter < 0.02 * e.drop and _is_straight(e)
    moved = e.curve("update_ratio/global")
    path = 0.0 if moved is None else float(np.nansum(moved))  # in lengths of the parameters
    little = path < 0.15 and (e.drop < 3 * e.scatter or _is_straight(e))
    if not (same_norm and same_curvature and little and (sees_signal or falls_steadily)):
        return []
    usual = late_median(moved)
    factor = float(np.clip(_USUAL_UPDATE / usual, 2, 1e5)) if usual > 0 else 100.0
    text = (
        f"The last gradients are as large as the first ones ({kept:.0%}) and are not noise. The loss only goes from "
        f"{number(e.start)} to {number(e.end)}, so the parameters hardly move."
    )
    numbers = {"norm_kept": kept, "update_ratio": usual, "start": e.start, "end": e.end, "factor": factor}
    confidence = "high" if sees_signal and curvature is not None else "medium"
    return [finding("learning_rate_too_low", text, numbers, (0, e.steps - 1), confidence)]


def _is_straight(e: Evidence) -> bool:
    """Whether the loss falls as fast at the end as at the start, because the gradient stays the same."""
    third = max(1, len(e.levels) // 3)
    first, last = e.levels[0] - e.levels[third], e.levels[-third - 1] - e.levels[-1]
    return bool(first > 0 and 0.6 < last / first < 1.6)
