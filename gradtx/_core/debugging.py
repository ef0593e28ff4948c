"""Numbers that stand for unknown and unbounded values, also under JAX's flags that stop at NaN and inf.

With `jax_debug_nans` or `jax_debug_infs` JAX stops at the first array with a NaN or an inf in it. A healthy run must
not trigger this, so under these flags finite numbers stand in. The flags are read when a program is traced.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def unknown() -> float:
    """Returns NaN, or 0 under `jax_debug_nans`."""
    return 0.0 if _is_set("jax_debug_nans") else math.nan


def unbounded(dtype: DTypeLike = float) -> float:
    """Returns inf, or under `jax_debug_infs` the largest number of the dtype (by default JAX's default float dtype)."""
    return float(jnp.finfo(jnp.result_type(dtype)).max) if _is_set("jax_debug_infs") else math.inf


def _is_set(flag: str) -> bool:
    return bool(getattr(jax.config, flag))


def quotient(a: jax.Array, b: jax.Array, is_known: jax.Array) -> jax.Array:
    """Returns a / b where `is_known`, else `unknown()`. It does not divide by an unknown `b`."""
    return jnp.where(is_known, a / jnp.where(is_known, b, 1), unknown())
