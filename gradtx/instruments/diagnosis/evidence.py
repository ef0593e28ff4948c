"""The quantities of a run that the rules of the diagnosis use: its loss, its gradients, and the noise in them.

Nothing here depends on the zero or the unit of the loss. A change of the loss is compared with other changes of the
same loss: its scatter from step to step, or the gain of the run. Slow changes are judged by medians over segments
(`medians.py`), fast changes such as a spike by the curves themselves.
"""

from functools import cached_property
from typing import Any

import numpy as np

from .logs import read_log
from .medians import SEGMENTS, finite, late, late_median, mean_of, median_of, medians, scatter_of, segments_of


class Evidence:
    """The curves of one run, [steps] each, float64. A step without a value is NaN; a missing curve is None."""

    def __init__(self, history: Any) -> None:
        self.log = read_log(history)
        is_bad = ~np.isfinite(self.log.loss) & ~self.log.is_gap
        good = np.flatnonzero(np.isfinite(self.log.loss))
        self.bad_steps = np.flatnonzero(is_bad)
        last = int(good[-1]) if len(good) else -1
        # The run ends at the last finite loss if values that are not finite follow; gaps after it belong to the run.
        self.steps = last + 1 if is_bad[last + 1 :].any() else len(self.log.loss)
        self.steps = self.steps if len(good) else 0
        self.loss = np.where(np.isfinite(self.log.loss), self.log.loss, np.nan)[: self.steps]
        self.known = finite(self.loss)
        self.known_at = np.flatnonzero(np.isfinite(self.loss))

    def name(self, step: int) -> int:
        """The step number that the log gives to a row."""
        return int(self.log.step[min(step, len(self.log.step) - 1)])

    def curve(self, name: str, keep_inf: bool = False) -> np.ndarray | None:
        """The reading over the steps of the run; None if it is absent or was never finite (or, with `keep_inf`, a
        number).
        """
        found = self.log.curves.get(name)
        if found is None or found.ndim != 1:
            return None
        found = found[: self.steps]
        return found if (~np.isnan(found) if keep_inf else np.isfinite(found)).any() else None

    def whole(self, name: str) -> np.ndarray | None:
        """The reading over all steps, including those after the last finite loss; None if it is absent."""
        return self.log.curves.get(name)

    def vectors(self, name: str) -> np.ndarray | None:
        """A reading of several numbers per step, [steps, numbers]."""
        found = self.log.curves.get(name)
        return None if found is None or found.ndim != 2 else found[: self.steps]

    # The loss over the steps.

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
            return (float(half[0] - half[-1]), 0.0) if len(half) == 2 else (0.0, 0.0)
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

    # Gradients and the noise in them.

    @cached_property
    def norm(self) -> np.ndarray | None:
        """‖g‖ of each step."""
        return self.curve("gradient_norm/global")

    @cached_property
    def curvature(self) -> np.ndarray | None:
        """g'Hg / g'g of each step, signed."""
        gHg, norm = self.curve("curvature_ratio/gHg"), self.norm
        if gHg is not None and norm is not None:
            return np.where(norm > 0, gHg / norm / norm, np.nan)
        critical = self.curve("curvature_ratio/critical_learning_rate")
        return None if critical is None else 1 / critical

    @cached_property
    def batch_size(self) -> float | None:
        """Median examples per step."""
        sizes = self.curve("batch_size")
        return None if sizes is None else median_of(sizes)

    @cached_property
    def cosine(self) -> np.ndarray | None:
        """Cosine of consecutive gradients, or of consecutive steps if only the path is known."""
        found = self.curve("gradient_alignment/cosine")
        if found is not None or self.log.iterates is None:
            return found
        moves = np.diff(self.log.iterates[: self.steps + 1], axis=0)
        lengths = np.linalg.norm(moves, axis=1)
        cosines = (moves[1:] * moves[:-1]).sum(axis=1) / (lengths[1:] * lengths[:-1])
        return np.concatenate([[np.nan], cosines])

    @cached_property
    def noise_squared(self) -> np.ndarray | None:
        """s² = tr Σ / B of each step: the part of ‖g‖² that comes from the choice of the batch."""
        error, theta = self.curve("gradient_tests/standard_error"), self.curve("gradient_tests/norm")
        if error is not None:
            return error**2
        if theta is not None and self.norm is not None:
            return (theta * self.norm) ** 2
        return None

    @cached_property
    def gradients_agree(self) -> bool:
        """Whether consecutive gradients coincide. Then all steps see the same batch, and its noise has no effect.

        The cosine of two numbers is 1 or -1 whatever the noise is, but then its signs are random.
        """
        cosine = self.cosine
        if cosine is None:
            return False
        known = finite(cosine)
        flips = np.diff(np.sign(known)) != 0
        return len(known) > 0 and float(np.median(np.abs(known))) > 0.9 and not float(np.mean(flips)) > 0.3

    def signal_share(self, part: slice) -> float:
        """‖G‖² / ‖g‖² over some steps, from the measured noise; 1 if the noise has no effect, NaN if unknown."""
        noise, norm = self.noise_squared, self.norm
        if self.gradients_agree:
            return 1.0
        theta = self.curve("gradient_tests/norm")
        if norm is None and theta is not None:
            return 1 - mean_of(theta[part] ** 2)
        if noise is None or norm is None:
            return float("nan")
        total = mean_of(norm[part] ** 2)
        return 1 - mean_of(noise[part]) / total if total > 0 else float("nan")

    @property
    def resolution(self) -> int:
        """Number of segments in the search for flat places. There are more if there is no noise to average out."""
        noise = self.noise_squared
        if noise is not None and not self.gradients_agree:
            return int(np.clip(np.isfinite(noise).sum() // 4, 5, SEGMENTS))  # a few readings in each
        return SEGMENTS if self.scatter > 0.02 * self.drop else 10 * SEGMENTS

    @cached_property
    def signal_norms(self) -> np.ndarray | None:
        """‖G‖ over the segments: ‖g‖ without its noise if the noise is known; 0 at least."""
        if self.norm is None:
            return None
        noise = self.noise_squared
        if noise is None or self.gradients_agree:
            return medians(self.norm, count=self.resolution)
        found = []
        for part in segments_of(self.steps, self.resolution):
            total, taken = mean_of(self.norm[part] ** 2), mean_of(noise[part])
            found.append(np.sqrt(max(0.0, total - taken)) if np.isfinite(taken) else np.sqrt(total))
        return np.array(found)

    @cached_property
    def early_signal(self) -> float:
        """‖G‖ over the first tenth."""
        return self._signal(slice(0, max(1, self.steps // 10)))

    @cached_property
    def late_signal(self) -> float:
        """‖G‖ over the last quarter."""
        return self._signal(slice(self.steps - max(1, self.steps // 4), self.steps))

    def _signal(self, part: slice) -> float:
        if self.norm is None:
            return float("nan")
        share = self.signal_share(part)
        size = np.sqrt(mean_of(self.norm[part] ** 2))
        return float(size * np.sqrt(max(0.0, share))) if np.isfinite(share) else median_of(self.norm[part])

    @cached_property
    def has_late_signal(self) -> bool | None:
        """Whether ‖G‖² of the last half is above 0 by three standard errors; None if the noise is unknown."""
        if self.gradients_agree or self.noise_squared is None or self.norm is None:
            return None
        found = finite(late(self.norm**2 - self.noise_squared))
        return len(found) > 5 and float(found.mean()) > 3 * float(found.std()) / len(found) ** 0.5

    @cached_property
    def late_share(self) -> float:
        """The share of the signal in ‖g‖² over the last half."""
        return self.signal_share(slice(self.steps // 2, self.steps))

    @property
    def late_cosine(self) -> float:
        """Median cosine of consecutive gradients over the last half."""
        return late_median(self.cosine)

    @cached_property
    def is_lost_in_noise(self) -> bool:
        """Whether the late gradients are mostly noise: steps, or the examples of a batch, have little in common."""
        if self.gradients_agree:
            return False
        return bool(self.late_share < 0.25 or (np.isnan(self.late_share) and abs(self.late_cosine) < 0.15))

    @property
    def has_layers(self) -> bool:
        """Whether the model has layers that gradients pass through. A function of a vector has none."""
        return self.log.iterates is None
