"""The kind of a point is right, and so are the extreme eigenvalues, even of a degenerate spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

KEY = jax.random.key(0)


def rosenbrock(p):
    return (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2


def linear_net(p):
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return jnp.mean((x @ p["first"] @ p["second"] - x @ jnp.array([[1.0], [-2.0]])) ** 2)


def diagonal(*curvatures):
    return lambda p: jnp.sum(jnp.array(curvatures) * p**2) / 2


POINTS = {
    "saddle of x² - y²": (lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2), "saddle"),
    "beside that saddle": (lambda p: p[0] ** 2 - p[1] ** 2, jnp.array([1.0, 1.0]), "descending"),
    "within rounding of that saddle": (lambda p: p[0] ** 2 - p[1] ** 2, jnp.array([1e-6, 1e-6]), "saddle"),
    "monkey saddle": (lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2, jnp.zeros(2), "plateau"),
    "Rosenbrock's minimum": (rosenbrock, {"x": 1.0, "y": 1.0}, "minimum-like"),
    "Rosenbrock's start": (rosenbrock, {"x": -1.2, "y": 1.0}, "descending"),
    "Rosenbrock's valley": (rosenbrock, {"x": 0.5, "y": 0.25}, "descending"),
    "late in Rosenbrock's valley": (rosenbrock, {"x": 0.9, "y": 0.81}, "descending"),
    "linear net at 0": (linear_net, {"first": jnp.zeros((2, 3)), "second": jnp.zeros((3, 1))}, "saddle"),
    "a bowl's bottom": (diagonal(1.0, 1.0, 1.0), jnp.zeros(3), "minimum-like"),
    "a dome's top": (diagonal(-1.0, -2.0), jnp.zeros(2), "maximum-like"),
    "a valley, curvatures 2 and 0": (lambda p: (p[0] * p[1] - 1) ** 2, jnp.ones(2), "minimum-like"),
    "the same valley, scaled by 3": (lambda p: (3 * p[0] * p[1] - 3) ** 2, jnp.array([3.0, 1 / 3]), "minimum-like"),
    "flat": (lambda p: 0 * jnp.sum(p) + 3.0, jnp.ones(4), "plateau"),
    "flat at loss 0": (lambda p: 0 * jnp.sum(p), jnp.ones(4), "plateau"),
    "a saturated unit": (lambda p: (jax.nn.sigmoid(p) + 1) ** 2, 30.0, "plateau"),
    "a slope without curvature": (jnp.sum, jnp.zeros(3), "descending"),
    "a slope that is long for parameters of 100": (lambda p: 1 + 1e-5 * (p - 100), 100.0, "descending"),
    "a curvature that is large for parameters of 100": (lambda p: 1 + 5e-8 * (p - 100) ** 2, 100.0, "minimum-like"),
}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.sampled(8)
def test_critical_point_finds_the_right_kind_of_point(name):
    value_fn, params, kind = POINTS[name]
    found = gradtx.critical_point(value_fn, params, key=KEY)
    assert found.kind == kind, found


@pytest.mark.parametrize("unit", [1e-25, 1e-6, 1e6, 1e25])
def test_the_unit_of_the_loss_does_not_change_the_kind(unit):
    for value_fn, at, kind in ((POINTS["saddle of x² - y²"]), (POINTS["beside that saddle"])):
        found = gradtx.critical_point(lambda p, f=value_fn: unit * f(p), at, key=KEY)
        assert found.kind == kind
        np.testing.assert_allclose([found.lambda_min / unit, found.lambda_max / unit], [-2, 2], rtol=1e-5)


SPECTRA = [
    [1.0] * 6, [3.0] * 6, [0.0] * 6, [1.0] * 5 + [10.0], [3.0, -3.0, 1.0], [1.0, -3.0, 2.0], [0.0, 0.0, 5.0], [-2.0],
    [1e-3] * 40 + [-1e3],
]  # fmt: skip


@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.sampled(7)
def test_both_extreme_eigenvalues_of_a_degenerate_spectrum_are_exact(spectrum, seed):
    root = np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum)))
    rotation = np.linalg.qr(root)[0]
    matrix = jnp.asarray(rotation * spectrum @ rotation.T, jnp.float32)
    found = gradtx.critical_point(lambda p: p @ matrix @ p / 2, jnp.zeros(len(spectrum)), key=jax.random.key(seed))
    scale = max(1e-3, np.abs(spectrum).max())
    np.testing.assert_allclose([found.lambda_min, found.lambda_max], [min(spectrum), max(spectrum)], atol=3e-6 * scale)
    assert max(found.residual_min, found.residual_max) <= 1e-4 * scale


@pytest.mark.slow
def test_the_extreme_eigenvalues_of_a_net_match_its_dense_hessian(x64):
    params = {"w": jax.random.normal(KEY, (3, 4)), "none": None, "v": jax.random.normal(jax.random.key(1), (4,))}
    x = jax.random.normal(jax.random.key(2), (10, 3))

    def loss(p):
        return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - x[:, 0]) ** 2)

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    expected = np.linalg.eigvalsh(jax.hessian(lambda p: loss(unravel(p)))(flat))
    found = gradtx.critical_point(loss, params, key=KEY)
    assert found.lambda_min.dtype == jnp.float64
    np.testing.assert_allclose([found.lambda_min, found.lambda_max], expected[[0, -1]], rtol=1e-9)
    np.testing.assert_allclose(
        found.gradient_norm, np.linalg.norm(jax.grad(lambda p: loss(unravel(p)))(flat)), rtol=1e-9
    )


@pytest.mark.slow
def test_an_eigenvalue_lies_within_the_residual_and_estimates_stay_inside_the_spectrum():
    spectrum = jnp.linspace(-1.0, 4.0, 200)
    gaps = []
    for k in (1, 3, 10, 30):
        found = gradtx.critical_point(diagonal(*spectrum.tolist()), jnp.zeros(200), key=KEY, num_iterations=k)
        for end, residual in ((found.lambda_min, found.residual_min), (found.lambda_max, found.residual_max)):
            assert jnp.min(jnp.abs(spectrum - end)) <= residual + 1e-5
        assert found.lambda_min >= -1 - 1e-5
        assert found.lambda_max <= 4 + 1e-5
        gaps.append(float(found.lambda_min + 1))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.02


def test_each_extreme_eigenvalue_has_a_separate_residual():
    spectrum = [
        *np.linspace(0.0, 1.0, 100),
        100.0,
    ]  # only the isolated eigenvalue converges
    found = gradtx.critical_point(diagonal(*spectrum), jnp.zeros(101), key=KEY, num_iterations=8)
    assert found.residual_max < 1e-3 < 1e-2 < found.residual_min


def test_a_fitted_net_with_flat_directions_is_minimum_like():
    x = jax.random.normal(KEY, (8, 3))
    y = jnp.sin(x[:, 0])
    params = {"w": jax.random.normal(jax.random.key(1), (3, 16)), "v": jax.random.normal(jax.random.key(2), (16,)) / 4}

    def loss(p):
        return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - y) ** 2)

    step = jax.jit(lambda p: jax.tree.map(lambda x, g: x - 0.1 * g, p, jax.grad(loss)(p)))
    params = jax.lax.fori_loop(0, 20_000, lambda _, p: step(p), params)
    found = gradtx.critical_point(loss, params, key=KEY, num_iterations=40)
    assert found.kind == "minimum-like", found
    assert abs(found.lambda_min) < 1e-3 * found.lambda_max  # 64 parameters, 8 examples


def test_the_text_about_a_minimum_states_the_residual():
    found = gradtx.critical_point(diagonal(*range(1, 50)), jnp.zeros(49), key=KEY, num_iterations=4)
    assert found.residual_min > 0.1
    for text in (str(found), repr(found)):
        assert "minimum-like" in text
        assert f"(residual {found.residual_min:.1g})" in text
        assert "to within the residual" in text


def test_critical_point_works_under_jit_and_vmap():
    points = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    find = jax.jit(jax.vmap(lambda p: gradtx.critical_point(lambda q: q[0] ** 2 - q[1] ** 2, p, key=KEY)))
    found = find(points)
    np.testing.assert_allclose(found.lambda_min, [-2, -2], rtol=1e-5)
    kinds = [jax.tree.map(lambda x, i=i: x[i], found).kind for i in range(2)]
    assert kinds == ["saddle", "descending"]
    with pytest.raises(ValueError, match="kind is of one point"):
        _ = found.kind


def test_bfloat16_parameters_are_judged_in_float32():
    params = {"x": jnp.array(1.0, jnp.bfloat16), "y": jnp.array(1.0, jnp.bfloat16)}
    found = gradtx.critical_point(rosenbrock, params, key=KEY)
    exact = np.linalg.eigvalsh([[802.0, -400.0], [-400.0, 200.0]])
    np.testing.assert_allclose([found.lambda_min, found.lambda_max], exact, atol=1e-6 * exact[1])  # rounding of float32


def test_a_nonfinite_loss_is_refused():
    with pytest.raises(ValueError, match="not finite here"):
        gradtx.critical_point(lambda p: jnp.sum(jnp.log(p)), jnp.zeros(2), key=KEY)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_iterations": 0}, ValueError, "critical_point: num_iterations must be at least 1, got 0."),
        ({"num_iterations": 2.0}, TypeError, "critical_point: num_iterations must be an integer, got 2.0"),
        ({"gradient_tolerance": -1.0}, ValueError, "gradient_tolerance must be in .0, inf., got -1.0"),
        ({"curvature_tolerance": float("nan")}, ValueError, "curvature_tolerance must be in .0, inf., got nan"),
        ({"gradient_tolerance": None}, TypeError, "gradient_tolerance must be a number, got None"),
        ({"key": None}, TypeError, "critical_point: key must be a JAX random key, as jax.random.key.0., got None"),
        ({"key": 0}, TypeError, "key must be a JAX random key"),
        ({"key": jax.random.split(KEY, 3)}, ValueError, "key must be one key, got an array of keys of shape .3,."),
        ({"value_fn": lambda p: p}, ValueError, r"value_fn must return a real floating scalar, got shape \(2,\)"),
        ({"value_fn": lambda p: (p[0], p[1])}, TypeError, "value_fn must return a scalar, got tuple"),
        ({"value_fn": 3}, TypeError, "value_fn must be a function of the parameters, got 3"),
        ({"params": {"a": jnp.arange(2)}}, TypeError, r"params\['a'\] must be of a floating dtype, got int32"),
        ({"params": jnp.zeros(2, jnp.complex64)}, ValueError, "must be real, got complex64"),
        ({"params": {"f": jnp.tanh}}, TypeError, r"params\['f'\] must be an array"),
        ({"params": {"none": None}}, ValueError, "params must hold at least one number"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, error, message):
    arguments = {"value_fn": lambda p: jnp.sum(p**2), "params": jnp.zeros(2), "key": KEY} | change
    with pytest.raises(error, match=message):
        gradtx.critical_point(arguments.pop("value_fn"), arguments.pop("params"), **arguments)
