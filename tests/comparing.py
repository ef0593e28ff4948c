"""Tests compare trees here: structure, shapes and dtypes always, and values exactly or within a tolerance."""

from contextlib import contextmanager

import chex
import jax
import numpy as np


@contextmanager
def enable_x64():
    """Enables float64, like `JAX_ENABLE_X64=1`."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def assert_same(got, expected, **tolerance):
    """Raises unless two trees have equal structures, shapes, dtypes and values. NaN equals NaN.

    `tolerance` (`rtol`, `atol`) is for the values. Without it they must be equal bit for bit.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(got, expected)
    if tolerance:
        chex.assert_trees_all_close(got, expected, **tolerance)
    else:
        chex.assert_trees_all_equal(got, expected)


def assert_same_sweep(got, expected, **tolerance):
    """Raises unless two sweeps have the same arrays, as `assert_same` compares them, and the same names."""
    numbers, words = zip(*map(numbers_and_words, (got, expected)), strict=True)
    assert_same(*numbers, **tolerance)
    assert words[0] == words[1]


def numbers_and_words(sweep):
    words = {name: value for name, value in sweep.to_dict().items() if isinstance(value, str | bool)}
    return {name: value for name, value in sweep.to_dict().items() if name not in words}, words


def types(tree):
    """Returns shapes, dtypes and weak types of a tree of arrays or of a result of `jax.eval_shape`."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def is_finite(tree):
    return all(bool(np.all(np.isfinite(np.asarray(x, np.complex128)))) for x in jax.tree.leaves(tree))


def arrays_of(variables):
    """Returns the arrays of Flax's variables. Flax renamed this function."""
    from flax import nnx

    return (nnx.as_pure if hasattr(nnx, "as_pure") else nnx.pure)(variables)
