"""The program of the losses shows whether the loss of an example depends on other examples."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.instruments.batch_statistics import mixes_examples

X = jax.random.normal(jax.random.key(0), (6, 4))
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
Y = jnp.arange(6) % 3
PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3), "k": jnp.ones((3, 3, 3, 3))}


def normalised(h, axis):
    return (h - jnp.mean(h, axis, keepdims=True)) / jnp.sqrt(jnp.var(h, axis, keepdims=True) + 1e-5)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y)


def dense(p):
    return X @ p["w"] + p["b"]


def convolved(p):
    return jax.lax.conv_general_dilated(IMAGES, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


MIXED = {
    "batch normalisation": lambda p: cross_entropy(normalised(dense(p), 0)),
    "batch normalisation in jit and checkpoint": lambda p: cross_entropy(
        jax.jit(lambda h: jax.checkpoint(jnp.tanh)(normalised(jax.nn.relu(h), 0)))(dense(p))
    ),
    "batch normalisation of a convolution": lambda p: cross_entropy(
        jnp.mean(normalised(convolved(p), (0, 1, 2)), (1, 2))
    ),
    "contrastive": lambda p: -jnp.diag(jax.nn.log_softmax(dense(p) @ dense(p).T, axis=0)),
    "centred losses": lambda p: cross_entropy(dense(p)) - jnp.mean(cross_entropy(dense(p))),
}
ALONE = {
    "dense": lambda p: cross_entropy(dense(p)),
    "layer normalisation": lambda p: cross_entropy(normalised(dense(p), 1)),
    "convolution and pooling": lambda p: cross_entropy(jnp.mean(jax.nn.relu(convolved(p)), (1, 2))),
    "vmap": lambda p: jax.vmap(lambda x, y: -jax.nn.log_softmax(x @ p["w"] + p["b"])[y])(X, Y),
    "a normalised input": lambda p: cross_entropy(normalised(X, 0) @ p["w"]),
    "weights of the examples": lambda p: cross_entropy(dense(p)) * Y / jnp.sum(Y),
    "rows of a data set": lambda p: cross_entropy(jnp.concatenate([X, X])[jnp.arange(6)] @ p["w"]),
    "a penalty on the weights": lambda p: cross_entropy(dense(p)) + jnp.sum(p["w"] ** 2),
    "a product as wide as the batch": lambda p: cross_entropy((dense(p) @ jnp.ones((3, 6))) @ jnp.ones((6, 3))),
}


@pytest.mark.parametrize("name", MIXED)
def test_losses_that_depend_on_other_examples_are_detected(name):
    assert mixes_examples(MIXED[name], PARAMS)


@pytest.mark.parametrize("name", ALONE)
def test_losses_that_depend_on_one_example_each_are_not_reported(name):
    assert not mixes_examples(ALONE[name], PARAMS)


@pytest.mark.parametrize("name", ["gradient_noise_scale", "gradient_tests", "panel"])
def test_instruments_warn_only_if_the_loss_of_an_example_depends_on_other_examples(name):
    tx = gradtx.panel(0.1) if name == "panel" else getattr(gradtx, name)()

    def trace(losses_fn):
        @jax.jit
        def step(p):
            return tx.update(p, tx.init(p), p, losses_fn=losses_fn)[1]

        step.trace(PARAMS)

    with pytest.warns(UserWarning, match=f"^{name}: in losses_fn the loss of an example depends on the other examples"):
        trace(MIXED["batch normalisation"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(ALONE["dense"])
