"""The result of a learning-rate range test, and how it follows from the numbers of the run's steps."""

from typing import NamedTuple

import numpy as np

from .lr_range_run import Run


class RangeTest(NamedTuple):
    """The result of `lr_range_test`. Printing it gives a sentence."""

    learning_rates: np.ndarray  # [steps] ε_i
    losses: np.ndarray  # [steps] the loss after the step with that rate; NaN from the step that ended the run
    steepest: float  # learning rate; NaN if it could not be found (see `remark`)
    divergence: float  # learning rate; inf if it did not diverge
    minimum: float  # learning rate; NaN if the first step ended the run, or no step changed the loss
    remark: str = ""  # why `steepest` is NaN, and what to do

    def __str__(self) -> str:
        steepest = f"steepest at {self.steepest:.3g}" if np.isfinite(self.steepest) else "no steepest rate"
        minimum = f", lowest at {self.minimum:.3g}" if np.isfinite(self.minimum) else ""
        diverges = f"diverges from {self.divergence:.3g}" if np.isfinite(self.divergence) else "does not diverge"
        return f"{steepest}{minimum}, {diverges}{self.remark and f': {self.remark}'}"


def concluded(rates: np.ndarray, run: Run, smooth: float, first: int, last: int) -> RangeTest:
    """The result of a run over these rates; `smooth`, `first` and `last` as in `lr_range_test`."""
    is_kept = run.taken & ~run.diverged
    # A step without an update does not test its rate, so only the steps that moved the parameters count.
    at = np.flatnonzero(run.taken & run.moved)
    losses = np.where(np.isfinite(run.loss), run.loss, np.nan).astype(float)
    width = smooth * len(rates) * len(at) / max(1, int(run.taken.sum()))
    # The loss that ended the run enters the mean of its neighbours, but is not a candidate itself.
    smoothed = np.where(is_kept[at], _smoothed(losses[at], width), np.inf)
    falls = _smoothed(np.where(np.isnan(losses), np.nan, run.fall)[at], width)
    is_seen = bool(is_kept[at].any()) and bool(np.any(run.fall[at] != 0))
    lowest_at = int(np.argmin(smoothed)) if is_seen else 0
    start = int(np.searchsorted(at, first))
    stop = min(lowest_at + 1, int(np.searchsorted(at, int(is_kept.sum()) - last)))
    has_steepest = is_seen and start < stop
    return RangeTest(
        learning_rates=rates,
        losses=np.where(is_kept, losses, np.nan),
        steepest=float(rates[at][start + np.argmax(falls[start:stop])]) if has_steepest else float("nan"),
        divergence=_divergence(rates[at], run, at),
        minimum=float(rates[at][lowest_at]) if is_seen else float("nan"),
        remark="" if has_steepest else _remark(run, at, int(is_kept.sum()), first, last),
    )


def _remark(run: Run, at: np.ndarray, kept: int, first: int, last: int) -> str:
    """Why no rate is the steepest, and what to do."""
    if not run.taken.any() or kept == 0:
        return "the first step ended the run; start with a lower rate"
    if len(at) == 0:
        return "no step moved the parameters; take more steps than the transformation waits for"
    if not np.any(run.fall[at] != 0):
        if not np.any(run.slope[at] != 0):
            return "the gradient is 0 at every step; start elsewhere, and see that value_fn uses the parameters"
        return "no step changed the loss by more than its rounding error; raise highest"
    if kept - last <= first:
        return (
            f"the run ended after {kept} steps, of which skip_first={first} and skip_last={last} leave none; start "
            "with a lower rate, or skip fewer"
        )
    return f"the loss is lowest in the first skip_first={first} steps; start with a lower rate"


def _smoothed(losses: np.ndarray, width: float) -> np.ndarray:
    """Centred mean over 2 half + 1 losses, fewer at the ends. It is NaN if the loss is NaN."""
    if len(losses) == 0:
        return losses
    half = round(width / 2)
    windows = np.pad(losses, half, constant_values=np.nan)
    rows = np.lib.stride_tricks.sliding_window_view(windows, 2 * half + 1)
    counted = np.isfinite(rows)
    means = np.where(counted, rows, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return np.where(np.isfinite(losses), means, np.nan)


def _divergence(rates: np.ndarray, run: Run, at: np.ndarray) -> float:
    """The rate of divergence, from the steps `at` that moved and their rates."""
    if len(at) == 0:
        return float("inf")
    has_blown_up = bool(run.diverged.any())
    onset = rates[_lasts_from(run.fall[at][:-1] < 0)] if has_blown_up else float("inf")  # of the rise
    # The product is 0 if the sharpness is unknown.
    unstable_from = _lasts_from(rates * run.sharpness[at] >= 2)
    sharpness = run.sharpness[at][unstable_from:]
    if len(sharpness) == 0 or not (has_blown_up or _agree(sharpness[-2:], rates[-2:])):
        return float(onset)
    stable_to = rates[unstable_from - 1] if unstable_from > 0 else 0.0
    return float(min(max(2 / sharpness[0], stable_to), onset))


def _lasts_from(is_so: np.ndarray) -> int:
    """The first step from which on it is so up to the last; the number of steps if it is not so at the last."""
    return len(is_so) - int(np.argmin([*is_so[::-1], False]))


def _agree(sharpness: np.ndarray, rates: np.ndarray) -> bool:
    """Whether the last two steps see the same λ_max, to within the ratio of their rates."""
    return len(sharpness) == 2 and bool(abs(np.log(sharpness[1] / sharpness[0])) <= np.log(rates[1] / rates[0]))
