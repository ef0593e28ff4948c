"""Slices give the loss at the stated points, and filter normalisation makes nets of different scale comparable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (20, 3))


def double_well(p):
    return jnp.sum((p["x"] ** 2 - 1) ** 2)


def net(p):
    return jnp.mean((jax.nn.relu(X @ p["first"] + p["bias"]) @ p["second"] - X[:, :1]) ** 2)


def params_of_net(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(2), 3)
    shapes = {"first": (3, 5), "bias": (5,), "second": (5, 1)}
    return {name: jax.random.normal(k, s, dtype) for k, (name, s) in zip(keys, shapes.items(), strict=True)}


def test_a_line_between_the_wells_of_a_double_well_shows_the_barrier():
    start, end = {"x": jnp.array([-1.0, 1.0])}, {"x": jnp.array([1.0, 1.0])}
    positions, values = gradtx.line_slice(double_well, start, end)
    expected = np.linspace(0, 1, 51)
    np.testing.assert_allclose(positions, expected, rtol=1e-6)
    np.testing.assert_allclose(values, ((2 * expected - 1) ** 2 - 1) ** 2, atol=1e-6)
    assert int(jnp.argmax(values)) == 25
    assert values[25] == 1


def test_a_line_is_straight_on_a_linear_loss_and_falls_into_a_bowl():
    start, end = jnp.array([1.0, 4.0]), jnp.array([3.0, -2.0])
    positions, values = gradtx.line_slice(lambda p: p @ jnp.array([2.0, 1.0]), start, end, num_points=5)
    np.testing.assert_allclose(values, 6 - 2 * positions, rtol=1e-6)
    _, values = gradtx.line_slice(lambda p: jnp.sum((p - end) ** 2), start, end, num_points=5)
    assert (jnp.diff(values) < 0).all()


def test_the_ends_of_a_line_are_exactly_the_losses_at_both_points():
    start = params_of_net()
    end = jax.tree.map(lambda x: 1e8 * x + 0.1, start)
    _, values = gradtx.line_slice(net, start, end, num_points=2)
    assert values.tolist() == [jax.jit(net)(start), jax.jit(net)(end)]


def test_the_filters_of_both_directions_of_a_plane_have_the_norms_of_the_parameters():
    shapes = {"matrix": (3, 4), "kernel": (2, 2, 3, 5), "bias": (5,), "scalar": ()}
    params = {n: jax.random.normal(jax.random.key(i), s) + 1 for i, (n, s) in enumerate(shapes.items())}
    names = sorted(shapes)

    def norms(p):  # of each filter
        return np.concatenate([
            np.ravel(np.sqrt(np.sum(np.reshape(p[n], (-1, p[n].shape[-1] if p[n].ndim > 1 else 1)) ** 2, axis=0)))
            for n in names
        ])  # fmt: skip

    flat, unravel = jax.flatten_util.ravel_pytree(params)

    @jax.jit
    @jax.vmap
    def plane_of_entry(index):  # returns one entry of all points of the plane
        def entry(p):
            return jax.flatten_util.ravel_pytree(p)[0][index]

        return gradtx.plane_slice(entry, params, key=KEY, num_points=3)[2]

    points = plane_of_entry(jnp.arange(flat.size))
    np.testing.assert_array_equal(points[:, 1, 1], flat)
    directions = [unravel(points[:, i, j] - flat) for i, j in ((2, 1), (1, 2))]
    np.testing.assert_allclose(points[:, 0, 1] - flat, flat - points[:, 2, 1], atol=1e-6)
    for d in directions:
        np.testing.assert_allclose(norms(d), norms(params), rtol=1e-4)
    assert not np.allclose(directions[0]["matrix"], directions[1]["matrix"], atol=0.1)


def test_a_plane_does_not_change_if_a_layer_is_rescaled_against_the_next_one():
    params = params_of_net()
    scale = jnp.array([10.0, 0.1, 3.0, 1.0, 1e-3])
    rescaled = {"first": params["first"] * scale, "bias": 10 * params["bias"], "second": params["second"] / 10}
    uniform = {"first": 10 * params["first"], "bias": 10 * params["bias"], "second": params["second"] / 10}
    _, _, expected = gradtx.plane_slice(net, params, key=KEY, num_points=3)
    _, _, values = gradtx.plane_slice(net, uniform, key=KEY, num_points=3)
    np.testing.assert_allclose(values, expected, rtol=1e-4)  # relu(10 x) / 10 = relu(x)
    _, _, plain = gradtx.plane_slice(lambda p: net(p | {"first": p["first"] / scale, "bias": p["bias"] / 10,
                                                        "second": p["second"] * 10}),
                                     rescaled, key=KEY, num_points=3)  # fmt: skip
    np.testing.assert_allclose(plain, expected, rtol=1e-3)  # each column is a filter
    assert expected.std() > 0.1


def test_the_filter_axis_can_be_the_first_axis():
    params = params_of_net()
    turned = {"first": params["first"].T, "bias": params["bias"], "second": params["second"].T}
    scaled = turned | {"first": turned["first"] * jnp.array([[10.0], [0.1], [3.0], [1.0], [1e-3]])}
    axis = {"key": KEY, "num_points": 3, "filter_axis": 0}
    _, _, expected = gradtx.plane_slice(lambda p: jnp.sum(p["first"] ** 2), turned, **axis)
    back = jnp.array([[0.1], [10.0], [1 / 3], [1.0], [1e3]])
    _, _, values = gradtx.plane_slice(lambda p: jnp.sum((back * p["first"]) ** 2), scaled, **axis)
    np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_the_middle_of_a_plane_is_the_point_and_a_filter_of_zeros_does_not_move():
    params = params_of_net() | {"bias": jnp.zeros(5)}
    a, b, values = gradtx.plane_slice(net, params, key=KEY, num_points=3, radius=0.5)
    assert a.tolist() == b.tolist() == [-0.5, 0.0, 0.5]
    assert values.shape == (3, 3)
    np.testing.assert_allclose(values[1, 1], net(params), rtol=1e-6)
    _, _, biases = gradtx.plane_slice(lambda p: jnp.sum(p["bias"] ** 2), params, key=KEY, num_points=3)
    np.testing.assert_array_equal(biases, 0.0)


def test_a_quadratic_loss_is_quadratic_along_a_plane():
    a, b, values = gradtx.plane_slice(lambda p: jnp.sum(p**2), jnp.ones(30), key=KEY, num_points=5)
    terms = np.stack([np.ones((5, 5)), *np.meshgrid(a, b, indexing="ij")], axis=-1)
    terms = np.concatenate([terms, terms[..., 1:] ** 2, terms[..., 1:2] * terms[..., 2:]], axis=-1).reshape(25, 6)
    coefficients, residual, _, _ = np.linalg.lstsq(terms, np.ravel(values), rcond=None)
    assert residual < 1e-6
    np.testing.assert_allclose(coefficients[[0, 3, 4]], 30, rtol=1e-4)  # each direction is as long as the parameters


def test_lines_and_planes_are_the_same_under_jit_and_vmap():
    def at(x):
        p = {"x": x}
        line = gradtx.line_slice(double_well, p, {"x": x + 1}, num_points=3)
        return line, gradtx.plane_slice(double_well, p, key=KEY, num_points=2)

    points = jnp.array([[1.0, 2.0], [0.3, -1.0]])
    batched = jax.jit(jax.vmap(at))(points)
    for i, x in enumerate(points):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), batched, at(x))


def test_bfloat16_points_are_widened_and_numpy_arrays_are_accepted():
    half = {"x": jnp.array([-1.0], jnp.bfloat16)}
    positions, values = gradtx.line_slice(double_well, half, {"x": np.array([1.0])}, num_points=3)
    assert {positions.dtype, values.dtype} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(values, [0, 1, 0])


LINE = {"params": jnp.zeros(2), "other": jnp.ones(2)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_points": 1}, ValueError, "num_points must be at least 2, got 1"),
        ({"other": jnp.ones(3)}, ValueError, r"other must be a tree like params, \(2,\), got \(3,\)"),
        ({"other": [jnp.ones(2)]}, ValueError, r"other must be a tree like params, \(2,\), got \[\(2,\)\]"),
        ({"other": jnp.ones(2, int)}, TypeError, "other must be of a floating dtype, got int32"),
        ({"value_fn": lambda p: p}, ValueError, "must return a real floating scalar"),
    ],
)
def test_bad_arguments_of_line_slice_are_refused_by_name(change, error, message):
    arguments = {"value_fn": jnp.sum} | LINE | change
    with pytest.raises(error, match=f"line_slice: .*{message}"):
        gradtx.line_slice(**arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_points": 1}, ValueError, "num_points must be at least 2, got 1"),
        ({"radius": 0.0}, ValueError, r"radius must be in \(0, inf\), got 0.0"),
        ({"radius": "1"}, TypeError, "radius must be a number, got '1'"),
        ({"radius": float("nan")}, ValueError, r"radius must be in \(0, inf\), got nan"),
        ({"filter_axis": 2}, ValueError, r"filter_axis must be an axis of every leaf, got 2 for \(3, 5\)"),
        ({"filter_axis": 0.5}, TypeError, "filter_axis must be an integer, got 0.5"),
        ({"key": 3}, TypeError, "key must be a JAX random key"),
        ({"params": {"a": jnp.zeros(2, jnp.complex64)}}, ValueError, "must be real, got complex64"),
    ],
)
def test_bad_arguments_of_plane_slice_are_refused_by_name(change, error, message):
    arguments = {"value_fn": net, "params": params_of_net(), "key": KEY} | change
    with pytest.raises(error, match=f"plane_slice: .*{message}"):
        gradtx.plane_slice(arguments.pop("value_fn"), arguments.pop("params"), **arguments)
