"""Rules on noise: whether it limits the run, whether the run is in equilibrium with it, whether the batch fits it.

Noise s² = tr Σ / B over signal ‖G‖² is B_simple / B, the noise scale over the batch size. With B = m B_simple a run
takes 1 + 1/m times the fewest steps and 1 + m times the fewest examples that reach a loss (McCandlish et al. 2018, eq.
2.11). So a batch is *too small* at m < 1/5 (six times the steps) and *too large* at m > 5 (six times the examples).
The first is judged while the loss comes down by four fifths of its fall, the second over the first half of the run:
towards the end the signal vanishes, and every batch is too small.

Otherwise noise does no harm while the loss falls. SGD at rate ε hovers about ε s² / 4 above the bottom of a bowl of any
curvature (to first order in ε). For other methods ε is estimated from the loss: the loss fell by about ε Σ‖G‖², so ε is
its fall over the sum of the squared signal on the way. If the schedule is known, it weights the squares. So the height
has the unit of the logged loss, which may differ from that of the gradients (bits and nats, or a sum and a mean).
*Gradient noise* is reported if the loss hovers, noise is most of the gradient, and the height is a few per cent of the
gain (`costs`).
"""

import numpy as np

from .evidence import Evidence
from .medians import SEGMENTS, finite, late, late_median, mean_of, median_of, medians
from .report import Finding, finding, number, percent
from .steps_taken import StepsTaken
from .verdict import Verdict


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
    if not hovers(e) or not (e.late_share < 0.5 or _looks_random(e)):
        return []
    if not costs(e, s):
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


def noise_to_signal(e: Evidence) -> np.ndarray | None:
    """s² / ‖G‖² over the segments; inf if no signal is left."""
    scale, batch = e.curve("gradient_noise_scale/noise_scale", keep_inf=True), e.batch_size
    if scale is not None and batch:
        return np.maximum(0, medians(scale, keep_inf=True)) / batch
    theta = e.curve("gradient_tests/norm")  # s / ‖g‖, ‖g‖² = ‖G‖² + s²
    if theta is not None:
        share = np.minimum(medians(theta) ** 2, 1 - 1e-9)
        return share / (1 - share)
    return _from_consecutive(e)


def _from_consecutive(e: Evidence) -> np.ndarray | None:
    """s² / ‖G‖² from consecutive steps, such as for batches of one: they share their signal, E g_k·g_{k-1} = ‖G‖²."""
    sums, norm = e.curve("gradient_alignment/pflug"), e.norm
    # A gradient that turns looks like noise here, so larger batches need the readings of their examples.
    if sums is None or norm is None or e.steps < 40 or e.batch_size != 1:
        return None
    products = np.diff(sums, prepend=np.nan)
    segments = zip(*(np.array_split(x, min(SEGMENTS // 2, e.steps // 20)) for x in (products, norm**2)), strict=True)
    pairs = [(mean_of(p), mean_of(n)) for p, n in segments if np.isfinite(p).any() and np.isfinite(n).any()]
    if not pairs:
        return None
    found = np.array([(total - signal) / signal if signal > 0 else np.inf for signal, total in pairs])
    # The same number of segments as in the other curves, so that rules can compare them.
    count = min(SEGMENTS, e.steps)
    return np.maximum(0, found)[np.minimum(np.arange(count) * len(found) // count, len(found) - 1)]


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


def batch_size(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the batch is at most a fifth of the noise scale while the loss falls, or at least five times the scale.

    Source: McCandlish et al. 2018, eq. 2.11. Wrong if the full data are one batch: then its noise has no effect.
    """
    against, batch = noise_to_signal(e), e.batch_size
    if against is None or batch is None:
        for challenge in ("batch_too_small", "batch_too_large"):
            if batch is None and e.curve("gradient_noise_scale/noise_scale") is not None:
                verdict.unjudged[challenge] = "needs the batch size: log it with each step, as batch_size=64."
            else:
                verdict.needs(challenge, "gradtx.gradient_noise_scale(), with batch_size in the history")
        return []
    batch *= _steps_per_move(e)
    down = int(np.argmax(e.levels <= e.lowest + 0.2 * e.drop)) if e.drop > 0 else 0
    coming_down = against[: max(1, down * len(against) // max(1, len(e.levels)))]
    typical = _pooled(e, max(1, down * e.steps // max(1, len(e.levels))), coming_down)
    text = "Each step uses {:.0f} examples. Noise and signal are equal in batches of {} ({})."
    # Three standard errors of the difference of two medians: over the first segment, and over the last tenth.
    clear = e.is_falling or e.drop > 3 * 1.25 * e.scatter * ((SEGMENTS + 10) / len(e.known)) ** 0.5
    if typical > 5 and batch <= 16 and down >= 0.2 * len(e.levels) and not e.gradients_agree and clear:
        times = float(np.round(np.clip(typical / 2, 2, 8)))
        numbers = {"batch_size": batch, "noise_scale": typical * batch, "times": times}
        said = text.format(batch, number(typical * batch), "while the loss comes down")
        where = (0, down * e.steps // len(e.levels))
        return [finding("batch_too_small", said, numbers, where, "high")]
    typical = median_of(against[: max(1, len(against) // 2)], keep_inf=True)
    trace = late_median(e.curve("gradient_noise_scale/trace_covariance"), 1.0)
    # If the gradient turns from step to step, its signal is that of steps past the minimum.
    if typical < 0.2 and batch >= 32 and not s.turns and not trace <= 0 and batch * typical > 0.01:
        fewer = max(1.0, 2 ** np.round(np.log2(max(batch * typical, 1.0))))
        numbers = {"batch_size": batch, "noise_scale": typical * batch, "fewer": float(fewer)}
        said = text.format(batch, number(typical * batch), "in the first half of the run")
        return [finding("batch_too_large", said, numbers, (0, e.steps // 2), "high")]
    if np.isfinite(typical) and batch * typical > 0.01:
        said = text.format(batch, number(typical * batch), "in the first half of the run")
        verdict.rules_out("a batch too small or too large", said)
    return []


def _steps_per_move(e: Evidence) -> float:
    """Number of gradients that an accumulation averages, from the share of steps without an update."""
    moved = e.curve("update_ratio/global")
    still = 0.0 if moved is None else float(np.mean(finite(moved) == 0))
    return 1.0 if still < 0.4 or still > 0.999 else round(1 / (1 - still))


def _pooled(e: Evidence, steps: int, against: np.ndarray) -> float:
    """s² / ‖G‖² over the first steps as one ratio of sums, because single ratios of small batches may be up to inf."""
    trace = e.curve("gradient_noise_scale/trace_covariance")
    signal = e.curve("gradient_noise_scale/gradient_norm_squared")
    if trace is None or signal is None or not e.batch_size or not steps:
        return median_of(against, keep_inf=True)
    total = float(np.nansum(signal[:steps]))
    return float(np.nansum(trace[:steps])) / total / e.batch_size / _steps_per_move(e) if total > 0 else float("inf")
