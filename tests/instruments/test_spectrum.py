"""The quadrature has the moments of the Hessian, the trace is unbiased, and its standard error is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gradtx
from tests.oracles import rotated

KEY = jax.random.key(0)


def quadratic(matrix):
    matrix = jnp.asarray(matrix)
    return lambda x: x @ matrix @ x / 2


def symmetric(n, seed=0):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return (root + root.T) / 2


def probes_of(num_probes, n, dtype=jnp.float64):
    """Returns the signs that the functions draw from `KEY` for a point of one leaf."""
    keys = jax.random.split(KEY, num_probes)
    return np.stack([jax.random.rademacher(jax.random.split(k, 1)[0], (n,), dtype) for k in keys])


def test_the_moments_of_each_probe_are_exact_up_to_degree_2k_minus_1(x64):
    n, k, m = 12, 4, 3
    matrix = symmetric(n)
    nodes, weights = gradtx.spectral_density(quadratic(matrix), jnp.zeros(n), key=KEY, num_probes=m, num_iterations=k)
    for v, node, weight in zip(probes_of(m, n), np.asarray(nodes), np.asarray(weights) * m, strict=True):
        for degree in range(2 * k):
            exact = v @ np.linalg.matrix_power(matrix, degree) @ v / n
            np.testing.assert_allclose(np.sum(weight * node**degree), exact, rtol=1e-10, atol=1e-10)
        exact = v @ np.linalg.matrix_power(matrix, 2 * k) @ v / n
        assert abs(np.sum(weight * node ** (2 * k)) / exact - 1) > 1e-6  # k nodes do not reproduce more moments


def test_nodes_and_weights_match_a_dense_krylov_projection_from_the_same_start(x64):
    n, k = 12, 5
    matrix, v = symmetric(n), probes_of(1, n)[0]
    krylov = np.linalg.qr(np.stack([np.linalg.matrix_power(matrix, i) @ v for i in range(k)], axis=1))[0]
    expected, vectors = np.linalg.eigh(krylov.T @ matrix @ krylov)
    nodes, weights = gradtx.spectral_density(quadratic(matrix), jnp.zeros(n), key=KEY, num_probes=1, num_iterations=k)
    np.testing.assert_allclose(nodes[0], expected, rtol=1e-8)
    np.testing.assert_allclose(weights[0], (vectors.T @ krylov.T @ v) ** 2 / n, rtol=1e-8)


@pytest.mark.parametrize("k", [1, 25])
@pytest.mark.sampled(1)
def test_the_weights_of_each_probe_are_non_negative_and_sum_to_its_share(k):
    nodes, weights = gradtx.spectral_density(
        quadratic(np.float32(symmetric(20))), jnp.zeros(20), key=KEY, num_probes=4, num_iterations=k
    )
    assert nodes.shape == weights.shape == (4, k)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 0.25, rtol=1e-6)
    assert (np.diff(nodes) >= 0).all()


def test_the_first_moment_is_the_mean_curvature_within_its_standard_error(x64):
    matrix = symmetric(40) + 2 * np.eye(40)
    nodes, weights = gradtx.spectral_density(quadratic(matrix), jnp.zeros(40), key=KEY, num_probes=32, num_iterations=2)
    rows = 32 * np.sum(weights * nodes, axis=1)
    error = np.std(rows, ddof=1) / 32**0.5
    assert 0 < error < 0.2
    assert abs(np.sum(weights * nodes) - np.trace(matrix) / 40) < 3 * error


def test_two_clusters_of_eigenvalues_are_found_with_their_shares():
    spectrum = [*np.linspace(-1.05, -0.95, 30), *np.linspace(9.9, 10.1, 10)]
    nodes, weights = gradtx.spectral_density(
        quadratic(np.float32(rotated(spectrum))), jnp.zeros(40), key=KEY, num_probes=12, num_iterations=6
    )
    has_weight = weights > 1e-6
    lower, upper = (nodes > -1.051) & (nodes < -0.949), (nodes > 9.89) & (nodes < 10.11)
    assert (lower | upper)[has_weight].all()
    np.testing.assert_allclose(jnp.sum(weights * lower), 0.75, atol=0.05)
    np.testing.assert_allclose(jnp.sum(weights * (nodes < 0)), 0.75, atol=0.05)


DIAGONAL = {
    "identity": [1.0] * 6, "three times identity": [3.0] * 6, "zero": [0.0] * 6, "one outlier": [1.0] * 5 + [10.0],
    "both signs": [3.0, -3.0, 1.0],
}  # fmt: skip


@pytest.mark.parametrize("name", DIAGONAL)
@pytest.mark.sampled(2)
def test_a_degenerate_diagonal_spectrum_is_exact_without_spurious_eigenvalues(name):
    spectrum = np.array(DIAGONAL[name])
    nodes, weights = gradtx.spectral_density(
        lambda x: jnp.sum(jnp.asarray(spectrum, jnp.float32) * x**2) / 2, jnp.zeros(len(spectrum)), key=KEY,
        num_probes=2, num_iterations=8,
    )  # fmt: skip
    values, counts = np.unique(spectrum, return_counts=True)
    for row, weight in zip(np.asarray(nodes), 2 * np.asarray(weights), strict=True):
        np.testing.assert_allclose(row[: len(values)], values, atol=1e-5)
        np.testing.assert_allclose(row[len(values) :], values[-1], atol=1e-5)
        np.testing.assert_allclose(weight, np.pad(counts / len(spectrum), (0, 8 - len(values))), atol=1e-5)


def test_the_trace_of_a_net_with_two_leaves_matches_its_dense_hessian(x64):
    params = {"w": jax.random.normal(KEY, (3, 4)), "none": None, "v": jax.random.normal(jax.random.key(1), (4,))}
    x = jax.random.normal(jax.random.key(2), (10, 3))

    def loss(p):
        return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - x[:, 0]) ** 2)

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    hessian = np.asarray(jax.jit(jax.hessian(lambda p: loss(unravel(p))))(flat))
    trace, error = gradtx.hessian_trace(loss, params, key=jax.random.key(7), num_probes=64)
    off = hessian - np.diag(np.diag(hessian))
    np.testing.assert_allclose(error, np.sqrt(2) * np.linalg.norm(off) / 8, rtol=0.3)
    assert abs(trace - np.trace(hessian)) < 3 * error


@pytest.mark.parametrize("seed", range(3))
def test_the_trace_of_a_diagonal_hessian_is_exact_without_error(seed):
    spectrum = jnp.array([1.0, -2.0, 4.0, 0.5, 0.0])
    trace, error = gradtx.hessian_trace(
        lambda p: jnp.sum(spectrum * p**2) / 2, jnp.ones(5), key=jax.random.key(seed), num_probes=3
    )
    np.testing.assert_allclose(trace, 3.5, rtol=1e-6)
    assert error == 0


def test_the_trace_is_the_mean_over_its_probes(x64):
    matrix = symmetric(8)
    samples = np.einsum("pi,ij,pj->p", probes_of(5, 8), matrix, probes_of(5, 8))
    trace, error = gradtx.hessian_trace(quadratic(matrix), jnp.ones(8), key=KEY, num_probes=5)
    np.testing.assert_allclose(trace, samples.mean(), rtol=1e-12)
    np.testing.assert_allclose(error, stats.sem(samples), rtol=1e-12)


def test_the_standard_error_of_the_trace_covers_the_truth_at_the_expected_rate():
    matrix = np.float32(symmetric(20))
    estimate = jax.jit(jax.vmap(lambda key: gradtx.hessian_trace(quadratic(matrix), jnp.zeros(20), key=key)))
    traces, errors = estimate(jax.random.split(KEY, 1000))
    z = (np.asarray(traces) - np.trace(matrix)) / np.asarray(errors)
    for multiple in (1.0, 2.0):
        expected = 1 - 2 * stats.t(31).sf(multiple)  # 32 probes
        np.testing.assert_allclose(np.mean(np.abs(z) < multiple), expected, atol=0.04)
    assert abs(np.mean(z)) < 4 / 1000**0.5
    off = matrix - np.diag(np.diag(matrix))
    np.testing.assert_allclose(np.std(traces), np.sqrt(2 / 32) * np.linalg.norm(off), rtol=0.1)


def test_the_traces_per_leaf_are_those_of_the_blocks_and_add_up_to_the_whole(x64):
    """All traces use the same probes. A sample of a leaf is v'Hv over the rows of its block."""
    matrix = symmetric(5)
    params = {"a": jnp.ones(2), "none": None, "b": jnp.ones((1, 3))}

    def loss(p):
        return quadratic(matrix)(jnp.concatenate([p["a"], p["b"].ravel()]))

    whole, _ = gradtx.hessian_trace(loss, params, key=KEY, num_probes=400)
    trace, error = gradtx.hessian_trace(loss, params, key=KEY, num_probes=400, per_leaf=True)
    assert set(trace) == set(error) == set(params)
    assert trace["none"] is None
    np.testing.assert_allclose(trace["a"] + trace["b"], whole, rtol=1e-10)
    for name, block in (("a", matrix[:2, :2]), ("b", matrix[2:, 2:])):
        assert trace[name].shape == error[name].shape == ()
        assert abs(trace[name] - np.trace(block)) < 4 * error[name]
    off = matrix - np.diag(np.diag(matrix))  # in Var Σ_i∈a v_i (Hv)_i, entries inside the block count twice
    variance = 2 * np.sum(off[:2, :2] ** 2) + np.sum(off[:2, 2:] ** 2)
    np.testing.assert_allclose(error["a"], np.sqrt(variance / 400), rtol=0.1)


NOT_FINITE = {
    "the loss": lambda x: jnp.log(jnp.sum(x) - 10),
    "an infinite loss": lambda x: jnp.sum(x) / 0.0,
    "the gradient": lambda x: jnp.sum(jnp.sqrt(jnp.abs(x - 1))),
    "the Hessian": lambda x: jnp.sum(jnp.abs(x - 1) ** 1.5),
}
SPECTRAL = {
    "hessian_trace": lambda loss, x: gradtx.hessian_trace(loss, x, key=KEY, num_probes=2),
    "spectral_density": lambda loss, x: gradtx.spectral_density(loss, x, key=KEY, num_probes=2, num_iterations=2),
    "critical_point": lambda loss, x: gradtx.critical_point(loss, x, key=KEY),
    "top_eigenvalues": lambda loss, x: gradtx.top_eigenvalues(loss, x, key=KEY),
}


@pytest.mark.parametrize("kind", NOT_FINITE)
@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.sampled(5)
def test_a_nonfinite_loss_gradient_or_hessian_is_refused_by_name(name, kind):
    loss = NOT_FINITE[kind]
    with pytest.raises(ValueError, match=f"^{name}: the loss, its gradient or its Hessian is not finite here"):
        SPECTRAL[name](loss, jnp.ones(3))


@pytest.mark.parametrize("name", ["hessian_trace", "spectral_density"])
def test_a_nonfinite_loss_gives_nan_inside_jit(name):
    found = jax.jit(lambda x: SPECTRAL[name](NOT_FINITE["the loss"], x))(jnp.ones(3))
    assert all(bool(jnp.isnan(x).all()) for x in found)


def test_the_standard_error_of_one_probe_is_nan():
    trace, error = gradtx.hessian_trace(lambda p: jnp.sum(p**2), jnp.ones(3), key=KEY, num_probes=1)
    assert trace == 6
    assert jnp.isnan(error)


def test_density_and_trace_are_the_same_under_jit_and_vmap():
    def loss(p):
        return jnp.sum(p**4) + p[0] * p[1]

    points = jnp.array([[1.0, 2.0, 0.5], [-1.0, 0.3, 2.0]])

    def at(p):
        density = gradtx.spectral_density(loss, p, key=KEY, num_probes=2, num_iterations=3)
        return density, gradtx.hessian_trace(loss, p, key=KEY, num_probes=2)

    batched = jax.jit(jax.vmap(at))(points)
    for i, p in enumerate(points):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), batched, at(p))


def test_a_bfloat16_point_gives_float32_results_under_x64(x64):
    point = {"key": KEY, "params": jnp.ones(3, jnp.bfloat16)}
    trace, error = gradtx.hessian_trace(lambda p: jnp.sum(p**2) / 2, num_probes=2, **point)
    nodes, weights = gradtx.spectral_density(lambda p: jnp.sum(p**2) / 2, num_probes=1, num_iterations=1, **point)
    assert {x.dtype for x in (trace, error, nodes, weights)} == {jnp.dtype("float32")}
    assert (trace, error) == (3, 0)
    np.testing.assert_allclose(nodes, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "change", "error", "message"),
    [
        ("spectral_density", {"num_probes": 0}, ValueError, "num_probes must be at least 1, got 0"),
        ("spectral_density", {"num_iterations": 0}, ValueError, "num_iterations must be at least 1, got 0"),
        ("spectral_density", {"num_iterations": True}, TypeError, "num_iterations must be an integer, got True"),
        ("spectral_density", {"key": 0}, TypeError, "key must be a JAX random key"),
        ("spectral_density", {"value_fn": lambda p: p}, ValueError, r"real floating scalar, got shape \(2,\)"),
        ("spectral_density", {"params": jnp.zeros(2, jnp.complex64)}, ValueError, "must be real, got complex64"),
        ("hessian_trace", {"num_probes": 0}, ValueError, "num_probes must be at least 1, got 0"),
        ("hessian_trace", {"num_probes": 2.0}, TypeError, "num_probes must be an integer, got 2.0"),
        ("hessian_trace", {"key": None}, TypeError, "key must be a JAX random key"),
        ("hessian_trace", {"value_fn": jnp.argmax}, ValueError, "got shape .. and dtype int32"),
        ("hessian_trace", {"params": [jnp.arange(2)]}, TypeError, r"params\[0\] must be of a floating dtype"),
    ],
)
def test_bad_arguments_are_refused_by_name(function, change, error, message):
    arguments = {"value_fn": lambda p: jnp.sum(p**2), "params": jnp.zeros(2), "key": KEY} | change
    with pytest.raises(error, match=f"{function}: .*{message}"):
        getattr(gradtx, function)(arguments.pop("value_fn"), arguments.pop("params"), **arguments)
