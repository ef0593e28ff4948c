"""Rule on the size of the batch: whether it fits the noise.

Noise s² = tr Σ / B over signal ‖G‖² is B_simple / B, the noise scale over the batch size. With B = m B_simple a run
takes 1 + 1/m times the fewest steps and 1 + m times the fewest examples that reach a loss (McCandlish et al. 2018, eq.
2.11). So a batch is *too small* at m < 1/5 (six times the steps) and *too large* at m > 5 (six times the examples).
The first is judged while the loss comes down by four fifths of its fall, the second over the first half of the run:
towards the end the signal vanishes, and every batch is too small.
"""

import numpy as np

from .evidence import Evidence
from .medians import SEGMENTS, finite, late_median, mean_of, median_of, medians
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken


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
