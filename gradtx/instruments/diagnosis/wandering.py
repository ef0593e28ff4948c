"""Rule on descent without progress: a long path without gain, or a path towards an asymptote (chapter §2.7)."""

import numpy as np

from .evidence import Evidence
from .medians import late_median
from .report import Finding, finding, number
from .steps_taken import StepsTaken
from .verdict import Verdict

_NEGATIVE = -0.02  # relative to the largest curvature met: clearly below 0


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
    if curvature is None or norm is None or e.steps < 40:
        return []
    if e.noise_squared is not None:
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
