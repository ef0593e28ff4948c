"""Does work in a few steps of a compiled program, without costs in the other steps.

`lax.cond` costs something in every step. XLA copies whatever a branch returns or shares with later code, and computes
before the choice whatever it can lift out of a branch. So here the work is a loop that runs once or not at all, and its
carry stays where it is. The inputs of a turn depend on the turn's number, so that XLA can lift nothing out of the loop.
Whatever overwrites an input of the turn must wait for the turn (`copies.once_known`), so that XLA keeps no copy.
Measured on a network of 1.3 million parameters: 1.04 times the plain step, where branches cost 1.8 times.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")
Tree = TypeVar("Tree")


def when_due(is_due: jax.Array, turn: Callable[[Carry, Tree], Carry], carry: Carry, inputs: Tree) -> Carry:
    """`turn(carry, inputs)` if `is_due`, else the carry. Derivatives take the result for a constant."""

    def body(numbered: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
        number, carry = numbered
        tied = jax.tree.map(lambda x: jax.lax.optimization_barrier((x, number))[0], inputs)
        return number + 1, turn(carry, tied)

    turns = is_due.astype(jnp.int32)
    _, new = jax.lax.while_loop(lambda numbered: numbered[0] < turns, body, (jnp.zeros_like(turns), carry))
    return jax.lax.stop_gradient(new)
