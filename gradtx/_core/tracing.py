"""Whether a tree is being traced, a choice that needs no trace, and the equations of a trace."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax.core import Tracer

Result = TypeVar("Result")


def is_traced(tree: Any) -> bool:
    """Whether any leaf is known only when the program runs."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def is_known(value: Any) -> bool:
    """Whether a number can be read now: it is not traced, and no part of it is in another process."""
    return not isinstance(value, Tracer) and (not isinstance(value, jax.Array) or value.is_fully_addressable)


def either(is_true: jax.Array, if_true: Callable[[], Result], if_false: Callable[[], Result]) -> Result:
    """`lax.cond`, but outside jit a Python `if`. There `lax.cond` would trace and compile its branches at each call."""
    if is_known(is_true):
        return if_true() if is_true else if_false()
    return jax.lax.cond(is_true, if_true, if_false)


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, closed or not, and of the jaxprs among its equations' parameters."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)
