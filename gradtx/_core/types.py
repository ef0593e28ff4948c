"""The types of the interface, and the only place where the core imports Optax."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NewType

import jax
import numpy as np
from optax import GradientTransformation as GradientTransformation
from optax import GradientTransformationExtraArgs as GradientTransformationExtraArgs
from optax import MaskedNode as MaskedNode
from optax import MultiSteps as MultiSteps
from optax import with_extra_args_support as with_extra_args_support

Params = Any  # a tree of arrays
Updates = Any  # a tree like the parameters
if TYPE_CHECKING:
    from jax.typing import ArrayLike as ArrayLike
    from jax.typing import DTypeLike as DTypeLike

    Schedule = Callable[[jax.Array], ArrayLike]  # count -> value
    ScalarOrSchedule = ArrayLike | Schedule  # number | 0-d array | tracer | schedule
else:
    # `help` and the API reference write a union out, in as many as fifteen lines for each argument. A `NewType` of
    # `object` is shown by its name, and type checks at run time let every value pass.
    ArrayLike = NewType("ArrayLike", object)
    DTypeLike = NewType("DTypeLike", object)
    Schedule = NewType("Schedule", object)
    ScalarOrSchedule = NewType("ScalarOrSchedule", object)
    for _alias in (ArrayLike, DTypeLike, Schedule, ScalarOrSchedule):
        _alias.__module__ = "gradtx"

# A dtype instance, not `jnp.float32`: that one is callable, so `optax.inject_hyperparams` would take it for a schedule.
FLOAT32 = np.dtype("float32")
