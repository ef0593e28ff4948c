"""Grids hold numbers that can be traced, in the order in which they were given."""

import jax
import numpy as np
import pytest

from gradtx import lab
from gradtx.lab.grids import checked_axes, points


def test_a_random_grid_is_uniform_in_the_logarithm_or_linear_if_asked():
    ranges = {"learning_rate": (1e-4, 1.0), "momentum": (0.0, 0.8)}
    grid = lab.random_grid(ranges, 4000, jax.random.key(0), linear=["momentum"])
    logs, linear = np.log10(grid.columns["learning_rate"]), grid.columns["momentum"]
    assert (logs.min() >= -4, logs.max() <= 0, linear.min() >= 0, linear.max() <= 0.8) == (True,) * 4
    np.testing.assert_allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-3, -2, -1], atol=0.15)
    np.testing.assert_allclose(np.quantile(linear, [0.25, 0.5, 0.75]), [0.2, 0.4, 0.6], atol=0.03)
    assert abs(np.corrcoef(logs, linear)[0, 1]) < 0.05


def test_points_are_the_product_of_the_axes_in_c_order():
    columns = points(checked_axes("sweep", {"a": [1.0, 2.0], "b": [3, 4, 5]}), is_random=False)
    np.testing.assert_array_equal(columns["a"], [1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(columns["b"], [3, 4, 5, 3, 4, 5])
    assert (columns["a"].dtype, columns["b"].dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    ("ranges", "count", "linear", "message"),
    [
        ({"a": (1.0, 2.0)}, 0, [], "num_points must be at least 1, got 0"),
        ({"a": (0.0, 2.0)}, 3, [], "the range of a must be finite with 0 < low <= high"),
        ({"a": (2.0, 1.0)}, 3, ["a"], "the range of a must be finite with low <= high"),
        ({"a": (1.0, np.inf)}, 3, [], "the range of a must be finite"),
        ({"a": (1.0, 2.0)}, 3, ["b"], r"linear names \['b'\], which ranges does not hold"),
    ],
)
def test_an_invalid_range_is_refused(ranges, count, linear, message):
    with pytest.raises(ValueError, match=message):
        lab.random_grid(ranges, count, jax.random.key(0), linear=linear)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_points": 2.5}, "random_grid: num_points must be an integer, got 2.5"),
        ({"key": 0}, r"random_grid: key must be a JAX random key, as jax.random.key\(0\), got 0"),
        ({"ranges": {}}, "random_grid: ranges must be a dict such as .*, got {}"),
        ({"ranges": {"a": 0.1}}, r"the range of a must be \(low, high\), two numbers, got 0.1"),
        ({"ranges": {"a": ("1", "2")}}, r"the range of a must be \(low, high\), two numbers"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_name(change, message):
    arguments = {"ranges": {"a": (1.0, 2.0)}, "num_points": 3, "key": jax.random.key(0)} | change
    with pytest.raises(TypeError, match=message):
        lab.random_grid(**arguments)


@pytest.mark.parametrize("grid", [{}, [0.1, 0.2], {"a": []}, {"a": 0.1}, {"a": ["x"]}, {"a": [True]}, {"a": [None]}])
def test_a_grid_without_lists_of_numbers_is_refused(grid):
    with pytest.raises(TypeError, match=r"sweep: (grid must be a dict such as|the grid's a must be a list of numbers)"):
        checked_axes("sweep", grid)
