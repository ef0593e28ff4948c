"""Rules on noise: whether it decides the run, whether the run is in equilibrium with it, whether the batch fits it.

Noise s² = tr Σ / B against signal ‖G‖² is B_simple / B, the noise scale over the batch size. With B = m B_simple a run
takes 1 + 1/m times the fewest steps and 1 + m times the fewest examples that reach a loss (McCandlish et al. 2018, eq.
2.11). So a batch is *too small* at m < 1/5 (six times the steps), *too large* at m > 5 (six times the examples), over
the first half of the run: towards the end the signal dies and any batch is small.

Elsewhere noise is harmless while the loss falls. *Gradient noise* is named where the loss hovers at a level that noise
holds: SGD at rate ε hovers about ε s² / 4 above the bottom of a bowl, whatever its curvature (to first order in ε).
That height against what the run gained (5 %), or against the level itself (30 %; 5 % where the balance of fluctuation
and dissipation is known to hold), says what noise costs; these numbers are from the labelled runs of the tests.
"""

import numpy as np

from .evidence import Evidence
from .medians import STRETCHES, late_median, median_of
from .report import Finding, finding
from .verdict import Verdict


def noise(e: Evidence, verdict: Verdict) -> list[Finding]:
    """gradient_noise, stationary, batch_too_small."""
    against = noise_to_signal(e)
    usual = float("nan") if against is None else median_of(against[len(against) // 2 :], keep_inf=True)
    if not np.isfinite(usual) and not np.isinf(usual):
        verdict.needs("gradient_noise", "gradtx.gradient_noise_scale() on batches of two examples and more")
    if usual < 0.25:
        verdict.rules_out("gradient_noise", f"noise has {usual**0.5:.0%} of the signal's length.")
    height, share_of_gain, share_of_level = _cost(e)
    hovers = not e.is_falling and e.steps >= 20
    costs = share_of_gain > 0.05 or share_of_level > 0.3
    dominated = usual > 1 or (np.isnan(usual) and _looks_random(e))
    if not (hovers and costs and dominated) or e.gradients_agree or "vanishing_gradients" in verdict.found:
        return []
    where = e.steps // 2, e.steps - 1
    numbers = {"height": height, "gain": e.drop, "level": e.end, "noise_to_signal": usual}
    said = (
        "consecutive gradients have little in common"
        if np.isnan(usual)
        else f"noise is {usual**0.5:.2g} times the signal"
    )
    text = (
        f"The loss hovers at {e.end:.3g}, and {said}: at this rate noise alone holds it about {height:.2g} above the "
        f"bottom, {share_of_gain:.0%} of all that the run gained."
    )
    findings = [finding("gradient_noise", text, numbers, where, "medium" if np.isnan(usual) else "high")]
    if e.batch_size == 1 and np.isnan(usual):
        text = "A step sees one example, which cannot tell its own noise, and noise decides."
        findings.append(finding("batch_too_small", text, {"batch_size": 1, "times": 16}, where, "medium"))
    return findings


def noise_to_signal(e: Evidence) -> np.ndarray | None:
    """s² / ‖G‖² over the stretches; inf where no signal is left."""
    scale, batch = e.stretches_with_inf("gradient_noise_scale/noise_scale"), e.batch_size
    if scale is not None and batch:
        return np.maximum(0, scale) / batch
    theta = e.stretches("gradient_tests/norm")  # s / ‖g‖, ‖g‖² = ‖G‖² + s²
    if theta is not None:
        share = np.minimum(theta**2, 1 - 1e-9)
        return share / (1 - share)
    return _from_consecutive(e)


def _from_consecutive(e: Evidence) -> np.ndarray | None:
    """The same from steps alone, as for batches of one: two in a row share their signal, E g_k·g_{k-1} = ‖G‖²."""
    sums, norm = e.curve("gradient_alignment/pflug"), e.norm
    if sums is None or norm is None or e.steps < 40:
        return None
    products = np.diff(sums, prepend=np.nan)
    stretches = zip(*(np.array_split(x, min(STRETCHES // 2, e.steps // 20)) for x in (products, norm**2)), strict=True)
    pairs = [(np.nanmean(p), np.nanmean(n)) for p, n in stretches if np.isfinite(p).any() and np.isfinite(n).any()]
    if not pairs:
        return None
    found = np.array([(total - signal) / signal if signal > 0 else np.inf for signal, total in pairs])
    # As many stretches as the other curves have, so that rules can look at one beside the other.
    return np.maximum(0, found)[np.minimum(np.arange(len(e.levels)) * len(found) // len(e.levels), len(found) - 1)]


def _cost(e: Evidence) -> tuple[float, float, float]:
    """How high noise holds the loss; the same over what the run gained, and over the level where it ended."""
    height = _height(e)
    return height, height / max(e.drop, 1e-30), height / max(abs(e.end), 1e-30)


def _height(e: Evidence) -> float:
    """ε s² / 4, s the standard error of the gradient, or its norm where it hovers; 0 where neither is known."""
    rate = e.learning_rate
    if not rate:
        return 0.0
    error = late_median(e.curve("gradient_tests/standard_error"))
    if not np.isfinite(error):
        error = late_median(e.norm) if _looks_random(e) else 0.0
    return float(rate * np.square(error) / 4) if np.isfinite(error) else 0.0


def _looks_random(e: Evidence) -> bool:
    """Consecutive gradients have little in common, and are no smaller than they were."""
    cosine = late_median(e.cosine)
    if e.norm is None or not np.isfinite(cosine) or e.scatter == 0:
        return False
    kept = late_median(e.norm) / max(float(np.nanmedian(e.norm)), 1e-30)
    return -0.5 < cosine < 0.3 and kept > 0.3


def stationary(e: Evidence, verdict: Verdict) -> Finding | None:
    """Equilibrium: the fluctuation-dissipation balance holds, or Pflug's sum falls, and the loss hovers."""
    if e.steps < 20 or e.is_falling or verdict.found & {"learning_rate_too_high", "vanishing_gradients"}:
        return None
    ratio, pflug = e.curve("stationarity/ratio"), e.curve("gradient_alignment/pflug")
    where = e.steps // 2, e.steps - 1
    if ratio is not None:
        value = late_median(ratio, 0.2)
        _, share_of_gain, share_of_level = _cost(e)
        costs = share_of_gain > 0.05 or share_of_level > 0.05
        if abs(np.log(max(value, 1e-9))) < np.log(1.3) and e.scatter > 0 and costs:
            text = (
                f"The two sides of the fluctuation-dissipation relation balance: ratio {value:.2f}, 1 at equilibrium."
            )
            return finding("stationary", text, {"ratio": value}, where, "high")
        if abs(value - 1) > 0.3:
            verdict.rules_out("stationary", f"the fluctuation-dissipation ratio is {value:.3g}, not 1.")
        return None
    if pflug is None:
        verdict.needs("stationary", "gradtx.stationarity(learning_rate)")
        return None
    half = pflug[e.steps // 2 :]
    half = half[np.isfinite(half)]
    falls = len(half) > 20 and half[-1] < half[0] and np.mean(np.diff(half[:: max(1, len(half) // 20)]) < 0) > 0.6
    if falls and "gradient_noise" in verdict.found:
        text = (
            f"Pflug's sum of products of consecutive gradients falls, from {half[0]:.3g} to {half[-1]:.3g}, over the "
            "last half."
        )
        return finding("stationary", text, {"pflug_change": half[-1] - half[0]}, where, "medium")
    return None


def batch_size(e: Evidence, verdict: Verdict) -> Finding | None:
    """Batch far below or far above the noise scale."""
    against, batch = noise_to_signal(e), e.batch_size
    if against is None or batch is None:
        for challenge in ("batch_too_small", "batch_too_large"):
            verdict.needs(challenge, "gradtx.gradient_noise_scale(), with batch_size in the history")
        return None
    trace = late_median(e.curve("gradient_noise_scale/trace_covariance"), 1.0)
    has_noise = not trace <= 0
    coming_down = against[: int(np.argmax(e.levels <= e.levels.min() + 0.2 * (e.start - e.levels.min())))]
    typical = _pooled(e, len(coming_down) * e.steps // len(against), coming_down)
    text = "A step sees {:.0f} examples; noise and signal balance at {:.3g} ({})."
    if "vanishing_gradients" in verdict.found:
        return None
    if typical > 5 and len(coming_down) >= 0.3 * len(against) and has_noise:
        numbers = {"batch_size": batch, "noise_scale": typical * batch, "times": min(typical, 1024.0)}
        said = text.format(batch, typical * batch, "while the loss comes down")
        return finding("batch_too_small", said, numbers, (0, len(coming_down) * e.steps // len(against)), "high")
    typical = median_of(against[: max(1, len(against) // 2)], keep_inf=True)
    if typical < 0.2 and batch >= 32 and has_noise and not verdict.found & {"learning_rate_too_high", "oscillation"}:
        numbers = {"batch_size": batch, "noise_scale": typical * batch, "times": min(1 / max(typical, 1e-9), batch)}
        said = text.format(batch, typical * batch, "first half of the run")
        return finding("batch_too_large", said, numbers, (0, e.steps // 2), "high")
    if np.isnan(typical) or batch * typical < 0.01:
        return None
    text = text.format(batch, typical * batch, "first half of the run")
    verdict.rules_out("a batch too small or too large", text)
    return None


def _pooled(e: Evidence, steps: int, against: np.ndarray) -> float:
    """s² / ‖G‖² over the first steps as one ratio of sums: of small batches single ratios are anything up to inf."""
    trace = e.curve("gradient_noise_scale/trace_covariance")
    signal = e.curve("gradient_noise_scale/gradient_norm_squared")
    if trace is None or signal is None or not e.batch_size or not steps:
        return median_of(against, keep_inf=True)
    total = float(np.nansum(signal[:steps]))
    return float(np.nansum(trace[:steps])) / total / e.batch_size if total > 0 else float("inf")
