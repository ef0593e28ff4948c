"""Rule on gradients that leap: cliffs and exploding gradients.

A *leap* is a gradient of ten times the previous norms or more (Pascanu, Mikolov & Bengio 2013 clip at half to ten times
the usual norm, so more than ten times is not usual). The step before it shows the cause:

- The step was short for the curvature it met (|r| < 1), and the gradient grew as a high power of the parameters'
  length, so that neither the local model nor the length of the step predicted the leap: a cliff.
- The step was long (|r| >= 1), and the gradient grew as a high power of the parameters' length: exploding gradients,
  which come from products of many factors. A loss that is a polynomial of degree p has a gradient of degree p - 1, so a
  step to q times the length gives at most about q^(p-1) times the gradient.
- The step was long, and the gradient grew as an ordinary function does: the learning rate is too high (`too_high.py`).

A leap does no harm if the length of the next update is usual: then the gradient is already clipped.
"""

from typing import NamedTuple

import numpy as np

from .evidence import Evidence
from .medians import finite, median_of, medians, scatter_of, segments_of
from .report import Finding, Verdict, finding, number
from .steps_taken import StepsTaken

_POWER = 4.5  # power of the parameters' length above which many factors multiply; squares and quartics have 1 to 3
_WALL = 20  # power above which the length of the step does not explain the leap
_FAR = 10  # ratio r above which a badly chosen learning rate alone does not explain the step


class Leap(NamedTuple):
    """A leap of the gradient, and the step that led to it."""

    at: int
    before: float  # the usual norm before the leap
    norm: float  # the norm of the leap
    ratio: float  # |r| of the steps that led to it; NaN if unknown
    power: float  # power of the parameters' length by which the norm grew; NaN if unknown
    reach: float  # distance to the minimum along that step, over the parameters' length; NaN if unknown
    came_back: bool  # whether the norm grew more than on a usual parabola, and then fell below its value before
    is_calm: bool  # whether a part of the run passed without a leap before it

    @property
    def kind(self) -> str:
        """One of cliff, exploding_gradients or learning_rate_too_high."""
        is_known = not np.isnan(self.ratio)
        is_ordinary = self.power <= _POWER  # the length of the step explains the leap
        if (self.ratio < 1 and not is_ordinary) or (self.power > _WALL and self.ratio < _FAR):
            return "cliff"
        if not is_known and (self.is_calm or self.came_back) and not is_ordinary:
            return "cliff"
        is_far = not is_known or (self.ratio >= _FAR and not self.reach > 0.05)
        return "exploding_gradients" if self.power > _POWER and is_far else "learning_rate_too_high"


def leaps_of(e: Evidence, s: StepsTaken) -> list[Leap]:
    """All leaps of the run, in order."""
    norm = e.whole("gradient_norm/global")
    if norm is None or not e.steps:
        return []
    norm = norm[: e.steps + 1]
    known = finite(norm[norm > 0])
    if len(known) < 2:
        return []
    floor = 3 * np.percentile(known, 95) if len(known) >= 40 else 0.0
    found = []
    for k in map(int, 1 + np.flatnonzero((np.isfinite(norm) & (norm >= floor))[1:])):
        before = norm[max(0, k - 20) : k]
        before = finite(before[before > 0])
        if not len(before):
            continue
        first = norm[: max(3, k // 2)]
        if before[-1] > 100 * median_of(first[first > 0]):
            break  # the run has already gone wrong
        has_leapt = norm[k] >= 10 * np.median(before) and norm[k] >= 5 * before[-1]
        if has_leapt and _is_lost(e, k):
            break
        if has_leapt and not (_is_clipped(e, k) or _is_of_noise(e, k)):
            found.append(_leap(e, s, norm, k, float(np.median(before))))
    return found


def _is_lost(e: Evidence, k: int) -> bool:
    """Whether the losses before step k lie far above the first one and do not fall: a cliff is met on the way down.

    Far is more than their error, and more than the run had gained.
    """
    before = finite(e.loss[max(0, k - 20) : k])
    if len(before) < 8:
        return False
    error = 1.25 * scatter_of(before) / (len(before) / 2) ** 0.5  # of the median of one half
    first, last = median_of(before[: len(before) // 2]), median_of(before[len(before) // 2 :])
    gained = max(0.0, e.start - float(np.nanmin(e.loss[:k])))
    return median_of(before) - e.start > max(gained, 3 * error) and first - last < 2 * 2**0.5 * error


def _is_of_noise(e: Evidence, k: int) -> bool:
    """Whether noise is most of the gradient at step k: then single examples made it leap, and not the place."""
    noise = e.noise_squared
    return noise is not None and k < len(noise) and bool(noise[k] > 0.5 * e.norm[k] ** 2)  # pyright: ignore[reportOptionalSubscript]


def _is_clipped(e: Evidence, k: int) -> bool:
    """Whether the update from step k on is known, and at most 1.5 times as long as the longest of 20 steps before.

    The panel knows an update one step later than `observed`, so that both steps have to be short.
    """
    moved = e.whole("update_ratio/global")
    if moved is None or k + 1 >= len(moved):
        return False
    before = finite(moved[max(0, k - 20) : k])
    # NaN is not below anything.
    return bool(len(before) and float(np.max(moved[k : k + 2])) <= 1.5 * float(np.max(before)))


def _leap(e: Evidence, s: StepsTaken, norm: np.ndarray, k: int, before: float) -> Leap:
    ratio = float("nan")
    if s.ratio is not None:
        sizes = np.abs(s.ratio[max(0, k - 2) : k])
        ratio = float(np.nanmax(sizes)) if np.isfinite(sizes).any() else ratio
    moved, power, reach = e.whole("update_ratio/global"), float("nan"), float("nan")
    if moved is not None:
        # The panel reports the update ratio one step late, so its first is NaN; `observed` reports it at its own step.
        own = moved[k] if np.isnan(moved[0]) else moved[k - 1]
        candidates = [x for x in ([own] if np.isfinite(own) else moved[k - 1 : k + 1]) if not np.isnan(x)]
        if candidates:
            shortest = min(candidates)
            power = float(np.log(norm[k] / norm[k - 1]) / np.log1p(shortest)) if shortest > 0 else float("inf")
            reach = float(shortest / (2 * ratio)) if ratio > 0 else reach
    # On a parabola a step of ratio r makes the gradient 2 r - 1 times as long.
    grew = norm[k] / norm[k - 1] >= 10 * _FAR
    after = norm[k + 1 : k + 21]
    came_back = bool(grew and len(after) >= 5 and np.nanmedian(after) < before)
    return Leap(k, before, float(norm[k]), ratio, power, reach, came_back, k >= max(10, 0.03 * len(e.log.loss)))


def leaps(e: Evidence, s: StepsTaken, verdict: Verdict) -> list[Finding]:
    """True if the gradient leaps after a short step (a cliff), or grows as a high power of the parameters (explodes).

    Source: Pascanu, Mikolov & Bengio 2013, §2.3. Wrong if the norm leaps because of one example's value: then the
    noise scale leaps with it. A leap that is clipped before it moves the parameters does not count.
    """
    norm = e.norm
    if norm is None:
        verdict.needs("cliff", "gradtx.gradient_norm()")
        verdict.needs("exploding_gradients", "gradtx.gradient_norm()")
        return []
    found = leaps_of(e, s)
    if not found:
        largest = float(np.nanmax(norm)) / max(float(np.nanmedian(norm)), 1e-300)
        if largest < 5:
            verdict.rules_out("cliff", f"the largest gradient is {largest:.2g} times the usual one.")
        return _growth(e, s, norm)
    if found[0].kind == "learning_rate_too_high":
        return []  # leaps after a step that was far too long are its consequences
    told = [leap for leap in found if leap.kind != "learning_rate_too_high"]
    return [_cliff(e, norm, told) if told[0].kind == "cliff" else _explosion(e, told[0])]


def _cliff(e: Evidence, norm: np.ndarray, told: list[Leap]) -> Finding:
    first, last = told[0], told[-1]
    usual = median_of(norm[: first.at])
    highest = max(leap.norm for leap in told)
    text = (
        f"At step {e.name(first.at)} the gradient norm leaps to {number(highest)}, {number(highest / first.before)} "
        f"times the usual {number(first.before)}."
    )
    is_known = not np.isnan(first.ratio)
    if is_known:
        text += f" The step before was not too long for the curvature (r = {first.ratio:.2g})."
    steps = len(e.log.loss)
    numbers = {"spikes": len(told), "height": highest, "usual_norm": usual, "limit": usual, "steps": steps}
    is_sure = is_known and len(told) < max(3, 0.02 * e.steps)
    return finding("cliff", text, numbers, (first.at, last.at), "high" if is_sure else "medium")


def _explosion(e: Evidence, leap: Leap) -> Finding:
    text = (
        f"At step {e.name(leap.at)} the gradient norm goes from {number(leap.before)} to {number(leap.norm)}. "
        f"It grows like the parameters' length to the power {number(leap.power)}, as products of many factors do."
        if np.isfinite(leap.power)
        else f"At step {e.name(leap.at)} the gradient norm grows from {number(leap.before)} to {number(leap.norm)}."
    )
    limit = leap.before * (0.1 / leap.ratio if leap.ratio > 1 else 1.0)
    numbers = {"leap": leap.norm / leap.before, "usual_norm": leap.before, "limit": limit}
    return finding("exploding_gradients", text, numbers, (leap.at, e.steps - 1), "high")


def _growth(e: Evidence, s: StepsTaken, norm: np.ndarray) -> list[Finding]:
    """A finding if the norm grows a hundred times and the loss rises with it, although no step was too long."""
    parts = medians(norm)
    lowest, highest = int(np.nanargmin(parts)), int(np.nanargmax(parts))
    grew = parts[highest] / max(parts[lowest], 1e-300)
    rises = float(np.nanmax(medians(e.loss)[highest:])) > e.start and e.rose
    is_short = s.ratio is not None and float(np.nanmax(np.abs(s.ratio))) < 1
    if highest <= lowest or grew < 100 or not rises or not is_short or e.late_cosine < -0.5:
        return []
    text = (
        f"The gradient norm grew by a factor of {number(grew)}, from {number(parts[lowest])} to "
        f"{number(parts[highest])}, and the loss rose with it."
    )
    edges = segments_of(e.steps)
    limit = median_of(norm[: edges[lowest].stop])
    numbers = {"growth": grew, "usual_norm": limit, "limit": limit}
    return [finding("exploding_gradients", text, numbers, (edges[lowest].start, edges[highest].stop - 1), "high")]
