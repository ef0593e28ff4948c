"""One backward pass gives the gradient at each time step. In a linear recurrent net the log-norms have slope -log ρ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gradtx

TIME, BATCH, WIDTH = 12, 4, 6
ORTHOGONAL = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0], jnp.float32)
INPUTS = jax.random.normal(jax.random.key(1), (TIME, BATCH, WIDTH))
ZEROS = jnp.zeros((TIME, BATCH, WIDTH))


def linear_rnn(w, probes):
    def step(h, x):
        inputs, probe = x
        return h @ w + inputs + probe, None

    h, _ = jax.lax.scan(step, jnp.zeros((BATCH, WIDTH)), (INPUTS, probes))
    return jnp.sum(h**2)


def tanh_rnn(w, probes):
    """Returns the loss of a recurrent net with tanh. The probes may be in any container."""
    leaves = jax.tree.leaves(probes)

    def step(h, x):
        inputs, probe = x
        return jnp.tanh(h @ w + inputs) + probe, None

    probes = leaves[0] if len(leaves) == 1 else jnp.stack(leaves)
    h, _ = jax.lax.scan(step, jnp.zeros((BATCH, WIDTH)), (INPUTS, probes))
    return jnp.sum(h**2)


@pytest.mark.parametrize("rho", [0.9, 1.0, 1.1])
def test_the_slope_of_a_linear_recurrent_net_is_minus_log_rho(rho):
    norms, slope = gradtx.temporal_gradients(linear_rnn, rho * ORTHOGONAL, ZEROS)
    np.testing.assert_allclose(slope, -np.log(rho), atol=2e-6)
    assert norms.shape == (TIME,)
    np.testing.assert_allclose(norms, norms[-1] * rho ** np.arange(TIME - 1, -1, -1), rtol=1e-5)


def test_a_positive_slope_means_vanishing_and_a_negative_slope_exploding_gradients():
    vanishing, slope = gradtx.temporal_gradients(linear_rnn, 0.5 * ORTHOGONAL, ZEROS)
    assert slope > 0
    assert vanishing[0] < vanishing[-1] / 1000
    exploding, slope = gradtx.temporal_gradients(linear_rnn, 2.0 * ORTHOGONAL, ZEROS)
    assert slope < 0
    assert exploding[0] > 1000 * exploding[-1]


def test_norms_and_slope_match_backpropagation_in_numpy():
    w = np.random.default_rng(1).normal(size=(WIDTH, WIDTH)) / 2
    norms, slope = gradtx.temporal_gradients(tanh_rnn, jnp.asarray(w, jnp.float32), list(ZEROS))
    h = [np.zeros((BATCH, WIDTH))]
    for inputs in np.asarray(INPUTS):
        h.append(np.tanh(h[-1] @ w + inputs))
    back = [2 * h[-1]]
    for state in h[:1:-1]:
        back.append((back[-1] * (1 - state**2)) @ w.T)
    expected = [np.linalg.norm(g) for g in back[::-1]]
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    np.testing.assert_allclose(slope, stats.linregress(np.arange(TIME), np.log(expected)).slope, rtol=1e-4)


def test_a_list_a_dict_and_an_array_of_probes_give_the_same_result():
    containers = {
        "array": ZEROS,
        "only leaf of nested dicts": {"cell": {"h": ZEROS}},
        "list": list(ZEROS),
        "dict": {f"layer_{t:02d}": zeros for t, zeros in enumerate(ZEROS)},
    }
    found = {}
    for name, probes in containers.items():
        found[name] = gradtx.temporal_gradients(tanh_rnn, ORTHOGONAL / 2, probes)
        for got, expected in zip(found[name], found["array"], strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=name)


def test_the_layers_of_a_deep_net_may_differ_in_width():
    widths = (3, 7, 2)
    weights = [0.1 * jnp.ones((m, n)) for m, n in zip(widths, (7, 2, 1), strict=True)]

    def loss(weights, probes):
        h = jnp.ones((5, 3))
        for w, probe in zip(weights, probes, strict=True):
            h = (h + probe) @ w
        return jnp.mean(h)

    norms, slope = gradtx.temporal_gradients(loss, weights, [jnp.zeros((5, n)) for n in widths])
    last = 0.1 * np.ones((2, 1))
    rows = [last, 0.1 * np.ones((7, 2)) @ last, 0.1 * np.ones((3, 7)) @ (0.1 * np.ones((7, 2)) @ last)]
    np.testing.assert_allclose(norms, [np.linalg.norm(r) / 5**0.5 for r in rows[::-1]], rtol=1e-5)
    assert slope > 0


def test_steps_with_zero_or_nonfinite_gradients_are_left_out_of_the_slope():
    def loss(_, probes):
        return jnp.sum(jnp.array([0.0, 1.0, jnp.inf, 4.0]) * probes)

    norms, slope = gradtx.temporal_gradients(loss, (), jnp.zeros(4))
    np.testing.assert_array_equal(jnp.isfinite(norms), [True, True, False, True])
    np.testing.assert_allclose(slope, np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "slope"),
    [([0.0, 0.0, 3.0], np.inf), ([0.0, 3.0, 0.0], np.nan), ([0.0, 0.0, 0.0], np.nan), ([3.0], np.nan)],
)
def test_the_slope_from_one_positive_norm_is_inf_only_if_it_is_the_last_of_several(weights, slope):
    weights = jnp.array(weights)
    _, found = gradtx.temporal_gradients(lambda _, probes: jnp.sum(weights * probes), (), jnp.zeros(len(weights)))
    np.testing.assert_array_equal(found, slope)


def test_norms_are_right_if_their_squares_overflow_or_underflow():
    weights = jnp.array([1e-30, 1e-25, 1e-20, 1e25])
    norms, _ = gradtx.temporal_gradients(lambda _, probes: jnp.sum(weights * probes), (), jnp.zeros(4))
    np.testing.assert_allclose(norms, weights, rtol=1e-5)


def test_temporal_gradients_works_under_jit_and_vmap():
    find = jax.jit(jax.vmap(lambda w: gradtx.temporal_gradients(linear_rnn, w, ZEROS)))
    _, slopes = find(jnp.stack([0.9 * ORTHOGONAL, 1.1 * ORTHOGONAL]))
    np.testing.assert_allclose(slopes, -np.log([0.9, 1.1]), atol=2e-6)


def test_probes_in_bfloat16_give_norms_in_float32():
    norms, slope = gradtx.temporal_gradients(
        lambda w, p: linear_rnn(w, p.astype(jnp.float32)), 0.9 * ORTHOGONAL, ZEROS.astype(jnp.bfloat16)
    )
    assert norms.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(slope, -np.log(0.9), atol=2e-3)


def test_probes_made_by_perturb_of_flax_give_the_same_norms():
    nn = pytest.importorskip("flax.linen")

    class Cell(nn.Module):
        @nn.compact
        def __call__(self, h, x):
            def init(*_):
                return 0.9 * ORTHOGONAL

            h = self.perturb("h", nn.Dense(WIDTH, use_bias=False, kernel_init=init)(h) + x)
            return h, None

    scanned = nn.scan(
        Cell, variable_broadcast="params", variable_axes={"perturbations": 0}, split_rngs={"params": False}
    )
    model, start = scanned(), jnp.zeros((BATCH, WIDTH))
    variables = model.init(jax.random.key(0), start, INPUTS)

    def loss(params, probes):
        h, _ = model.apply({"params": params, "perturbations": probes}, start, INPUTS)
        return jnp.sum(h**2)

    norms, slope = gradtx.temporal_gradients(loss, variables["params"], variables["perturbations"])
    expected, _ = gradtx.temporal_gradients(linear_rnn, 0.9 * ORTHOGONAL, ZEROS)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, -np.log(0.9), atol=2e-6)


@pytest.mark.parametrize(
    ("value_fn", "probes", "error", "message"),
    [
        (linear_rnn, jnp.zeros(()), ValueError, "probes must hold at least one step"),
        (linear_rnn, jnp.zeros((0, 3)), ValueError, "probes must hold at least one step"),
        (linear_rnn, [], ValueError, "probes must hold at least one step"),
        (linear_rnn, jnp.zeros(3, int), TypeError, "probes must be real floating arrays, got dtype int32"),
        (linear_rnn, [1.0], TypeError, r"probes must be real floating arrays, got 1.0 \(float\)"),
        (linear_rnn, jnp.zeros(3, complex), TypeError, "probes must be real floating arrays, got dtype complex64"),
        (lambda w, p: p, jnp.zeros(3), ValueError, r"value_fn must return a real floating scalar, got shape \(3,\)"),
        (lambda w, p: None, jnp.zeros(3), TypeError, "value_fn must return a scalar, got NoneType"),
    ],
)
def test_bad_arguments_are_refused_by_name(value_fn, probes, error, message):
    with pytest.raises(error, match=f"temporal_gradients: {message}"):
        gradtx.temporal_gradients(value_fn, ORTHOGONAL, probes)
