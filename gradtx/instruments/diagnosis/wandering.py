"""Rule on descent that leads nowhere: a long way for nothing, or off a hill and towards an asymptote (chapter §2.7)."""

import numpy as np

from .evidence import Evidence
from .medians import late_median
from .report import Finding, finding
from .verdict import Verdict

_NEGATIVE = -0.02  # of the largest curvature met: clearly below 0, as for a saddle in `flat_places.py`


def wandering(e: Evidence, verdict: Verdict) -> Finding | None:
    """A long way for nothing, or a way off a hill towards an asymptote."""
    way, straight = _way(e)
    if way is None:
        verdict.needs("wandering", "gradtx.trajectory()")
        return None
    if verdict.found & {"learning_rate_too_high", "cliff", "exploding_gradients", "plateau", "gradient_noise"}:
        return None  # the way is explained
    gained = e.start - e.end
    crooked = late_median(straight, 0.1)
    if crooked < 0.2 and gained < 0.1 * max(abs(e.start), e.scatter) and e.steps >= 20:
        text = (
            f"After a path of which {crooked:.0%} leads away from the start, the loss went from {e.start:.3g} to "
            f"{e.end:.3g}."
        )
        return finding("wandering", text, {"straightness": crooked, "gained": gained}, (0, e.steps - 1), "medium")
    return None if "saddle" in verdict.found else _asymptote(e, way)


def _way(e: Evidence) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Distance from the start and straightness of each step."""
    distance, straight = e.curve("trajectory/distance"), e.curve("trajectory/straightness")
    if distance is not None and straight is not None:
        return distance, straight
    if e.iterates is None:
        return None, None
    path = e.iterates[: e.steps + 1]
    distance = np.linalg.norm(path[1:] - path[0], axis=1)
    walked = np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))
    return distance, distance / np.maximum(walked, 1e-30)


def _asymptote(e: Evidence, distance: np.ndarray) -> Finding | None:
    """The way began downhill off a hill (negative curvature), and goes on and on while loss and gradient die away."""
    curvature, norm = e.curvature, e.norm
    if curvature is None or norm is None or e.steps < 40:
        return None
    quarter, half = e.steps // 4, e.steps // 2
    came_off_a_hill = np.nanmin(curvature[:half]) < _NEGATIVE * np.nanmax(np.abs(curvature))
    # Towards an asymptote the steps fall off as 1/k: as far from a quarter to half of the run as in its last half.
    steps_out = distance[half] - distance[quarter], distance[-1] - distance[half]
    goes_on = steps_out[1] > 0.02 * distance[-1] and 0.3 < steps_out[1] / max(steps_out[0], 1e-30) < 1.5
    decay = np.log(late_median(norm, 0.05) / norm[half]) / np.log(2)
    if came_off_a_hill and goes_on and -1.6 < decay < -0.5:
        text = (
            "The start lay on the far side of a hill (negative curvature), and the parameters still move away from "
            f"it, by {steps_out[1] / distance[-1]:.0%} of their distance in the last half, while the gradient dies "
            f"away as k^{decay:.1f}."
        )
        return finding("wandering", text, {"distance": distance[-1], "decay": decay}, (half, e.steps - 1), "medium")
    return None
