"""`readings`: the last measurements of all instruments in an optimizer state, at any depth.

An instrument's state is a NamedTuple with a method `readings()`, which returns its arrays by name,
`instrument/quantity`. Any NamedTuple with that method counts as an instrument here. If there are two instruments of one
kind, the second is `instrument@2/quantity`.

**Differs from** `optax.tree.get(state, name)`, which finds fields by their names, raises if two have the same name, and
cannot return a quantity that is computed from fields.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax

from gradtx._core.trees import without_variables


def readings(opt_state: Any) -> dict[str, jax.Array]:
    """Every reading in an optimizer state, by name.

    Args:
        opt_state: any state, however nested: `chain`, `masked`, `partition`, `MultiSteps`, `inject_hyperparams`, ...;
            also the `opt_state` of flax's `nnx.Optimizer`, whose arrays are in variables.

    Returns:
        name -> array, in the order of the chain (of `partition`, in the order of the sorted labels). The arrays are
        scalars, unless the state is a stack of states (under `vmap`, or the output of a scan). NaN means not measured
        yet, and inf means that there is no bound. Under `jax_debug_nans` 0 replaces NaN, and under `jax_debug_infs` the
        largest float replaces inf, so that a healthy run triggers neither. A state without instruments gives an empty
        dict. Nothing leaves the device, so it works inside `jit`, `scan`, `vmap` and `shard_map`.

    >>> import gradtx, jax.numpy as jnp, optax
    >>> tx = optax.chain(gradtx.gradient_norm(), optax.adam(1e-3))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print({name: float(value) for name, value in gradtx.readings(state).items()})
    {'gradient_norm/global': 5.0, 'gradient_norm/slope': nan, 'gradient_norm/nonfinite': 0.0}
    """
    found: dict[str, jax.Array] = {}
    number_of: Counter[str] = Counter()
    for state in _instruments(without_variables(opt_state)):
        taken = state.readings()
        number_of.update({name.partition("/")[0] for name in taken})
        for name, value in taken.items():
            kind, slash, quantity = name.partition("/")
            number = "" if number_of[kind] == 1 else f"@{number_of[kind]}"
            found[f"{kind}{number}{slash}{quantity}"] = value
    return found


def _instruments(tree: Any) -> Iterator[Any]:
    """The states of the instruments in a tree. A state that contains others comes before them."""
    for state in jax.tree.leaves(tree, is_leaf=_has_readings):
        if _has_readings(state):
            yield state
            yield from _instruments(tuple(state))


def _has_readings(x: Any) -> bool:
    return isinstance(x, tuple) and hasattr(x, "_fields") and hasattr(x, "readings")
