"""Rules on vanishing gradients: the input does not reach the loss, or the gradient does not reach the first layers."""

import numpy as np

from .evidence import Evidence
from .medians import finite, late, late_median, median_of
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken


def vanishing(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the gradient is exactly 0 away from a minimum, or is only noise that does not depend on the input.

    Source: Bengio, Simard & Frasconi 1994; Pascanu et al. 2013 (signal against noise through depth and time). If no
    input reaches the output, the examples differ only in their targets. Then the curvature along the gradient is the
    same in every batch, the gradient is noise, and the predicted way to the minimum is tiny relative to the parameters.
    Wrong if the loss of a model with trained inputs behaves so.
    """
    found = _through_time(e, verdict)
    if found:
        return found
    norm = e.norm
    if norm is None:
        verdict.needs("vanishing_gradients", "gradtx.gradient_norm()")
        return []
    dead = _is_dead(e, norm)
    if not dead and not _is_deaf(e, s):
        if e.has_layers:
            verdict.needs("vanishing_gradients", "gradtx.temporal_gradients(value_fn, params, probes)")
        return []
    if dead:
        text = f"The gradient is exactly 0 and the loss stays at {number(e.end)}, so the run no longer moves."
        first, confidence = int(np.max(np.flatnonzero(norm > 0), initial=-1)) + 1, "medium"
    else:
        text = (
            f"The loss stays at {number(e.end)} and the gradient is noise. The curvature along it is the same in every "
            f"batch ({number(late_median(e.curvature))}), as if no input reached the output."
        )
        first, confidence = 0, "high"
    numbers = {"loss": e.end, "norm": late_median(norm)}
    kinds = ("vanishing_gradients", "plateau") if e.has_layers else ("plateau",)
    return [finding(kind, text, numbers, (first, e.steps - 1), confidence) for kind in kinds]


def _is_dead(e: Evidence, norm: np.ndarray) -> bool:
    """Whether the gradient is 0 over the last fifth of the run, and the run is not at its lowest loss."""
    last = finite(late(norm, 0.2))
    if not len(last) or last.max() > 0 or e.steps < 5:
        return False
    return not (e.drop > 0 and e.end <= e.lowest + 1e-6 * e.drop and not e.was_thrown)


def _is_deaf(e: Evidence, s: StepsTaken) -> bool:
    """Whether the gradient is noise, the loss has not moved, and all batches have the same curvature along it."""
    curvature = e.curvature
    if not e.has_layers or curvature is None or e.steps < 40 or e.is_falling or e.is_quiet or not e.late_share < 0.35:
        return False
    seen = finite(late(curvature))
    if len(seen) < 10 or median_of(seen) <= 0:
        return False
    spread = float(np.percentile(seen, 84) - np.percentile(seen, 16)) / 2 / median_of(seen)
    moved, ratio = late_median(e.curve("update_ratio/global")), abs(s.typical)
    reach = moved / (2 * ratio) if ratio > 0 and moved > 0 else float("nan")
    # An exactly constant curvature is that of a parabola, which has no inputs.
    if np.isnan(reach):
        return 1e-3 < spread < 0.05
    return spread < 0.15 and reach < (1 if spread > 1e-3 else 0.05)


def _through_time(e: Evidence, verdict: Verdict) -> list[Finding]:
    """Findings on gradients through time, if measured: a factor of 1,000 between the last step and the first."""
    slope, norms = e.curve("temporal_gradients/slope"), e.vectors("temporal_gradients/norms")
    if slope is None and norms is None:
        return []
    if norms is not None:
        log_ratio = float(np.nanmedian(np.log(norms[:, -1] / norms[:, 0])))
        length = norms.shape[1]
    else:
        log_ratio, length = late_median(slope, 1.0) * 50, 50
    text = f"Back through {length} time steps, the gradient changes by a factor of {number(np.exp(-log_ratio))}."
    if log_ratio > np.log(1e3):
        return [finding("vanishing_gradients", text, {"log_ratio": log_ratio}, (0, e.steps - 1), "high")]
    if log_ratio < -np.log(1e3):
        usual = late_median(e.norm, 1.0)
        numbers = {"log_ratio": log_ratio, "limit": usual if np.isfinite(usual) and usual > 0 else 1.0}
        return [finding("exploding_gradients", text, numbers, (0, e.steps - 1), "high")]
    verdict.rules_out("vanishing and exploding gradients", text)
    return []
