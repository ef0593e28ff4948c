"""Rules on noise: whether it decides the run, whether the run is in equilibrium with it, whether the batch fits it.

Noise is common and harmless while the loss falls. It is named where the loss *hovers* at a level that noise holds: SGD at a
rate ε with gradients of standard error s hovers about ε s² / 4 above the bottom of a bowl, whatever its curvature (to
first order in ε). That height against what the run gained, or against the level itself, says what noise costs.
Thresholds: a tenfold mismatch of batch and noise scale (McCandlish et al. 2018 call the turn at one); 5 % of the gain or
30 % of the level (from the labelled runs of the tests).
"""

import numpy as np

from .evidence import Evidence, late_median
from .report import Finding, finding
from .verdict import Verdict


def noise(e: Evidence, verdict: Verdict) -> list[Finding]:
    """gradient_noise, stationary, batch_too_small."""
    theta = late_median(e.curve("gradient_tests/norm"))
    if not np.isfinite(theta):
        verdict.needs("gradient_noise", "gradtx.gradient_tests() on batches of two examples and more")
    if theta < 0.5:
        verdict.rules_out("gradient_noise", f"the gradient is {1 / max(theta, 1e-9):.2g} times as long as its standard error.")
    height = _height(e)
    hovers = not e.is_falling and e.steps >= 20
    share_of_gain = height / max(e.drop, 1e-30)
    share_of_level = height / max(abs(e.end), 1e-30)
    costs = share_of_gain > 0.05 or share_of_level > 0.3
    dominated = theta > 1 or (not np.isfinite(theta) and _looks_random(e))
    if not (hovers and costs and dominated):
        return []
    where = e.steps // 2, e.steps - 1
    numbers = {"height": height, "gain": e.drop, "level": e.end, "norm_test": theta}
    said = f"noise is {theta:.2g} times the signal" if np.isfinite(theta) else "consecutive gradients have little in common"
    text = (
        f"The loss hovers at {e.end:.3g}, and {said}: at this rate noise alone holds it about {height:.2g} above the bottom, "
        f"{share_of_gain:.0%} of all that the run gained."
    )
    findings = [finding("gradient_noise", text, numbers, where, "high" if np.isfinite(theta) else "medium")]
    return findings + _too_small(e, where)


def _height(e: Evidence) -> float:
    """ε s² / 4, s the standard error of the gradient, or its norm where it hovers; 0 where neither is known."""
    rate = e.learning_rate
    if not rate:
        return 0.0
    error = late_median(e.curve("gradient_tests/standard_error"))
    if not np.isfinite(error):
        error = late_median(e.norm) if _looks_random(e) else 0.0
    return rate * error**2 / 4 if np.isfinite(error) else 0.0


def _looks_random(e: Evidence) -> bool:
    """Consecutive gradients have little in common, and are no smaller than they were."""
    cosine = late_median(e.cosine)
    if e.norm is None or not np.isfinite(cosine) or e.scatter == 0:
        return False
    kept = late_median(e.norm) / max(float(np.nanmedian(e.norm)), 1e-30)
    return -0.5 < cosine < 0.3 and kept > 0.3


def _too_small(e: Evidence, where: tuple[int, int]) -> list[Finding]:
    scale, batch = late_median(e.curve("gradient_noise_scale/noise_scale")), e.batch_size
    if batch is not None and (scale > 10 * batch or (batch == 1 and not np.isfinite(scale) and not np.isinf(scale))):
        known = np.isfinite(scale)
        text = f"A step sees {batch:.0f} examples" + (f"; noise and signal balance at {scale:.0f}." if known else ", and noise decides.")
        numbers = {"batch_size": batch, "noise_scale": scale, "times": min(scale / batch if known else 16.0, 1024.0)}
        return [finding("batch_too_small", text, numbers, where, "high" if known else "medium")]
    return []


def stationary(e: Evidence, verdict: Verdict) -> Finding | None:
    """Equilibrium: the fluctuation-dissipation balance holds, or Pflug's sum falls, and the loss hovers."""
    if e.steps < 20 or e.is_falling or "learning_rate_too_high" in verdict.found:
        return None
    ratio, pflug = e.curve("stationarity/ratio"), e.curve("gradient_alignment/pflug")
    where = e.steps // 2, e.steps - 1
    if ratio is not None:
        value = late_median(ratio, 0.2)
        if abs(np.log(max(value, 1e-9))) < np.log(1.3) and (e.scatter > 0):
            text = f"The two sides of the fluctuation-dissipation relation balance: ratio {value:.2f}, 1 at equilibrium."
            return finding("stationary", text, {"ratio": value}, where, "high")
        verdict.rules_out("stationary", f"the fluctuation-dissipation ratio is {value:.3g}, not 1.")
        return None
    if pflug is None:
        verdict.needs("stationary", "gradtx.stationarity(learning_rate)")
        return None
    half = pflug[e.steps // 2 :]
    half = half[np.isfinite(half)]
    falls = len(half) > 20 and half[-1] < half[0] and np.mean(np.diff(half[:: max(1, len(half) // 20)]) < 0) > 0.6
    if falls and "gradient_noise" in verdict.found:
        text = f"Pflug's sum of products of consecutive gradients falls, from {half[0]:.3g} to {half[-1]:.3g}, over the last half."
        return finding("stationary", text, {"pflug_change": half[-1] - half[0]}, where, "medium")
    return None


def batch_too_large(e: Evidence, verdict: Verdict) -> Finding | None:
    """Batch far above the noise scale for most of the run."""
    scale, batch = e.stretches("gradient_noise_scale/noise_scale"), e.batch_size
    if scale is None or batch is None:
        verdict.needs("batch_too_large", "gradtx.gradient_noise_scale(), with batch_size in the history")
        verdict.unjudged.setdefault("batch_too_small", verdict.unjudged["batch_too_large"])
        return None
    known = scale[~np.isnan(scale)]
    if not len(known):
        return None
    wasted = float(np.mean(known < batch / 10))
    typical = float(np.median(known))
    if wasted > 0.8 and batch >= 32 and e.is_falling and "learning_rate_too_high" not in verdict.found:
        text = f"A step sees {batch:.0f} examples where noise and signal balance at {typical:.3g}, over {wasted:.0%} of the run."
        numbers = {"batch_size": batch, "noise_scale": typical, "times": min(batch / max(typical, 1.0), batch)}
        return finding("batch_too_large", text, numbers, (0, e.steps - 1), "high")
    return None
