"""Batch sizes grow in stages, and they are the same for a number and inside jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import lab, landscapes


@pytest.mark.parametrize("factor", [1.3, 2.0, 3.0])
def test_the_stages_follow_the_formula(factor):
    sizes = gradtx.growing_batch_sizes(3, 50, every=4, factor=factor)
    expected = [min(50, round(3 * factor ** (k // 4))) for k in range(80)]
    assert [sizes(k) for k in range(80)] == expected
    np.testing.assert_array_equal(jax.jit(jax.vmap(sizes))(jnp.arange(80)), expected)
    np.testing.assert_array_equal(sizes(np.arange(80)), expected)
    assert sizes.sizes[-1] == 50
    assert all(isinstance(sizes(k), int) for k in (0, np.int64(7), 10**12))


def test_the_size_before_step_0_is_the_first_size():
    sizes = gradtx.growing_batch_sizes(4, 64, every=3)
    assert [sizes(k) for k in (-1, -3, -100)] == [4, 4, 4]
    np.testing.assert_array_equal(sizes(jnp.array([-1, -3, -100, 3])), [4, 4, 4, 8])
    np.testing.assert_array_equal(sizes(np.array([-1, 3])), [4, 8])


def test_equal_initial_and_final_sizes_give_one_size():
    assert gradtx.growing_batch_sizes(8, 8, every=1).sizes == (8,)


def test_a_run_of_the_lab_uses_growing_batch_sizes():
    sizes = gradtx.growing_batch_sizes(1, 2, every=3)
    landscape = landscapes.quadratic(10.0)
    history = lab.run(landscape, gradtx.sgd(0.1), steps=6, key=jax.random.key(0), batch_size_schedule=sizes)
    assert history.batch_sizes.tolist() == [1] * 3 + [2] * 3


def test_bad_arguments_are_refused_by_name():
    for arguments, message in (
        ({"initial": 0}, "initial must be at least 1, got 0"),
        ({"final": 1}, "final must be at least 2, got 1"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"factor": 1.0}, r"factor must be in \(1, inf\), got 1.0"),
    ):
        with pytest.raises(ValueError, match=f"^growing_batch_sizes: {message}"):
            gradtx.growing_batch_sizes(**{"initial": 2, "final": 8, "every": 1} | arguments)
    with pytest.raises(TypeError, match=r"growing_batch_sizes: every must be an integer, got 1\.5"):
        gradtx.growing_batch_sizes(2, 8, every=1.5)
    with pytest.raises(TypeError, match="growing_batch_sizes: factor must be a number, got '2'"):
        gradtx.growing_batch_sizes(2, 8, every=1, factor="2")
