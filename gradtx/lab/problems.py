"""Real training problems behind one interface: parameters, per-example losses, the metric one cares about, the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Batch = tuple[jax.Array, jax.Array]  # inputs [n, ...], targets [n]


@dataclass(frozen=True)
class Problem:
    """A training problem: what `train_grid` and `compare` need to know of it."""

    name: str
    description: str
    init: Callable[[jax.Array], Any]  # random key -> parameters
    losses: Callable[[Any, Batch], jax.Array]  # parameters, batch -> [n], the loss of each example
    metric: Callable[[Any, Batch], jax.Array]  # parameters, batch -> [], fraction of the examples that are right
    train: Batch
    validation: Batch

    def loss(self, params: Any, batch: Batch) -> jax.Array:
        """Mean loss over a batch: the empirical risk of chapter §1.1."""
        return jnp.mean(self.losses(params, batch))


def digits(hidden: int = 32, validation_examples: int = 360) -> Problem:
    """A perceptron with one hidden layer on scikit-learn's digits: 1,797 real 8x8 images of handwritten digits.

    Inputs in [0, 1] (pixels / 16), tanh units, softmax cross-entropy in nats as the surrogate of the error rate. The
    split into training and validation is stratified and the same in every call.

    Args:
        hidden: units of the hidden layer.
        validation_examples: how many of the 1,797 are held out.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x_train, x_valid, y_train, y_valid = train_test_split(
        images.astype(np.float32) / 16, labels, test_size=validation_examples, stratify=labels, random_state=0
    )

    def init(key: jax.Array) -> dict[str, jax.Array]:
        key_in, key_out = jax.random.split(key)
        return {
            "w_in": jax.random.normal(key_in, (64, hidden)) / jnp.sqrt(64.0),
            "b_in": jnp.zeros(hidden),
            "w_out": jax.random.normal(key_out, (hidden, 10)) / jnp.sqrt(float(hidden)),
            "b_out": jnp.zeros(10),
        }

    def logits(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["w_in"] + params["b_in"]) @ params["w_out"] + params["b_out"]

    def losses(params: dict[str, jax.Array], batch: Batch) -> jax.Array:
        x, y = batch
        scores = jax.nn.log_softmax(logits(params, x))
        return -jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]

    def metric(params: dict[str, jax.Array], batch: Batch) -> jax.Array:
        x, y = batch
        return jnp.mean(jnp.argmax(logits(params, x), axis=1) == y)

    return Problem(
        name="digits",
        description=f"1,797 real 8x8 images of digits, MLP 64-{hidden}-10",
        init=init,
        losses=losses,
        metric=metric,
        train=(jnp.asarray(x_train), jnp.asarray(y_train, jnp.int32)),
        validation=(jnp.asarray(x_valid), jnp.asarray(y_valid, jnp.int32)),
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {"digits": digits}
