"""What a number says that is not known or has no bound, also under JAX's flags that stop at NaN and inf.

With `jax_debug_nans` or `jax_debug_infs` JAX stops at the first array with a NaN or an inf in it. A healthy run must
not set them off: so under these flags, which are read when a program is traced, finite numbers stand in.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def unknown() -> float:
    """NaN; under `jax_debug_nans` 0."""
    return 0.0 if _is_set("jax_debug_nans") else math.nan


def unbounded(dtype: DTypeLike = float) -> float:
    """inf; under `jax_debug_infs` the largest number of the dtype, by default JAX's own float dtype."""
    return float(jnp.finfo(jnp.result_type(dtype)).max) if _is_set("jax_debug_infs") else math.inf


def _is_set(flag: str) -> bool:
    return bool(getattr(jax.config, flag))


def quotient(a: jax.Array, b: jax.Array, is_known: jax.Array) -> jax.Array:
    """a / b where that is known, else `unknown()`; a `b` that says nothing is not divided by."""
    return jnp.where(is_known, a / jnp.where(is_known, b, 1), unknown())
