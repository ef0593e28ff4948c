"""The functions `value_fn` and `losses_fn` of a step, with checks of what they return.

Errors name the instrument and end in what to write.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_alone, check_function, check_takes_params
from gradtx._core.trees import compute_dtype
from gradtx._core.types import MaskedNode, Params


def checked_loss(name: str, argument: str, function: Any) -> Callable[[Params], jax.Array]:
    """The function, which must return a real scalar as `value_fn`, or an array [batch] as `losses_fn`."""
    check_function(name, argument, function, "the parameters")

    def checked(params: Params) -> jax.Array:
        try:
            result = function(params)
        except Exception as error:
            check_takes_params(name, argument, function)
            leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, MaskedNode))
            masked = sum(isinstance(x, MaskedNode) for x in leaves)
            if masked:
                raise ValueError(
                    f"{name}: {argument} failed while {masked} of {len(leaves)} parameters are masked: "
                    "chain the instrument outside optax.masked and optax.partition."
                ) from error
            raise
        check_alone(name, argument, result)
        result = jnp.asarray(result)
        if not jnp.issubdtype(result.dtype, jnp.floating):
            raise TypeError(
                f"{name}: {argument} must return real floating numbers, got dtype {result.dtype}: end the function "
                "with return jnp.real(loss) or return loss.astype(jnp.float32)."
            )
        _check_shape(name, argument, result.shape)
        return result.astype(compute_dtype(result.dtype))

    return checked


def _check_shape(name: str, argument: str, shape: tuple[int, ...]) -> None:
    if argument == "value_fn" and shape != ():
        raise ValueError(
            f"{name}: value_fn must return a scalar, got shape {shape}: take the mean, as in "
            "value_fn=lambda params: jnp.mean(losses(params)), or pass the function as losses_fn."
        )
    if argument == "losses_fn" and len(shape) != 1:
        cure = "not averaged over the batch, as in return losses in place of return losses.mean()"
        if shape:
            cure = f"summed over all other axes, as in losses.sum(axis={tuple(range(1, len(shape)))})"
        raise ValueError(
            f"{name}: losses_fn must return an array [batch], got shape {shape}: return the loss of each example, "
            f"{cure}."
        )
