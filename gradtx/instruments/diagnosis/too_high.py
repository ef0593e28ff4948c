"""Rules on steps that are too long: a learning rate that is too high, oscillation, the edge of stability."""

import numpy as np

from .evidence import Evidence
from .leaps import leaps_of
from .medians import finite, late_median, median_of, medians
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken

_SAFE = 0.2  # the ratio r that a remedy aims at: two fifths of the best step along its direction
_UNKNOWN = 0.05  # the factor of a remedy if no ratio tells it
_GENTLE = 0.6  # the ratio that stops an oscillation: a step leaves 1 - 2r = -0.2 of the steepest direction


def learning_rate_too_high(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if steps go past the minimum along their own direction, so that the loss rises or stops falling.

    Source: Goodfellow et al. 2016, eq. 8.10, along the step that is taken. Above r = 1/2 a shorter step in the same
    direction is better; from r = 1 on the step raises the loss. Wrong if shorter steps from the same start end no
    lower.
    """
    known = leaps_of(e, s)
    if known and known[0].kind != "learning_rate_too_high" and known[0].at <= int(np.nanargmax(e.loss)) + 1:
        return []
    ended_badly = e.steps < len(e.log.loss) and e.highest - e.start > e.drop
    outcome = e.rose or (e.was_thrown and e.gained_nothing) or ended_badly
    is_past = s.ratio is not None and _share_past(s.ratio) > 0
    if outcome and (s.ratio is None or is_past or s.turns):
        return [_ended_high(e, s)]
    if _hovers(e, s):
        return [_hovering(e, s)]
    if s.ratio is not None and s.typical < 0.5 and _share_past(s.ratio) == 0:
        reason = f"no step was expected to raise the loss (r at most {float(np.nanmax(np.abs(s.ratio))):.2g})."
        verdict.rules_out("learning_rate_too_high", reason)
    elif s.ratio is None and np.isnan(e.late_share):
        verdict.needs("learning_rate_too_high", "gradtx.observed(tx), for the ratio of the steps taken")
    return []


def _share_past(ratio: np.ndarray) -> float:
    """The share of the steps with a known ratio whose ratio is 1 or more."""
    known = np.abs(finite(ratio))
    return float(np.mean(known >= 1)) if len(known) else 0.0


def _hovers(e: Evidence, s: StepsTaken) -> bool:
    """Whether the loss has stopped falling, although most of the gradient is signal, and the steps overshoot."""
    has_arrived = e.is_quiet and e.end - e.lowest < 0.01 * e.drop
    if e.steps < 20 or e.is_falling or has_arrived:
        return False
    if s.typical >= 1:
        return True
    return bool(e.late_share > 0.5 and (s.typical >= 0.5 or (s.turns and np.isnan(s.typical))))


def _ended_high(e: Evidence, s: StepsTaken) -> Finding:
    came = f"The loss went from {number(e.start)} to {number(e.end)}. Its highest value was {number(e.highest)}."
    past = [] if s.ratio is None else np.flatnonzero(np.abs(s.ratio) >= 1).tolist()
    if s.ratio is not None and past:
        why = (
            f"{len(past)} of {e.steps} steps were expected to raise it (|r| of 1 or more). The first is step "
            f"{e.name(past[0])}, with r = {number(s.ratio[past[0]])}."
        )
    elif s.ratio is not None:
        why = f"Steps go past the minimum along their own direction (r is about {s.typical:.2f}, and 0.5 is best)."
    elif s.turns:
        why = f"The gradient turns from step to step (cosine {e.late_cosine:.2f} of consecutive gradients)."
    else:
        why = "It did not fall again."
    confidence = "high" if s.ratio is not None or s.turns or e.was_thrown else "medium"
    numbers = {"start": e.start, "end": e.end, "highest": e.highest, "typical_ratio": s.typical}
    numbers["factor"] = _factor(e, s)
    where = (int(np.nanargmax(e.loss)), e.steps - 1)
    return finding("learning_rate_too_high", f"{came} {why}", numbers, where, confidence)


def _hovering(e: Evidence, s: StepsTaken) -> Finding:
    how = (
        f"r is about {s.typical:.2f}, and 0.5 is best"
        if s.typical >= 0.5
        else f"the cosine of consecutive gradients is {e.late_cosine:.2f}"
    )
    text = (
        f"The loss stopped falling at {number(e.end)}, although most of the gradient is signal. The steps go past the "
        f"minimum along their own direction ({how})."
    )
    numbers = {"end": e.end, "typical_ratio": s.typical, "signal": e.late_share, "factor": _factor(e, s)}
    confidence = "high" if s.typical >= 0.5 else "medium"
    return finding("learning_rate_too_high", text, numbers, (e.steps // 2, e.steps - 1), confidence)


def _factor(e: Evidence, s: StepsTaken) -> float:
    """The factor that brings r down to `_SAFE`, from the steps before the rise and the typical ones.

    A step that was too long may throw the run (the gradient grows ten times or more, as for a leap). The curvature at
    such a place says nothing about the place that the run came from.
    """
    if s.ratio is None:
        return _UNKNOWN
    sizes = np.abs(s.ratio)
    if e.norm is not None:
        sizes = np.where(e.norm > 10 * e.norm[0], np.nan, sizes)
    rise = np.flatnonzero(e.loss > e.start)
    until = int(min(rise[0], e.steps // 4)) if len(rise) else 0
    first = finite(sizes[: max(3, e.steps // 50, until)])
    largest = np.fmax(np.max(first, initial=0.0), late_median(sizes))
    # If noise is most of the gradient, the curvature along it says little about the steepest direction. And if the
    # first step raised the loss for good although its r was below 1, the curvature grew along the step.
    is_surprise = sizes[0] < 1 and bool((e.known[1:8] > e.start).all())
    most = _UNKNOWN if e.late_share < 0.5 or is_surprise else 0.3
    return float(np.clip(_SAFE / max(largest, _SAFE), 1e-4, most))


def oscillation(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if each gradient points against the last, because steps go past the minimum along the steepest direction.

    Source: Goodfellow et al. 2016, §8.3.1; Jacobs 1988. Wrong if the steps are shorter than that (r below 0.8): then
    noise turns the gradient by chance, or a velocity swings as it should.
    """
    cosine = e.cosine
    if cosine is None:
        verdict.needs("oscillation", "gradtx.gradient_alignment()")
        return []
    parts = medians(cosine)
    back = np.flatnonzero(parts < -0.5)
    ratio = None if s.ratio is None else medians(s.ratio)
    overshoots = not len(back) or not median_of(ratio[back]) < 0.8 if ratio is not None else not e.late_share < 0.4
    level = medians(e.loss)
    coming_down = np.flatnonzero(level > e.lowest + 0.05 * e.drop)  # a small swing about the minimum does no harm
    matters = len(coming_down) and float(np.mean(parts[coming_down] < -0.5)) >= 0.3
    if len(back) >= max(2, 0.3 * len(parts)) and overshoots and matters:
        share, typical = len(back) / len(parts), float(np.median(parts[back]))
        text = (
            f"Over {share:.0%} of the run each gradient points against the one before. Their cosine is {typical:.2f}, "
            "and -1 means opposite directions."
        )
        first, last = (int(i * e.steps / len(parts)) for i in (back[0], back[-1] + 1))
        past = median_of(ratio[back]) if ratio is not None else float("nan")
        factor = float(np.clip(_GENTLE / past, 0.3, 0.8)) if past > 0 else 0.5
        numbers = {"share": share, "cosine": typical, "factor": factor}
        return [finding("oscillation", text, numbers, (first, min(last, e.steps - 1)), "high")]
    if np.isfinite(parts).any() and np.nanmin(parts) > -0.3:
        verdict.rules_out("oscillation", f"the gradient does not turn back (lowest cosine {np.nanmin(parts):.2f}).")
    return []


def edge_of_stability(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the sharpness grew to the limit of stable steps and stays there while the loss falls.

    Source: Cohen et al. 2021 (ε λ_max / 2 about 1; with momentum the limit that `sharpness` uses). For Adam see Cohen
    et al. 2022; no reading here measures their preconditioned sharpness. Wrong if a smaller rate meets the same
    sharpness.
    """
    fell = e.end < e.start - 3 * e.scatter and e.drop > 0
    stability = e.curve("sharpness/stability")
    if stability is not None:
        name, parts = "ε λ_max / 2", medians(stability)
    else:
        verdict.needs("edge_of_stability", "gradtx.sharpness(learning_rate)")
        rises = np.mean(np.diff(e.known) > 0) if len(e.known) > 1 else 0
        if s.ratio is None or rises < 0.1 or e.is_quiet or e.is_lost_in_noise or s.is_plain is False:
            return []
        name, parts = "r, the curvature along the step as a share of its limit,", medians(s.ratio)
    there = np.flatnonzero((parts > 0.85) & (parts < 1.5))
    grew = len(parts) > 1 and np.isfinite(parts[0]) and parts[0] < 0.7
    last = late_median(parts, 0.25)
    if fell and grew and len(there) >= 0.25 * len(parts) and 0.8 < last < 1.5:
        text = f"{name} grew from {parts[0]:.2g} to {last:.2g} and stayed near 1 while the loss fell."
        first = int(there[0] * e.steps / len(parts))
        confidence = "high" if stability is not None else "medium"
        return [finding("edge_of_stability", text, {"first": parts[0], "late": last}, (first, e.steps - 1), confidence)]
    if stability is not None and np.nanmax(parts) < 0.7:
        verdict.rules_out("edge_of_stability", f"ε λ_max / 2 stays below {np.nanmax(parts):.2g}.")
    return []
