"""A run as the rules of the diagnosis ask for it: clean curves, and the few numbers that all of them need.

Slow things are judged on stretches (`medians.py`), quick things (a spike) are looked for in the curves themselves.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from .medians import late_median, medians


class Evidence:
    """The curves of one run, [n] each, float64; NaN where nothing was measured, None where there is no such curve."""

    def __init__(self, history: Any) -> None:
        curves = _curves(history)
        loss = curves.pop("loss", None)
        if loss is None or loss.ndim != 1 or not len(loss):
            shape = None if loss is None else loss.shape
            raise ValueError(
                f"diagnose: history must hold loss, an array [steps], got {'none' if shape is None else shape}."
            )
        self.all_loss = loss
        bad = ~np.isfinite(loss)
        self.steps = int(np.argmax(bad)) if bad.any() else len(loss)  # of which the loss is finite
        self.loss = loss[: self.steps]
        self._curves = {}
        for name, curve in curves.items():
            if curve.ndim and len(curve) != len(loss):
                raise ValueError(f"diagnose: {name} must have one value a step, {len(loss)}, got shape {curve.shape}.")
            self._curves[name] = np.broadcast_to(curve, (len(loss), *curve.shape[1:]))
        self.diverged_at = int(getattr(history, "diverged_at", -1))
        iterates = history.get("iterates") if isinstance(history, Mapping) else getattr(history, "iterates", None)
        self.iterates = None if iterates is None else np.asarray(iterates, float)

    def curve(self, name: str) -> np.ndarray | None:
        """The reading over the steps of finite loss; None where it is absent or was never measured."""
        found = self._curves.get(name)
        if found is None or found.ndim != 1:
            return None
        found = found[: self.steps]
        return found if np.isfinite(found).any() else None

    def whole(self, name: str) -> np.ndarray | None:
        """The reading over all steps, those too whose loss is not finite; None where it is absent."""
        return self._curves.get(name)

    def vectors(self, name: str) -> np.ndarray | None:
        """A reading of several numbers a step, [n, numbers]."""
        found = self._curves.get(name)
        return None if found is None or found.ndim != 2 else found[: self.steps]

    def stretches(self, name: str) -> np.ndarray | None:
        """Medians of a reading over the stretches of the run; NaN where it was not measured."""
        found = self.curve(name)
        return None if found is None else medians(found)

    def stretches_with_inf(self, name: str) -> np.ndarray | None:
        """The same of a reading that may say inf and mean it."""
        found = self._curves.get(name)
        if found is None or found.ndim != 1 or np.isnan(found[: self.steps]).all():
            return None
        return medians(found[: self.steps], keep_inf=True)

    @cached_property
    def levels(self) -> np.ndarray:
        """Median loss of each stretch."""
        return medians(self.loss)

    @property
    def start(self) -> float:
        """The first loss."""
        return float(self.loss[0])

    @cached_property
    def end(self) -> float:
        """Median loss of the last tenth."""
        return float(np.median(self.loss[-max(1, self.steps // 10) :]))

    @cached_property
    def drop(self) -> float:
        """From the first loss to the lowest level, >= 0."""
        return max(0.0, self.start - float(self.levels.min()))

    @cached_property
    def scatter(self) -> float:
        """Standard deviation of the loss about its course in the last half, from differences of neighbours."""
        half = self.loss[self.steps // 2 :]
        return 0.0 if len(half) < 4 else 1.4826 * float(np.median(np.abs(np.diff(half)))) / 2**0.5

    @cached_property
    def _late_line(self) -> tuple[float, float]:
        """By how much the line through the stretches of the last half falls, and the standard error of that."""
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
        """How far the loss fell over the last half, by the line through its stretches."""
        return self._late_line[0]

    @cached_property
    def is_falling(self) -> bool:
        """Whether the loss falls in the last half by more than its scatter explains."""
        error = max(self._late_line[1], self.scatter * (12 / max(1, self.steps // 2)) ** 0.5)
        return self.late_fall > 2 * error and self.late_fall > 0.01 * max(self.drop, 1e-12 * abs(self.start))

    @cached_property
    def has_arrived(self) -> bool:
        """Whether a loss that cannot be negative has all but gone."""
        return bool((self.loss >= 0).all() and self.start > 0 and self.end < 0.1 * self.start)

    @cached_property
    def norm(self) -> np.ndarray | None:
        """‖g‖ of each step."""
        return self.curve("gradient_norm/global")

    @cached_property
    def curvature(self) -> np.ndarray | None:
        """g'Hg / g'g of each step, signed."""
        gHg, norm = self.curve("curvature_ratio/gHg"), self.norm
        if gHg is not None and norm is not None:
            with np.errstate(all="ignore"):
                return np.where(norm > 0, gHg / norm**2, np.nan)
        critical = self.curve("curvature_ratio/critical_learning_rate")
        return None if critical is None else 1 / critical

    @cached_property
    def learning_rate(self) -> float | None:
        """The rate of the last half, told or read off the curvature ratio."""
        told = self.curve("learning_rate")
        if told is not None:
            return float(np.nanmedian(told[self.steps // 2 :]))
        ratio = self.curve("curvature_ratio/ratio")
        if ratio is None or self.curvature is None:
            return None
        with np.errstate(all="ignore"):
            rates = 2 * ratio / self.curvature
        rates = rates[self.steps // 2 :]
        rates = rates[np.isfinite(rates) & (rates > 0)]
        return float(np.median(rates)) if len(rates) else None

    @cached_property
    def batch_size(self) -> float | None:
        """Median examples a step."""
        sizes = self.curve("batch_sizes")
        sizes = self.curve("batch_size") if sizes is None else sizes
        return None if sizes is None else float(np.nanmedian(sizes))

    @cached_property
    def cosine(self) -> np.ndarray | None:
        """Cosine of consecutive gradients; of consecutive steps where only the path is known."""
        found = self.curve("gradient_alignment/cosine")
        if found is not None or self.iterates is None:
            return found
        moves = np.diff(self.iterates[: self.steps + 1], axis=0)
        lengths = np.linalg.norm(moves, axis=1)
        with np.errstate(all="ignore"):
            cosines = (moves[1:] * moves[:-1]).sum(axis=1) / (lengths[1:] * lengths[:-1])
        return np.concatenate([[np.nan], cosines])

    @cached_property
    def gradients_agree(self) -> bool:
        """Whether consecutive gradients all but coincide late in the run: then noise, of whatever size, is not felt.

        A full batch has per-example noise as any batch has, and yet none.
        """
        return late_median(self.cosine) > 0.8

    @property
    def has_layers(self) -> bool:
        """Whether gradients pass through anything on their way: a landscape is one point."""
        return self.iterates is None


def _curves(history: Any) -> dict[str, np.ndarray]:
    if isinstance(history, Mapping):
        given = dict(history)
        given |= given.pop("readings", {}) or {}
    elif hasattr(history, "loss") and hasattr(history, "readings"):
        given = {"loss": history.loss, **history.readings}
        if getattr(history, "batch_sizes", None) is not None:
            given["batch_sizes"] = history.batch_sizes
    else:
        raise TypeError(
            "diagnose: history must be a lab.History or a dict of arrays such as {'loss': [steps], "
            f"'gradient_norm/global': [steps]}}, got {type(history).__name__}."
        )
    known = {}
    for name, value in given.items():
        if name == "loss" or "/" in name or name in ("batch_sizes", "batch_size", "learning_rate"):
            known[name] = _numbers(name, value)
    return known


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, None if np.iscomplexobj(value) else float).astype(float, casting="safe")
    except (TypeError, ValueError):
        raise TypeError(f"diagnose: {name} must be an array of numbers, got {type(value).__name__}.") from None
