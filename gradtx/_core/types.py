"""The types of the interface, and the only place where the core imports Optax."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from optax import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    MultiSteps,
    with_extra_args_support,
)

Params = Any  # a tree of arrays
Updates = Any  # a tree like the parameters
Schedule = Callable[[jax.Array], ArrayLike]  # count -> value
ScalarOrSchedule = ArrayLike | Schedule  # number | 0-d array | tracer | schedule

# A dtype instance, not `jnp.float32`: that one is callable, so `optax.inject_hyperparams` would take it for a schedule.
FLOAT32 = np.dtype("float32")

__all__ = [
    "FLOAT32",
    "ArrayLike",
    "DTypeLike",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "MaskedNode",
    "MultiSteps",
    "Params",
    "ScalarOrSchedule",
    "Schedule",
    "Updates",
    "with_extra_args_support",
]
