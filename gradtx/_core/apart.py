"""Several outputs of one step, each computed by itself: for an XLA that writes in one loop what reads the same arrays.

XLA on the CPU writes one array a loop, unless it is told otherwise before JAX starts:

    XLA_FLAGS=--xla_backend_extra_options=xla_cpu_use_multi_output_fusion

Then loops over the same arrays become one, but no loop is joined with one that waits for it, and nothing is computed
twice. So where that is set each new buffer, and the update, starts from the inputs: XLA joins them all, and a step
reads and writes each array once. Inputs differ by a tie, else XLA would see the same intermediate in several of them
and write it out. (Barriers do not serve: in the XLA of JAX 0.12 they last until after the loops are joined.) Guards and
stored states, which rest on barriers and several dtypes, gain nothing from the flag and may hold more.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .again import recipe_of, remember
from .tracing import is_traced


def is_apart(arrays: Sequence[jax.Array]) -> bool:
    """Whether the outputs computed from these arrays are to be kept apart."""
    return (
        "xla_cpu_use_multi_output_fusion" in os.environ.get("XLA_FLAGS", "")
        and jax.default_backend() == "cpu"
        and is_traced(arrays)
        and len({x.dtype for x in arrays}) == 1  # XLA joins loops that write the same dtype
        and jnp.issubdtype(arrays[0].dtype, jnp.floating)
    )


def tied(x: jax.Array, tie: int) -> jax.Array:
    """The same numbers; of two with different ties XLA does not know it."""
    return jnp.where((x > tie) | (x <= tie), x, jnp.nan)


def apart(make: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`make(tie, ...)` as a function of the rest, each time with another tie."""
    ties = itertools.count()

    def one(*args: Any) -> jax.Array:
        return make(next(ties), *args)

    return one


def elementwise(make: Callable[[jax.Array], jax.Array], g: jax.Array) -> jax.Array:
    """`make(g)`, anew for each that reads it: a clipped gradient would be written out before the method reads it."""
    if not is_apart([g]):
        return make(g)
    again = recipe_of(g)
    one = apart(lambda tie: make(tied(g if again is None else again(), tie)))
    u = one()
    remember(u, one)
    return u
