"""Rules on descent that makes little progress: ill-conditioned curvature, and a path without gain (chapter §2.7).

With ill-conditioned curvature the run crawls along directions far flatter than those that bound its rate. A run that
wanders goes a long way without gain, or descends towards an asymptote.
"""

import numpy as np

from .evidence import Evidence
from .medians import early_median, late_median, median_of
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken

_SPREAD = 50  # the steps in which the gradient along the flat direction falls by a factor of e
_NEGATIVE = -0.02  # relative to the largest curvature met: clearly below 0


def ill_conditioning(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the steepest curvature met bounds the rate, and the run now descends along one that is 50 times flatter.

    Source: Goodfellow et al. 2016, §8.2.1. Wrong if the steps could be longer along the steep direction too, or if the
    gain that is still possible is less than the data can tell (Bottou & Bousquet 2008): then the run has arrived.
    """
    curvature, norm = e.curvature, e.norm
    if curvature is None or norm is None:
        verdict.needs("ill_conditioning", "gradtx.observed(tx) or gradtx.curvature_ratio(learning_rate)")
        return []
    # Once the gradient has nearly gone, its curvature is rounding.
    met = curvature[np.isfinite(curvature) & (norm > 1e-5 * np.nanmax(norm))]
    steepest = float(np.fmax(np.max(met, initial=0.0), late_median(e.curve("sharpness/lambda_max"))))
    flattest = median_of(np.abs(curvature[-max(1, e.steps // 3) :]))
    if not (steepest > 0 and flattest > 0 and e.steps >= 20):
        return []
    spread = steepest / flattest
    half = max(1, e.steps // 2)
    kept = late_median(norm, 0.1) / max(median_of(norm[half : half + max(1, e.steps // 10)]), 1e-300)
    noise = late_median(e.curve("gradient_tests/norm"))
    # A function without data has no noise that could hide the remaining gain.
    is_above_noise = noise <= 1 or (np.isnan(noise) and not e.has_layers)
    matters = late_median(norm, 0.1) ** 2 / (2 * flattest) > 0.01 * _first_to_gain(curvature, norm) or is_above_noise
    is_felt = noise > 0.7 and not e.gradients_agree
    if spread >= _SPREAD and matters and _is_bound(s, steepest) and kept > 0.3 and not is_felt and e.late_fall > 0:
        text = (
            f"The largest curvature so far is {number(steepest)}. The run now descends along a curvature of "
            f"{number(flattest)}, which is {number(spread)} times smaller. "
            f"Over the last half the gradient kept {min(kept, 9.99):.0%} of its norm."
        )
        numbers = {"spread": spread, "steepest": steepest, "flattest": flattest, "norm_kept": kept}
        numbers["momentum"] = 0.9 if spread < 200 else 0.95
        where = (e.steps // 2, e.steps - 1)
        if s.may_be_plain:
            return [finding("ill_conditioning", text, numbers, where, "high")]
        advice = "Raise the momentum, or use a separate learning rate for each parameter."
        return [finding("ill_conditioning", text, numbers, where, "high", remedy="", advice=advice)]
    if spread >= _SPREAD and np.isnan(noise) and not matters:
        verdict.needs("ill_conditioning", "gradtx.gradient_tests(), because the possible gain may be less than noise")
    if spread < 20:
        verdict.rules_out("ill_conditioning", f"all curvatures so far lie within a factor of {spread:.2g}.")
    return []


def _first_to_gain(curvature: np.ndarray, norm: np.ndarray) -> float:
    """The possible gain of the first step on a parabola, ‖g‖²/2c, in the unit of the gradients, not of the logged loss.

    0 if no step met a parabola, so that any gain that is still possible counts.
    """
    met = np.flatnonzero(curvature > 0)
    return float(norm[met[0]] ** 2 / (2 * curvature[met[0]])) if len(met) else 0.0


def _is_bound(s: StepsTaken, steepest: float) -> bool:
    """Whether the steps are a twentieth or more of what the steepest curvature stands; no if that is unknown."""
    rates = s.learning_rates
    if rates is not None:
        return max(early_median(rates), late_median(rates)) * steepest / 2 >= 0.05
    if s.ratio is not None:
        return float(np.nanpercentile(np.abs(s.ratio), 98)) >= 0.02
    return False


def wandering(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if a crooked path gained nothing although the gradient is signal, or descent goes on towards an asymptote.

    Source: Goodfellow et al. 2016, §8.2.7. Wrong if noise moves the parameters: a rise within the scatter does not
    count, and a run near its lowest loss has no way to go.
    """
    way, straight = _way(e)
    if way is None or straight is None:
        verdict.needs("wandering", "gradtx.trajectory()")
        return []
    crooked = late_median(straight, 0.1)
    is_noise = e.is_lost_in_noise or (np.isnan(e.late_share) and e.scatter > 0)
    gained = e.came_down or e.is_falling or not e.gained_nothing
    if crooked < 0.2 and not gained and e.steps >= 20 and not is_noise:
        text = (
            f"The distance from the start is only {crooked:.0%} of the path's length. The loss went from "
            f"{number(e.start)} to {number(e.end)}."
        )
        numbers = {"straightness": crooked, "gained": e.start - e.end}
        return [finding("wandering", text, numbers, (0, e.steps - 1), "medium")]
    return _asymptote(e, way)


def _way(e: Evidence) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The distance from the start and the straightness of the path, at each step."""
    distance, straight = e.curve("trajectory/distance"), e.curve("trajectory/straightness")
    if distance is not None and straight is not None:
        return distance, straight
    if e.log.iterates is None:
        return None, None
    path = e.log.iterates[: e.steps + 1]
    distance = np.linalg.norm(path[1:] - path[0], axis=1)
    walked = np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))
    return distance, distance / np.maximum(walked, 1e-300)


def _asymptote(e: Evidence, distance: np.ndarray) -> list[Finding]:
    """A finding if the run came off a hill (negative curvature) and moves on while the gradient dies away."""
    curvature, norm = e.curvature, e.norm
    if curvature is None or norm is None or e.steps < 40 or e.noise_squared is not None:
        return []
    quarter, half = e.steps // 4, e.steps // 2
    came_off_a_hill = np.nanmin(curvature[:half]) < _NEGATIVE * np.nanmax(np.abs(curvature))
    # Towards an asymptote the steps fall as 1/k: the second quarter of the run goes as far as its last half.
    steps_out = distance[half] - distance[quarter], distance[-1] - distance[half]
    goes_on = steps_out[1] > 0.02 * distance[-1] and 0.3 < steps_out[1] / max(steps_out[0], 1e-300) < 1.5
    decay = np.log(late_median(norm, 0.05) / norm[half]) / np.log(2)
    if came_off_a_hill and goes_on and -1.6 < decay < -0.5:
        text = (
            "The start lay on the wrong side of a hill (negative curvature). The parameters still move away from "
            f"it, in the last half by {steps_out[1] / distance[-1]:.0%} of their distance. The gradient meanwhile "
            f"falls as k^{decay:.1f} over the steps k."
        )
        return [finding("wandering", text, {"distance": distance[-1], "decay": decay}, (half, e.steps - 1), "medium")]
    return []
