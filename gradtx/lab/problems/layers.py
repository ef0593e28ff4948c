"""Building blocks that several of the models share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]


def weights(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
    """[inputs, outputs] normal numbers of variance 1 / inputs, so that outputs are as large as inputs at any width."""
    return jax.random.normal(key, (inputs, outputs)) / jnp.sqrt(float(inputs))


def perceptron(
    inputs: int, hidden: int, outputs: int
) -> tuple[Callable[[jax.Array], Weights], Callable[[Weights, jax.Array], jax.Array]]:
    """The functions (init, apply) of z = tanh(x W_in + b_in) W_out + b_out."""

    def init(key: jax.Array) -> Weights:
        key_in, key_out = jax.random.split(key)
        return {
            "w_in": weights(key_in, inputs, hidden),
            "b_in": jnp.zeros(hidden),
            "w_out": weights(key_out, hidden, outputs),
            "b_out": jnp.zeros(outputs),
        }

    def apply(params: Weights, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["w_in"] + params["b_in"]) @ params["w_out"] + params["b_out"]

    return init, apply
