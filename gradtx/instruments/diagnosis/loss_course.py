"""The loss of a run, step by step, and what it did: where it started and ended, how far it fell, how much it scatters.

Nothing here depends on the zero or the unit of the loss. A change of the loss is compared with other changes of the
same loss: its scatter from step to step, or the gain of the run. Slow changes are judged by medians over segments
(`medians.py`), fast changes such as a spike by the curves themselves.
"""

from functools import cached_property
from typing import Any

import numpy as np

from .logs import read_log
from .medians import SEGMENTS, finite, late, median_of, medians, scatter_of


class LossCourse:
    """The curves of one run, and the quantities of its loss."""

    def __init__(self, history: Any) -> None:
        self.log = read_log(history)
        is_known = np.isfinite(self.log.loss)
        self.is_bad = ~is_known & ~self.log.is_gap
        end = int(np.max(np.flatnonzero(is_known), initial=-1)) + 1
        # The run ends at the last finite loss if values that are not finite follow; gaps after it belong to the run.
        self.steps = end if end == 0 or self.is_bad[end:].any() else len(self.log.loss)
        self.loss = np.where(is_known, self.log.loss, np.nan)[: self.steps]
        self.known = finite(self.loss)

    def name(self, step: int) -> int:
        """The step number that the log gives to a row."""
        return int(self.log.step[min(step, len(self.log.step) - 1)])

    def curve(self, name: str, keep_inf: bool = False) -> np.ndarray | None:
        """The reading over the steps of the run; None if it was never finite (with `keep_inf`: never a number)."""
        found = self.whole(name)
        if found is None:
            return None
        found = found[: self.steps]
        return found if (~np.isnan(found) if keep_inf else np.isfinite(found)).any() else None

    def whole(self, name: str) -> np.ndarray | None:
        """The reading over all steps, including those after the last finite loss; None if it is absent."""
        found = self.log.curves.get(name)
        return None if found is None or found.ndim != 1 else found

    def vectors(self, name: str) -> np.ndarray | None:
        """A reading of several numbers per step, [steps, numbers]."""
        found = self.log.curves.get(name)
        return None if found is None or found.ndim != 2 else found[: self.steps]

    @cached_property
    def levels(self) -> np.ndarray:
        """Median loss of each segment of the known losses."""
        return medians(self.known)

    @cached_property
    def start(self) -> float:
        """The first loss; or the level of the first few, if that is higher by no more than their noise.

        Steps of a ratio below 1/2 lower the loss, so the level of the first few is no higher than that of the start. A
        first loss below it is low by chance.
        """
        first, ratio = self.known[: self._first_ones], self.curve("curvature_ratio/ratio")
        sizes = np.array([np.nan]) if ratio is None else np.abs(ratio[: self._first_ones])
        if len(self.known) < 20 or not (sizes[0] < 0.5 and median_of(sizes) < 0.5):
            return float(first[0])
        # Second differences have no trend in them; those of independent values have six times their variance.
        noise = 1.4826 * float(np.median(np.abs(np.diff(first, 2)))) / 6**0.5
        level = float(np.median(first))
        return level if 0 < level - first[0] <= 3 * noise else float(first[0])

    @property
    def _first_ones(self) -> int:
        return max(5, len(self.known) // SEGMENTS)

    @cached_property
    def end(self) -> float:
        """Median loss of the last tenth."""
        return median_of(late(self.known, 0.1))

    @cached_property
    def lowest(self) -> float:
        """The lowest level, with two standard errors of a median added: the lowest of many is low by chance."""
        each = max(1, len(self.known) // SEGMENTS)
        error = 1.25 * self.scatter / each**0.5
        return float(min(self.levels.min() + 2 * error, self.end))

    @property
    def highest(self) -> float:
        """The highest loss."""
        return float(self.known.max())

    @cached_property
    def drop(self) -> float:
        """The fall from the first loss to the lowest level, >= 0."""
        return max(0.0, self.start - self.lowest)

    @cached_property
    def scatter(self) -> float:
        """Standard deviation of the loss about its trend in the last half."""
        half = late(self.known)
        return 0.0 if len(half) < 4 else scatter_of(half)

    @cached_property
    def _late_line(self) -> tuple[float, float]:
        """The fall of the line through the segments of the last half, and the standard error of this fall."""
        half = self.levels[len(self.levels) // 2 :]
        if len(half) < 3:
            return float(half[0] - half[-1]), 0.0
        t = np.arange(len(half)) - (len(half) - 1) / 2
        slope = float(t @ half / (t @ t))
        unexplained = half - half.mean() - slope * t
        error = float(np.sqrt(unexplained @ unexplained / (len(half) - 2) / (t @ t)))
        return -slope * (len(half) - 1), error * (len(half) - 1)

    @property
    def late_fall(self) -> float:
        """The fall of the loss over the last half, by the line through its segments."""
        return self._late_line[0]

    @cached_property
    def is_falling(self) -> bool:
        """Whether the loss falls in the last half by more than its scatter explains."""
        error = max(self._late_line[1], self.scatter * (12 / max(1, len(self.known) // 2)) ** 0.5)
        return self.late_fall > 2 * error and self.late_fall > 1e-3 * self.drop

    @cached_property
    def is_quiet(self) -> bool:
        """Whether the loss of the last half moves by less than a hundredth of the run's gain."""
        half = late(self.levels)
        return self.scatter + float(half.max() - half.min()) < 0.01 * self.drop

    @cached_property
    def came_down(self) -> bool:
        """Whether the late levels are below the first one by more than their scatter."""
        half = self.levels[len(self.levels) // 2 :]
        middle, spread = float(np.median(half)), float(np.std(half))
        is_below = self.levels[0] > middle and self.start - middle > 1.5 * self.scatter
        return bool(self.levels[0] - middle > 3 * spread or self.start - middle > 5 * self.scatter or is_below)

    @cached_property
    def rose(self) -> bool:
        """Whether the run ended above its first loss by more than the scatter of single losses.

        A first loss may be low by chance, so the run has to end above the first few too, unless it was thrown.
        """
        is_above = self.end - self.start > 3 * self.scatter + 1e-6 * abs(self.end - self.lowest)
        first_few = float(np.median(self.known[: self._first_ones]))
        return is_above and (self.end - first_few > self.scatter or self.was_thrown)

    @cached_property
    def gained_nothing(self) -> bool:
        """Whether the run ended no lower than it started, by more than the scatter explains."""
        return self.end >= self.start - max(self.scatter, 0.02 * (self.highest - self.start))

    @cached_property
    def was_thrown(self) -> bool:
        """Whether a segment lies far above the start: by more than five times the scatter and more than the gain."""
        rise = float(self.levels.max()) - self.start
        return rise > max(5 * self.scatter, self.drop) and rise > 0
