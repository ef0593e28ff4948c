"""Element-wise arithmetic for the rules. It is right even if the plain operators give NaN, inf or a false zero."""

import jax
import jax.numpy as jnp


def abs2(x: jax.Array) -> jax.Array:
    """|x|^2, real: x * x for a real array, x times its conjugate for a complex one."""
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x


def sqrt(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0, not inf (which times a zero gradient would be NaN)."""
    is_zero = x == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, x)))


def divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns numerator / denominator, for a denominator made from past numerators, such as a root of their squares.

    The result is 0 where the denominator is 0: the square underflowed, or there was no gradient yet, so there is no
    direction to take. It is NaN where the denominator is inf: the square overflowed, and x / inf would be a zero that
    silently freezes the coordinate.
    """
    is_zero = denominator == 0
    quotient = numerator / jnp.where(is_zero, 1, denominator) + (denominator - denominator)  # inf - inf is NaN
    return jnp.where(is_zero, 0, quotient)
