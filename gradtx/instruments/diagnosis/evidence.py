"""The gradients of a run and the noise in them. As for the loss (`loss_course.py`), nothing depends on the unit."""

from functools import cached_property

import numpy as np

from .loss_course import LossCourse
from .medians import SEGMENTS, finite, late, late_median, mean_of, median_of, medians, segments_of


class Evidence(LossCourse):
    """The curves of one run, [steps] each, float64. A step without a value is NaN; a missing curve is None."""

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
        """s² = tr Σ / B of each step: the part of ‖g‖² that comes from the choice of the batch.

        None if it is unknown, or has no effect because consecutive gradients coincide.
        """
        error, theta = self.curve("gradient_tests/standard_error"), self.curve("gradient_tests/norm")
        if self.gradients_agree:
            return None
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
        if noise is not None:
            return int(np.clip(np.isfinite(noise).sum() // 4, 5, SEGMENTS))  # a few readings in each
        return SEGMENTS if self.scatter > 0.02 * self.drop else 10 * SEGMENTS

    @cached_property
    def signal_norms(self) -> np.ndarray | None:
        """‖G‖ over the segments: ‖g‖ without its noise if the noise is known; 0 at least."""
        if self.norm is None:
            return None
        noise = self.noise_squared
        if noise is None:
            return medians(self.norm, count=self.resolution)
        found = []
        for part in segments_of(self.steps, self.resolution):
            total, taken = mean_of(self.norm[part] ** 2), mean_of(noise[part])
            found.append(np.sqrt(max(0.0, total - taken)) if np.isfinite(taken) else np.sqrt(total))
        return np.array(found)

    @cached_property
    def has_late_signal(self) -> bool | None:
        """Whether ‖G‖² of the last half is above 0 by three standard errors; None if no noise is known."""
        if self.noise_squared is None or self.norm is None:
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
        return bool(self.late_share < 0.25 or (np.isnan(self.late_share) and abs(self.late_cosine) < 0.15))

    @property
    def has_layers(self) -> bool:
        """Whether the model has layers that gradients pass through. A function of a vector has none."""
        return self.log.iterates is None
