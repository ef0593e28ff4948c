"""The steps that a run took: their length relative to the curvature they met, and whether they turned.

The ratio r of a step u is -u'Hu / (2 g'u): the step is expected to change the loss by g'u (1 - r). `gradtx.observed`
measures it for every method. `gradtx.panel` and `gradtx.curvature_ratio` measure ε g'Hg / (2 g'g), which is r only if
the step is -εg. The numbers in a log show which of the two it holds: the panel's ratio is its curvature times a smooth
ε/2. The update ratio shows whether the steps were -εg: then ε‖g‖ over ‖Δθ‖/‖θ‖ is the length of the parameters, which
cannot change in one step by more than the length of the step (the triangle inequality).

**Source**: Goodfellow et al. 2016, eq. 8.10, along the step that is taken.
"""

from functools import cached_property

import numpy as np

from .evidence import Evidence
from .medians import finite, late, late_median, mean_of, median_of, shrinkage


class StepsTaken:
    """The steps of one run."""

    def __init__(self, evidence: Evidence) -> None:
        self.e = evidence

    @cached_property
    def learning_rates(self) -> np.ndarray | None:
        """ε of each step, from the log or from the panel's ratio."""
        told = self.e.curve("learning_rate")
        return told if told is not None else self._implied

    @cached_property
    def _implied(self) -> np.ndarray | None:
        """2 r / c if it is constant or smooth, as for the panel's ratio, otherwise None."""
        ratio, curvature = self.e.curve("curvature_ratio/ratio"), self.e.curvature
        if ratio is None or curvature is None:
            return None
        rates = 2 * ratio / curvature
        rates = np.where(np.isfinite(rates) & (rates > 0), rates, np.nan)
        if np.isfinite(rates).sum() < 0.5 * np.isfinite(ratio).sum():
            return None
        jumps = np.abs(np.diff(np.log(finite(rates))))
        told = self.e.curve("learning_rate")
        if told is not None and len(jumps):
            off = np.abs(np.log(rates / told))
            return rates if float(np.nanpercentile(off, 75)) < 0.1 else None
        return rates if len(jumps) == 0 or float(np.percentile(jumps, 75)) < 0.03 else None

    @cached_property
    def is_plain(self) -> bool | None:
        """Whether the steps are -εg; None if unknown."""
        rates, norm, moved = self.learning_rates, self.e.norm, self.e.curve("update_ratio/global")
        if rates is None or norm is None or moved is None:
            return None
        found = [self._fits(rates, norm, moved, shift) for shift in (0, 1)]
        known = [x for x in found if x is not None]
        return None if not known else any(known)

    def _fits(self, rates: np.ndarray, norm: np.ndarray, moved: np.ndarray, shift: int) -> bool | None:
        """Like `is_plain`, with the update ratio of its own step (`shift` 0), or of the step before (1, the panel)."""
        steps = self.e.steps
        moved = moved[shift:]
        length = (rates * norm)[: steps - shift] / moved
        good = np.isfinite(length) & (length > 0) & (moved < 0.5)
        if good.sum() < 5:
            return None
        jumps, allowed = np.abs(np.diff(np.log(length[good]))), 2.5 * moved[good][1:] + 0.02
        drift = abs(np.log(median_of(late(length[good], 0.1)) / length[good][0]))
        is_smooth = float(np.mean(jumps < allowed)) > 0.8
        return bool(is_smooth and drift < 3 * float(np.sum(moved[good])) + 0.1)

    @cached_property
    def ratio(self) -> np.ndarray | None:
        """r of each step that was taken. None if it was not measured, or only for steps -εg that were not taken."""
        ratio, is_of_plain_steps = self.e.curve("curvature_ratio/ratio"), self._implied is not None
        if ratio is None and self.learning_rates is not None and self.e.curvature is not None:
            ratio, is_of_plain_steps = self.learning_rates * self.e.curvature / 2, True
        return None if is_of_plain_steps and self.is_plain is False else ratio

    @property
    def may_be_plain(self) -> bool:
        """Whether momentum can be added: the steps are -εg, or nothing contradicts it.

        If the rate that follows from the steps grows from the first step on, the steps have momentum already.
        """
        if self.is_plain is False:
            return False
        ratio = self.e.curve("curvature_ratio/ratio")
        if self.e.curve("learning_rate") is not None or ratio is None or self.e.curvature is None:
            return True
        rates = self._implied
        if rates is None:
            return False
        known = finite(rates)
        return float(np.max(known[: max(5, len(known) // 10)])) < 1.3 * float(known[0])

    @cached_property
    def typical(self) -> float:
        """Median r over the last half; NaN if unknown."""
        return late_median(self.ratio)

    def way(self, first: int = 0) -> float:
        """Σ 2|r| from step `first` on: the steps, each in units of the predicted distance to the minimum along it."""
        if self.ratio is None:
            return float("nan")
        sizes = np.abs(self.ratio[first:])
        return 2 * mean_of(np.minimum(finite(sizes), 5)) * len(sizes)

    @cached_property
    def turns(self) -> bool:
        """Whether the gradient turns from one step to the next by more than its noise explains.

        Two gradients of independent batches at one point have a cosine of about ‖G‖² / ‖g‖², the share of the signal.
        A cosine far below that share means that G has changed its direction within one step.
        """
        share, cosine = self.e.late_share, self.e.late_cosine
        return bool(cosine < -0.5 or (share > 0.4 and cosine < 0.5 * share and not self.e.gradients_agree))

    @cached_property
    def shrank(self) -> float:
        """The factor by which late steps are shorter than early ones, apart from changes of the gradient's size."""
        sizes = self.learning_rates
        if sizes is None and self.e.norm is not None:
            sizes = self.e.curve("update_ratio/global")
        return 1.0 if sizes is None else shrinkage(sizes)
