"""Rules on how long the steps are: rates too high and too low, oscillation, the edge of stability, ill-conditioning.

All go by the curvature c = g'Hg / g'g that a step meets and its ratio r = ε c / 2: the step is expected to lower the
loss while r < 1. Thresholds: r = 1 and ε λ_max / 2 = 1 are theory (Goodfellow et al. 2016, eq. 8.10; Cohen et al.
2021); the others were chosen on the labelled runs of the tests: r < 0.02 (a rate fifty times as high would do), a
spread of curvatures of 50, a cosine below -0.5.
"""

import numpy as np

from .evidence import Evidence
from .medians import late, late_median, medians
from .report import Finding, finding
from .verdict import Verdict


def learning_rate_too_high(e: Evidence, verdict: Verdict) -> Finding | None:
    """The loss rises or hovers because steps overshoot."""
    ratio = e.curve("curvature_ratio/ratio")
    scale = max(abs(e.start), e.drop, 1e-30)
    rose = float(np.max(e.loss)) - e.start > scale
    ends_high = e.end - e.start > scale or (e.steps < len(e.all_loss) and rose)
    if ratio is None:
        verdict.needs("learning_rate_too_high", "gradtx.curvature_ratio(learning_rate)")
        if ends_high and "cliff" not in verdict.found and "exploding_gradients" not in verdict.found:
            text = f"The loss rose from {e.start:.3g} to {np.max(e.loss):.3g} and did not come back."
            return finding("learning_rate_too_high", text, {"start": e.start, "highest": np.max(e.loss)},
                           (int(np.argmax(e.loss)), e.steps - 1), "medium")  # fmt: skip
        return None
    overshoots = np.flatnonzero(ratio >= 1)
    typical = late_median(ratio)
    numbers = {"median_ratio": typical, "largest_ratio": float(np.nanmax(ratio)), "start": e.start, "end": e.end}
    thrown = ends_high or (rose and e.end > 0.7 * e.start)
    if thrown and len(overshoots) and (len(overshoots) >= 0.2 * e.steps or overshoots[0] <= 2):
        text = (
            f"The loss went from {e.start:.3g} to {e.end:.3g} (highest {np.max(e.loss):.3g}) in steps expected to "
            f"raise it: r >= 1 at {len(overshoots)} of {e.steps} steps, first at step {overshoots[0]}, where r = "
            f"{ratio[overshoots[0]]:.3g}."
        )
        return finding("learning_rate_too_high", text, numbers, (overshoots[0], overshoots[-1]), "high")
    if typical >= 1 and not e.is_falling and not e.has_arrived:
        text = f"The loss stopped falling at {e.end:.3g} while half of the late steps have r >= {typical:.3g}, above 1."
        return finding("learning_rate_too_high", text, numbers, (overshoots[0], overshoots[-1]), "high")
    if typical < 0.5 and float(np.nanmax(ratio)) < 1:
        largest = float(np.nanmax(ratio))
        verdict.rules_out(
            "learning_rate_too_high", f"no step was expected to raise the loss (r at most {largest:.2g})."
        )
    return None


def learning_rate_too_low(e: Evidence, verdict: Verdict) -> Finding | None:
    """All steps together hardly lower the loss, and each is far below what the curvature stands."""
    ratio, norm = e.curve("curvature_ratio/ratio"), e.norm
    if ratio is None or norm is None:
        verdict.needs("learning_rate_too_low", "gradtx.gradient_norm() and gradtx.curvature_ratio(learning_rate)")
        return None
    highest = float(np.nanpercentile(np.abs(ratio), 95))
    stability = e.curve("sharpness/stability")
    if stability is not None:
        highest = max(highest, float(np.nanpercentile(stability, 95)))
    if verdict.found & {"plateau", "vanishing_gradients"} or not e.learning_rate:
        return None  # no rate makes up for a gradient that is not there
    kept = late_median(norm, 0.1) / np.nanmedian(norm[: max(1, e.steps // 10)])
    foretold = e.learning_rate * float(np.nansum(norm**2))  # that much the steps can have gained, to first order
    is_noise = late_median(e.curve("gradient_tests/norm")) > 0.9 and not e.gradients_agree
    crawls = max(foretold, e.drop - 3 * e.scatter) < 0.5 * abs(e.start) and kept > 0.5 and not is_noise
    if highest < 0.02 and crawls and e.end <= e.start + 3 * e.scatter:
        text = (
            f"{e.steps} steps can have lowered the loss by {foretold:.2g} from {e.start:.3g}, the gradient is as long "
            f"as at the start ({kept:.0%}), and 95 % of the steps have r below {highest:.2g}: a rate "
            f"{min(1 / max(highest, 1e-6), 1e6):.0f} times as high would still lower it."
        )
        numbers = {"largest_ratio": highest, "foretold": foretold, "start": e.start, "end": e.end, "norm_kept": kept}
        return finding("learning_rate_too_low", text, numbers, (0, e.steps - 1), "high")
    if highest >= 0.1:
        verdict.rules_out("learning_rate_too_low", f"steps reach r = {highest:.2g}, near what the curvature stands.")
    return None


def oscillation(e: Evidence, verdict: Verdict) -> Finding | None:
    """Gradient after gradient points back."""
    cosine = e.cosine
    if cosine is None:
        verdict.needs("oscillation", "gradtx.gradient_alignment()")
        return None
    parts = medians(cosine)
    back = np.flatnonzero(parts < -0.5)
    ratio = e.stretches("curvature_ratio/ratio")
    # Turning back is overshooting only where the step is long for the curvature: noise turns back too, by chance.
    overshoots = ratio is None or not len(back) or not np.nanmedian(ratio[back]) < 0.4
    if len(back) >= max(2, 0.3 * len(parts)) and overshoots:
        share, typical = len(back) / len(parts), float(np.median(parts[back]))
        text = (
            f"Over {share:.0%} of the run each gradient points back at the last: cosine {typical:.2f} where -1 is a "
            "full turn."
        )
        first, last = (int(i * e.steps / len(parts)) for i in (back[0], back[-1] + 1))
        return finding(
            "oscillation", text, {"share": share, "cosine": typical}, (first, min(last, e.steps - 1)), "high"
        )
    if np.isfinite(parts).any() and np.nanmin(parts) > -0.3:
        verdict.rules_out(
            "oscillation", f"consecutive gradients never turn back (lowest cosine {np.nanmin(parts):.2f})."
        )
    return None


def edge_of_stability(e: Evidence, verdict: Verdict) -> Finding | None:
    """The sharpness grew until the rate could just stand it, and stays there while the loss falls."""
    fell = e.end < e.start - 0.1 * max(abs(e.start), 1e-30)
    stability = e.curve("sharpness/stability")
    if stability is not None:
        name, parts = "ε λ_max / 2", medians(stability)
    else:
        verdict.needs("edge_of_stability", "gradtx.sharpness(learning_rate)")
        ratio = e.curve("curvature_ratio/ratio")
        rises = np.mean(np.diff(e.loss) > 0) if e.steps > 1 else 0
        if ratio is None or rises < 0.1:
            return None
        name, parts = "r, the curvature along the gradient times ε/2,", medians(ratio)
    there = np.flatnonzero((parts > 0.85) & (parts < 1.5))
    grew = len(parts) > 1 and np.isfinite(parts[0]) and parts[0] < 0.7
    if fell and grew and len(there) >= 0.25 * len(parts) and late_median(parts, 0.25) > 0.8:
        text = (
            f"{name} grew from {parts[0]:.2g} to {late_median(parts, 0.25):.2g} and hovers about 1 while the loss fell."
        )
        first = int(there[0] * e.steps / len(parts))
        numbers = {"first": parts[0], "late": late_median(parts, 0.25)}
        confidence = "high" if stability is not None else "medium"
        return finding("edge_of_stability", text, numbers, (first, e.steps - 1), confidence)
    if stability is not None and np.nanmax(parts) < 0.7:
        verdict.rules_out("edge_of_stability", f"ε λ_max / 2 stays below {np.nanmax(parts):.2g}.")
    return None


def ill_conditioning(e: Evidence, verdict: Verdict) -> Finding | None:
    """The run crawls along directions far flatter than those that bound its rate."""
    curvature, norm = e.curvature, e.norm
    if "wandering" in verdict.found:
        return None
    if curvature is None or norm is None:
        verdict.needs("ill_conditioning", "gradtx.gradient_norm() and gradtx.curvature_ratio(learning_rate)")
        return None
    # Where the gradient has all but gone, its curvature is rounding.
    met = curvature[np.isfinite(curvature) & (norm > 1e-4 * np.nanmax(norm))]
    steepest = float(np.max(met)) if len(met) else float("nan")
    sharpest = late_median(e.curve("sharpness/lambda_max"))
    steepest = max(steepest, sharpest) if np.isfinite(sharpest) else steepest
    flat = late(curvature, 1 / 3)
    if not len(flat) or steepest <= 0:
        return None
    flattest = float(np.median(flat))
    if flattest <= 0:
        return None
    spread = steepest / flattest
    used = (e.learning_rate or 0) * steepest / 2
    half = max(1, e.steps // 2)
    kept = late_median(norm, 0.1) / np.nanmedian(norm[half : half + max(1, e.steps // 10)])
    # At 0.7 half of ‖g‖² is noise.
    is_noisy = late_median(e.curve("gradient_tests/norm")) > 0.7 and not e.gradients_agree
    # What is still to gain along the flat direction matters, unless a model's loss has all but gone.
    to_gain = np.square(late_median(norm, 0.1)) / (2 * flattest)
    matters = to_gain > min(0.01 * e.drop, 0.1 * abs(e.end)) and not (e.has_layers and e.has_arrived)
    if spread >= 50 and matters and used >= 0.05 and kept > 0.3 and not is_noisy and e.late_fall > 0:
        text = (
            f"The steepest curvature met is {steepest:.3g}, the run now descends along {flattest:.3g}: {spread:.0f} "
            f"times flatter. The steepest one bounds the rate (ε c / 2 = {used:.2g} there), and over the last half the "
            f"gradient kept {kept:.0%} of its norm."
        )
        numbers = {"spread": spread, "steepest": steepest, "flattest": flattest, "norm_kept": kept}
        return finding("ill_conditioning", text, numbers, (e.steps // 2, e.steps - 1), "high")
    if spread < 20:
        verdict.rules_out("ill_conditioning", f"curvatures met lie within a factor of {spread:.2g}.")
    return None
