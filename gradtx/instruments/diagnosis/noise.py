"""Rules on noise: whether it limits the run, and whether the run is in equilibrium with it.

Unless the batch is far too small (`batch_size.py`), noise does no harm while the loss falls. SGD at rate ε hovers about
ε s² / 4 above the bottom of a bowl of any curvature (to first order in ε), s² = tr Σ / B. For other methods ε is
estimated from the loss: the loss fell by about ε Σ‖G‖², so ε is its fall over the sum of the squared signal on the way.
If the schedule is known, it weights the squares. So the height has the unit of the logged loss, which may differ from
that of the gradients (bits and nats, or a sum and a mean). *Gradient noise* is reported if the loss hovers, noise is
most of the gradient, and the height is a few per cent of the gain (`costs`).
"""

import numpy as np

from .evidence import Evidence
from .medians import finite, late, late_median, mean_of, median_of
from .report import Finding, Verdict, finding, number, percent
from .steps_taken import StepsTaken


def gradient_noise(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if noise keeps the loss from falling: noise is most of the gradient, and costs a share of the gain.

    Source: Goodfellow et al. 2016, §8.3.1 (SGD at a constant rate does not converge); McCandlish et al. 2018. Wrong if
    a decaying rate ends no lower.
    """
    is_step_unknown = s.ratio is None and s.learning_rates is None
    if np.isnan(e.late_share) and (e.cosine is None or is_step_unknown):
        verdict.needs("gradient_noise", "gradtx.gradient_noise_scale() on batches of two or more examples")
        return []
    if e.late_share > 0.8 and not e.gradients_agree:
        verdict.rules_out("gradient_noise", f"noise is {percent(1 - e.late_share)} of the squared gradient.")
    if not (hovers(e) and (e.late_share < 0.5 or _looks_random(e)) and costs(e, s)):
        return []
    height = height_of(e, s)
    said = (
        "consecutive gradients have little in common"
        if np.isnan(e.late_share)
        else f"noise is {min(1 - e.late_share, 1):.0%} of the squared gradient"
    )
    text = (
        f"The loss stays near {number(e.end)}, and {said}. At this learning rate noise alone keeps it about "
        f"{number(height)} above the minimum. That is {percent(height / max(e.drop, 1e-300))} of the whole gain of the "
        "run."
    )
    numbers = {
        "height": height, "gain": e.drop, "level": e.end, "steps": float(e.steps),
        "noise_to_signal": (1 - e.late_share) / e.late_share if e.late_share > 0 else float("nan"),
    }  # fmt: skip
    confidence = "medium" if np.isnan(e.late_share) else "high"
    return [finding("gradient_noise", text, numbers, (e.steps // 2, e.steps - 1), confidence)]


def hovers(e: Evidence) -> bool:
    """Whether the loss has fallen by more than the scatter of its levels, and does not fall any more."""
    return e.steps >= 20 and not e.is_falling and e.scatter > 0 and e.came_down


def costs(e: Evidence, s: StepsTaken) -> bool:
    """Whether noise keeps the loss higher by more than 2 % of the gain, at a rate that averages over few batches.

    The height ε s² / 4, over the loss s² / 2c that belongs to the noise of one batch, is r. Below r = 3 % the rate
    averages over many batches. If r is unknown, the height must be an eighth of the gain, or three tenths if the steps
    are known to be those of another method, because then the height is a guess.
    """
    height = height_of(e, s)
    if s.ratio is None:
        return height > (0.3 if s.is_plain is False else 0.12) * e.drop
    return height > 0.02 * e.drop and abs(late_median(s.ratio, 0.2)) >= 0.03


def _looks_random(e: Evidence) -> bool:
    """Whether consecutive gradients have little in common and have not become much smaller."""
    if e.norm is None or not np.isnan(e.late_share):
        return False
    kept = late_median(e.norm) / max(median_of(e.norm), 1e-300)
    return -0.5 < e.late_cosine < 0.3 and kept > 0.3


def height_of(e: Evidence, s: StepsTaken) -> float:
    """The height ε s² / 4 at which noise keeps the loss, with ε from the fall of the loss and its squared signal."""
    noise, norm = e.noise_squared, e.norm
    rates = s.learning_rates if s.is_plain is not False else None
    if e.drop <= 0:
        return float("nan")
    late_rate = 1 / max(1.0, s.shrank) if rates is None else late_median(rates, 0.2)
    if norm is None:  # the signal is unknown: assume that the loss has the gradients' unit
        return float("nan") if noise is None or rates is None else float(late_rate * mean_of(late(noise)) / 4)
    error = mean_of(late(norm**2 if noise is None else noise))
    down = slice(0, max(1, int(np.argmax(e.loss <= e.lowest + 0.2 * e.drop))) + 1)
    weights = np.ones(e.steps) if rates is None else rates
    squares = weights * norm**2
    # If no noise was measured, the cosine of the gradients of two batches is about the share of the signal.
    shared = squares if e.cosine is None else squares * e.cosine
    signal = shared if noise is None else squares - weights * noise
    on_the_way = max(float(np.nansum(signal[down])), 0.02 * float(np.nansum(squares[down])))
    return float(e.drop / on_the_way * late_rate * error / 4) if on_the_way > 0 else float("nan")


def stationary(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the run is in equilibrium with its noise: fluctuation and dissipation balance, or Pflug's sum falls.

    Source: Yaida 2019; Pflug 1990. Wrong if the loss still falls, or if a lower rate ends no lower.
    """
    if e.steps < 20 or e.gradients_agree or not hovers(e) or not costs(e, s):
        return []
    ratio, pflug = e.curve("stationarity/ratio"), e.curve("gradient_alignment/pflug")
    where, steps = (e.steps // 2, e.steps - 1), {"steps": float(e.steps)}
    if ratio is not None:
        value = late_median(ratio, 0.2)
        if abs(np.log(max(value, 1e-9))) < np.log(1.3):
            text = (
                f"The two sides of the fluctuation-dissipation relation balance. Their ratio is {value:.2f}, and 1 "
                "means equilibrium."
            )
            return [finding("stationary", text, {"ratio": value} | steps, where, "high")]
        if abs(value - 1) > 0.3:
            verdict.rules_out("stationary", f"the fluctuation-dissipation ratio is {value:.3g}, not 1.")
        return []
    if pflug is None:
        verdict.needs("stationary", "gradtx.stationarity(learning_rate)")
        return []
    half = finite(pflug[e.steps // 2 :])
    falls = len(half) > 20 and half[-1] < half[0] and np.mean(np.diff(half[:: max(1, len(half) // 20)]) < 0) > 0.6
    if falls and not (e.late_share < 0.5 or _looks_random(e)):
        verdict.needs("stationary", "gradtx.stationarity(learning_rate)")
    elif falls:
        text = (
            f"Pflug's sum of products of consecutive gradients falls from {number(half[0])} to {number(half[-1])} over "
            "the last half."
        )
        return [finding("stationary", text, {"pflug_change": half[-1] - half[0]} | steps, where, "medium")]
    return []
