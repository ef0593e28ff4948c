"""Turns a hyper-parameter (a number, a 0-d array, a tracer or a schedule) into a scalar at step k.

Only this module checks ranges, evaluates schedules and chooses the dtype (JAX's default float: float32, or float64
under x64; never lower).
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .copies import unmerged
from .tracing import is_known
from .types import ScalarOrSchedule


@dataclass(frozen=True)
class Range:
    """An interval that a hyper-parameter must lie in; `text` is how an error message writes it."""

    text: str
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.text[0] == "(" else value >= self.low
        below = value < self.high if self.text[-1] == ")" else value <= self.high
        return above and below  # NaN compares false


POSITIVE = Range("(0, inf)", 0.0, math.inf)
NON_NEGATIVE = Range("[0, inf)", 0.0, math.inf)
NON_NEGATIVE_OR_INF = Range("[0, inf]", 0.0, math.inf)
UNIT_INTERVAL = Range("[0, 1]", 0.0, 1.0)
BELOW_ONE = Range("[0, 1)", 0.0, 1.0)
ABOVE_ONE = Range("(1, inf)", 1.0, math.inf)


@dataclass(frozen=True)
class Hyperparameter:
    """A checked hyper-parameter; call it with the step count to get its value."""

    transformation: str
    argument: str
    value: Any
    allowed: Range

    @property
    def is_scheduled(self) -> bool:
        return callable(self.value)

    @property
    def may_change(self) -> bool:
        """Whether it is a schedule, or an array that a caller (`optax.inject_hyperparams`) may change between steps."""
        return self.is_scheduled or isinstance(self.value, jax.Array)

    def __call__(self, count: jax.Array | None) -> jax.Array:
        if self.is_scheduled and count is None:
            raise TypeError(
                f"{self.transformation}: {self.argument} is a schedule, but the state has no step count: it was made "
                "with a number. Call init again."
            )
        value = jnp.asarray(self.value(count) if self.is_scheduled else self.value)
        if value.shape != ():
            who = f"{self.transformation}: {self.argument}, as a function of the step,"
            raise TypeError(f"{who} must return a scalar, got shape {value.shape}.")
        if self.allowed is BELOW_ONE and _is_half_precision(value):
            # A half-precision 0.999 (as `optax.inject_hyperparams` makes it for bfloat16 parameters) has rounded to 1.
            # A running average with weight 1 would never move, so take the largest number below 1 of that dtype.
            value = jnp.minimum(value, 1 - jnp.finfo(value.dtype).epsneg)
        # On a CPU the copy keeps the compiler from folding a constant into its neighbours, so a rate gives the same
        # bits whether it is fixed, scheduled or swept over.
        return unmerged(value.astype(jnp.result_type(float)))


def hyperparameter(transformation: str, argument: str, value: ScalarOrSchedule, allowed: Range) -> Hyperparameter:
    """Checks the value, if it is known now. Tracers and schedules pass.

    A `Hyperparameter` passes unchanged, so that a recipe can check a value under its own name and pass it to a block.
    """
    if isinstance(value, Hyperparameter):
        return value
    if not callable(value):
        number = concrete_number(transformation, argument, value)
        if number is not None and number not in allowed and not _rounded_up_to_one(value, allowed):
            what_to_do = " To maximise, give the gradients of the negative loss." if _ascends(argument, number) else ""
            raise ValueError(f"{transformation}: {argument} must be in {allowed.text}, got {number!r}.{what_to_do}")
        if isinstance(value, int | np.integer):
            value = float(value)
    return Hyperparameter(transformation, argument, value, allowed)


def _ascends(argument: str, number: float) -> bool:
    return argument in ("learning_rate", "initial", "final", "schedule") and number < 0


def _rounded_up_to_one(value: Any, allowed: Range) -> bool:
    return allowed is BELOW_ONE and isinstance(value, jax.Array) and _is_half_precision(value) and float(value) == 1.0


def _is_half_precision(value: jax.Array) -> bool:
    return value.dtype.itemsize < 4 and jnp.issubdtype(value.dtype, jnp.floating)


def concrete_number(transformation: str, argument: str, value: Any) -> float | None:
    """The value as a Python float. None if it is not known yet (a tracer) or is in another process (a global array).

    Raises TypeError unless it is a real number or a 0-d real array.
    """
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    is_scalar = is_array and value.shape == () and value.dtype != bool and not jnp.iscomplexobj(value)
    if not (is_scalar or (isinstance(value, int | float) and not isinstance(value, bool))):
        got = f"{value!r} ({type(value).__name__})"
        if is_array:
            got = f"an array of shape {value.shape} and dtype {value.dtype}"
        is_tree = isinstance(value, dict | list | tuple) or (is_array and value.shape != ())
        what_to_do = " Give each part of the parameters its own transformation with optax.partition." if is_tree else ""
        rule = "must be a number, a 0-d array or a function of the step"
        raise TypeError(f"{transformation}: {argument} {rule}, got {got}.{what_to_do}")
    return float(value) if is_known(value) else None


def first_count() -> jax.Array:
    """The count of a state that has seen no step."""
    return jnp.zeros((), jnp.int32)


def count_for(*hyperparameters: Hyperparameter) -> jax.Array | None:
    """`first_count`, for a state that needs it: None if all hyper-parameters are numbers."""
    return first_count() if any(h.is_scheduled for h in hyperparameters) else None


def next_count(count: Any) -> Any:
    """The count plus one, but at most 2³¹ - 1. From there on a schedule is constant. None stays None."""
    return None if count is None else jnp.where(count < jnp.iinfo(jnp.int32).max, count + 1, count)
