"""What is done in few of the steps of a compiled program, and costs the others nothing.

`lax.cond` is not that: XLA copies whatever a branch hands on or shares with what follows, every step, and computes
before the choice what it can lift out of it. So here it is a loop of one turn or none, whose carry stays where it is;
what a turn reads depends on the turn's number, so that nothing of it can be lifted out; and what overwrites an array
that the turn reads waits for the turn (`after`), so that no copy has to be kept. Measured on a network of 1.3 million
parameters: 1.04 of the plain step where the branches cost 1.8.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")
Tree = TypeVar("Tree")


def when_due(is_due: jax.Array, turn: Callable[[Carry, Tree], Carry], carry: Carry, inputs: Tree) -> Carry:
    """`turn(carry, inputs)` where `is_due`, else the carry; constants to a derivative, which a loop has none of."""

    def body(numbered: tuple[jax.Array, Carry]) -> tuple[jax.Array, Carry]:
        number, carry = numbered
        tied = jax.tree.map(lambda x: jax.lax.optimization_barrier((x, number))[0], inputs)
        return number + 1, turn(carry, tied)

    turns = is_due.astype(jnp.int32)
    _, new = jax.lax.while_loop(lambda numbered: numbered[0] < turns, body, (jnp.zeros_like(turns), carry))
    return jax.lax.stop_gradient(new)


def after(count: jax.Array, tree: Tree) -> Tree:
    """The tree as it is, once a count or an index, at least -1, is known."""
    is_known = count >= -1  # true, which XLA cannot know
    return jax.tree.map(lambda x: jnp.where(is_known, x, jnp.zeros((), jnp.asarray(x).dtype)), tree)
