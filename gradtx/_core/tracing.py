"""Whether a tree is being traced, and the equations of a trace."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.core import Tracer


def is_traced(tree: Any) -> bool:
    """Whether any leaf is known only when the program runs."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, closed or not, and of the jaxprs among its equations' parameters."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)
