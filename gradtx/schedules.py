"""The chapter's learning-rate schedules, and a check of any schedule against the conditions of Robbins and Monro.

    linear decay         ε_k = (1 - c) ε_0 + c ε_τ,  c = min(k / τ, 1)
    inverse-time decay   ε_k = ε_0 / (1 + k / τ)

| letter | argument  | unit, range                            |
|--------|-----------|----------------------------------------|
| k      | count     | steps done; the first update has k = 0 |
| ε_0    | `initial` | learning rate, [0, inf)                |
| ε_τ    | `final`   | learning rate, [0, inf)                |
| τ      | `steps`   | steps, (0, inf)                        |

A schedule is a function of k, a number or an array. It returns an array of k's shape in JAX's default float dtype. For
negative k it gives the rate of step 0 (`optax.join_schedules` passes negative k before a schedule begins).

**Source**: Robbins & Monro 1951; Goodfellow et al. 2016, eq. 8.12 to 8.14; chapter §4.1.

**Differs from** `optax.linear_schedule`: the rate is exactly `final` from step τ on, also under jit. A τ of 0 is an
error. The computation is in JAX's default float dtype, float64 under x64. Optax has no inverse-time decay. torch's
schedulers hold a state that a call advances; these are functions of the step.

**Costs**: a few scalar operations per step.

**When**: at a fixed rate the gradient noise keeps SGD away from the minimum; these schedules reduce it. `linear_decay`
to a floor is the usual choice in deep learning. `inverse_time_decay` meets the conditions for convergence, but is slow.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ._core.hyperparameters import NON_NEGATIVE, POSITIVE, hyperparameter
from ._core.types import ArrayLike, ScalarOrSchedule, Schedule


def linear_decay(initial: ArrayLike, final: ArrayLike, steps: ArrayLike) -> Schedule:
    """Goes from `initial` to `final` in a straight line over `steps` steps, then stays at `final`.

    The chapter advises ε_τ of about 1 % of ε_0, and never 0. Such a floor violates Robbins and Monro's second
    condition: the iterates end in a ball around the minimum, and the floor sets its size (see `robbins_monro`).

    Args:
        initial: ε_0, the rate of the first step, in [0, inf).
        final: ε_τ, the rate from step τ on, in [0, inf). About 1 % of `initial` is usual. With 0 the parameters stop
            moving at step τ, and a run that has stopped looks like one that has converged (chapter §4.1).
        steps: τ, in (0, inf).

    **Differs from** `optax.linear_schedule`: its `init_value`, `end_value` and `transition_steps` are called `initial`,
    `final` and `steps` here. There is no `transition_begin`: put `optax.join_schedules` around it.

    Raises:
        ValueError: `initial` or `final` not in [0, inf), `steps` not in (0, inf). TypeError: one of the wrong kind.

    >>> import gradtx
    >>> schedule = gradtx.linear_decay(initial=1.0, final=0.01, steps=100)
    >>> print(schedule(0), schedule(50), schedule(100), schedule(10**6))
    1.0 0.505 0.01 0.01
    """
    first = hyperparameter("linear_decay", "initial", initial, NON_NEGATIVE)
    last = hyperparameter("linear_decay", "final", final, NON_NEGATIVE)
    duration = hyperparameter("linear_decay", "steps", steps, POSITIVE)

    def schedule(count: ArrayLike) -> jax.Array:
        k = _not_negative(count)
        ε_0, ε_τ, τ = first(k), last(k), duration(k)
        c = k / τ
        return jnp.where(k < τ, (1 - c) * ε_0 + c * ε_τ, ε_τ)  # not `c < 1`: a compiled k / τ may round below 1

    return schedule


def inverse_time_decay(initial: ArrayLike, steps: ArrayLike) -> Schedule:
    """ε_0 / (1 + k / τ). It halves in `steps` steps, later falls as 1/k, and so meets Robbins and Monro's conditions.

    Args:
        initial: ε_0, the rate of the first step, in [0, inf).
        steps: τ, the number of steps after which the rate has halved, in (0, inf).

    Raises:
        ValueError: `initial` not in [0, inf), `steps` not in (0, inf). TypeError: one of the wrong kind.

    >>> import gradtx
    >>> schedule = gradtx.inverse_time_decay(initial=1.0, steps=100)
    >>> print(schedule(0), schedule(100), schedule(900))
    1.0 0.5 0.1
    """
    first = hyperparameter("inverse_time_decay", "initial", initial, NON_NEGATIVE)
    duration = hyperparameter("inverse_time_decay", "steps", steps, POSITIVE)

    def schedule(count: ArrayLike) -> jax.Array:
        k = _not_negative(count)
        return first(k) / (1 + k / duration(k))

    return schedule


def _not_negative(count: ArrayLike) -> jax.Array:
    """Returns the count in JAX's default float dtype, and 0 for a negative count.

    At k = -τ the rate would divide by 0, and its derivative would be NaN even if the rate is not used."""
    k = jnp.asarray(count, jnp.result_type(float))
    return jnp.where(k < 0, jnp.zeros_like(k), k)


@dataclass(frozen=True)
class RobbinsMonroReport:
    """The result of `robbins_monro`. Printing it gives the verdict as a sentence."""

    steps: np.ndarray  # [n] int64: numbers of steps, 10, 100, ..., 10^6
    sums: np.ndarray  # [n] float64: Σ ε_k over that many steps
    sums_of_squares: np.ndarray  # [n] float64: Σ ε_k² over that many steps
    tail_exponent: float  # a, if ε_k falls as k^-a: 0 if constant, inf if faster than any power or zero from some k on
    sum_diverges: bool  # first condition: Σ ε_k = inf
    sum_of_squares_converges: bool  # second condition: Σ ε_k² < inf
    verdict: str

    @property
    def satisfied(self) -> bool:
        """Whether both conditions hold."""
        return self.sum_diverges and self.sum_of_squares_converges

    def __str__(self) -> str:
        return self.verdict


def robbins_monro(schedule: ScalarOrSchedule) -> RobbinsMonroReport:
    """Checks Σ ε_k = inf and Σ ε_k² < inf, which suffice for SGD to converge, by the exponent a of the tail ε_k ~ k^-a.

    Both hold for 1/2 < a <= 1. Finitely many values cannot prove anything about an infinite sum. The report assumes
    that the schedule goes on as it behaves up to step 2·10⁹, about as far as an int32 counter reaches.
    The exponent is measured over the last factor of ten and taken as exact to ±0.02, so 1/√k fails and 1/k passes.

    Args:
        schedule: `count -> learning rate`, or a number for a constant one.

    Returns:
        A `RobbinsMonroReport` with the partial sums, the exponent, both conditions and a verdict.

    Costs: a million values and some 40,000 later ones, computed by `vmap`, so `schedule` must accept a traced int32.

    Raises:
        ValueError: the schedule gives a negative, infinite or NaN rate, or 0 at each of the first million steps.
        TypeError: it is neither a number nor a function.

    >>> import gradtx
    >>> print(gradtx.robbins_monro(gradtx.inverse_time_decay(0.1, steps=1000)))
    Both conditions hold: the rate falls as k^-1.00, so Σ ε_k diverges and Σ ε_k² converges.
    >>> report = gradtx.robbins_monro(gradtx.linear_decay(0.1, 0.001, steps=1000))
    >>> report.sum_diverges, report.sum_of_squares_converges
    (True, False)
    """
    rate = hyperparameter("robbins_monro", "schedule", schedule, NON_NEGATIVE)
    evaluate = jax.jit(jax.vmap(rate))

    def at(counts: np.ndarray) -> np.ndarray:
        values = np.asarray(evaluate(jnp.asarray(counts, jnp.int32)), np.float64)
        if not np.all(np.isfinite(values) & (values >= 0)):
            bad = int(counts[np.argmin(np.isfinite(values) & (values >= 0))])
            raise ValueError(f"robbins_monro: the schedule must stay in [0, inf), got {at_one(bad)} at step {bad}.")
        return values

    def at_one(count: int) -> float:
        return float(evaluate(jnp.asarray([count], jnp.int32))[0])

    steps = 10 ** np.arange(1, 7)
    first = at(np.arange(steps[-1]))
    if not first.any():
        raise ValueError("robbins_monro: the schedule is 0 at each of the first 1,000,000 steps: nothing is learned.")
    exponent = _tail_exponent(at)
    sum_diverges = exponent <= 1 + _TOLERANCE
    sum_of_squares_converges = exponent > 0.5 + _TOLERANCE
    return RobbinsMonroReport(
        steps=steps,
        sums=np.cumsum(first)[steps - 1],
        sums_of_squares=np.cumsum(first**2)[steps - 1],
        tail_exponent=exponent,
        sum_diverges=sum_diverges,
        sum_of_squares_converges=sum_of_squares_converges,
        verdict=_verdict(exponent, sum_diverges, sum_of_squares_converges),
    )


_TOLERANCE = 0.02


def _tail_exponent(at: Callable[[np.ndarray], np.ndarray]) -> float:
    """-d log ε / d log k over the last factor of ten of an int32 count, or inf if the rate vanishes there."""
    last = 2_000_000_000  # below the largest int32, because a schedule may compute count + 1
    # The fit uses means over blocks, not single values: a schedule with restarts oscillates, and its sums depend on its
    # means.
    edges = np.geomspace(last // 100, last, 41)
    means = np.array(
        [at(np.linspace(low, high, 1024).astype(np.int64)).mean() for low, high in itertools.pairwise(edges)]
    )
    if means[-1] == 0:
        return float("inf")
    centres = np.sqrt(edges[:-1] * edges[1:])
    early, late = slice(0, 20), slice(20, 40)

    def slope(part: slice) -> float:
        return float(-np.polyfit(np.log(centres[part]), np.log(np.maximum(means[part], 1e-300)), 1)[0])

    exponent = slope(late)
    # A power law has a constant exponent. The exponent of an exponential decay grows with k and exceeds any power.
    return float("inf") if exponent > 1 + _TOLERANCE and exponent > 1.5 * slope(early) else exponent + 0.0


def _verdict(exponent: float, sum_diverges: bool, sum_of_squares_converges: bool) -> str:
    if sum_diverges and sum_of_squares_converges:
        return f"Both conditions hold: the rate falls as k^-{exponent:.2f}, so Σ ε_k diverges and Σ ε_k² converges."
    if not sum_diverges:
        how = "faster than any power of k" if exponent == float("inf") else f"as k^-{exponent:.2f}"
        return (
            f"The first condition fails: the rate falls {how}, so Σ ε_k is finite and the iterates can only travel a "
            "bounded distance; they may stop short of the minimum. The second (Σ ε_k² < inf) holds."
        )
    if exponent > _TOLERANCE:
        return (
            f"The second condition fails: the rate falls as k^-{exponent:.2f}, not faster than 1/√k, so Σ ε_k² "
            "diverges and the ball around the minimum in which gradient noise keeps the iterates shrinks only as "
            "slowly as the rate. The first (Σ ε_k = inf) holds."
        )
    grows = f"the rate grows as k^{-exponent:.2f}"
    how = grows if exponent < -_TOLERANCE else "the rate ends at a constant, as a linear decay to a floor does"
    return (
        f"The second condition fails: {how}, so Σ ε_k² diverges and the gradient noise keeps the iterates in a ball "
        "around the minimum; a lower rate makes it smaller. The first (Σ ε_k = inf) holds."
    )
