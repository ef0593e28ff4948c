"""Early stopping: ends the training by the metric of interest, not by the surrogate loss.

    improved   best - metric > δ   (mode="min"; metric - best for "max")      then best ← metric, e ← this evaluation
    stop       after p evaluations in a row, counted from e, without improvement

| letter | argument    | range, unit                          |
|--------|-------------|--------------------------------------|
| p      | `patience`  | evaluations, >= 1                    |
| δ      | `min_delta` | [0, inf), in units of the metric     |

**Source**: Goodfellow et al. 2016, Alg. 7.1; chapter §1.2.

`init` and `update` are pure functions that work inside jit, scan and vmap. The decision to stop is a boolean in the
state. A compiled loop can use it as a mask, a Python loop in an `if`.

**Differs from** the callbacks of Keras and Lightning: it neither ends the loop nor keeps the best parameters. Each
takes one line in your loop: test `should_stop`, and `best_evaluation == evaluations - 1`. `lab.run` does both
(`History.best_params`).

**Costs**: four scalars.

**When**: if you train on a surrogate loss and have a validation set. Keep the parameters of `best_evaluation`, because
the last ones are `patience` evaluations past the best.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ._core.arguments import checked_count, checked_number, scalar
from ._core.hyperparameters import NON_NEGATIVE, first_count, next_count
from ._core.types import ArrayLike


class EarlyStoppingState(NamedTuple):
    """State of `early_stopping`."""

    best: jax.Array  # [] default float: the best metric so far; the worst finite number before the first evaluation
    best_evaluation: jax.Array  # [] int32: the evaluation of the best metric, from 0; -1 before the first
    evaluations: jax.Array  # [] int32: number of evaluations so far
    should_stop: jax.Array  # [] bool: true once `patience` evaluations in a row brought no improvement


@dataclass(frozen=True)
class EarlyStopping:
    """The pair `init`, `update` that `early_stopping` returns."""

    patience: int
    min_delta: float
    mode: Literal["min", "max"] | None  # None: "min", or in `lab.run` the direction of the problem's metric

    def init(self) -> EarlyStoppingState:
        """The state before the first evaluation."""
        dtype = jnp.result_type(float)
        worst = jnp.finfo(dtype).min if self.mode == "max" else jnp.finfo(dtype).max  # `jax_debug_infs` forbids inf
        return EarlyStoppingState(
            best=jnp.full((), worst, dtype),
            best_evaluation=first_count() - 1,
            evaluations=first_count(),
            should_stop=jnp.zeros((), bool),
        )

    def update(self, metric: ArrayLike, state: EarlyStoppingState) -> EarlyStoppingState:
        """The state after one more evaluation. NaN does not count as an improvement. After a stop it stays the same."""
        metric = scalar("early_stopping", "metric", metric)
        gain = metric - state.best if self.mode == "max" else state.best - metric
        improved = (gain > self.min_delta) & ~state.should_stop
        best_evaluation = jnp.where(improved, state.evaluations, state.best_evaluation)
        evaluations = jnp.where(state.should_stop, state.evaluations, next_count(state.evaluations))
        waited = evaluations - 1 - best_evaluation
        return EarlyStoppingState(
            best=jnp.where(improved, metric, state.best),
            best_evaluation=best_evaluation,
            evaluations=evaluations,
            should_stop=state.should_stop | (waited >= self.patience),
        )


def early_stopping(patience: int, min_delta: float = 0.0, mode: Literal["min", "max"] | None = None) -> EarlyStopping:
    """Stops when `patience` evaluations in a row bring no improvement.

    Args:
        patience: how many evaluations to wait, >= 1.
        min_delta: an improvement must exceed this, in units of the metric, in [0, inf).
        mode: "min" for a loss or an error, "max" for an accuracy. None means "min" in your own loop; `lab.run` takes
            the direction of its problem's metric.

    Returns:
        an object with `init()` and `update(metric, state)`. Both return an `EarlyStoppingState`.

    Raises:
        ValueError: an argument out of range. TypeError: one of the wrong kind.

    >>> import gradtx
    >>> stopping = gradtx.early_stopping(patience=2, mode="max")
    >>> state = stopping.init()
    >>> for accuracy in (0.5, 0.8, 0.7, 0.8):
    ...     state = stopping.update(accuracy, state)
    ...     print(state.best, state.best_evaluation, state.should_stop)
    0.5 0 False
    0.8 1 False
    0.8 1 False
    0.8 1 True
    """
    patience = checked_count("early_stopping", "patience", patience)
    min_delta = checked_number("early_stopping", "min_delta", min_delta, NON_NEGATIVE)
    if mode not in ("min", "max", None):
        raise ValueError(f'early_stopping: mode must be "min", "max" or None, got {mode!r}.')
    return EarlyStopping(patience, min_delta, mode)
