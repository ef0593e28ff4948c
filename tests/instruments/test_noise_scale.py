"""Both estimators give the noise scale of a linear regression for which tr Σ and ‖G‖² are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

D, S = 20, 2.0  # inputs, standard deviation of the noise
E = jnp.full(D, 0.25)  # distance of the weights from the true ones: ‖e‖² = 1.25
SIGNAL = float(E @ E)
TRACE = D * (SIGNAL + S**2) + SIGNAL


def batch(key, size):
    """Returns the losses of new examples x ~ N(0, I), y = noise. The true weights are 0."""
    one, two = jax.random.split(key)
    x, y = jax.random.normal(one, (size, D)), S * jax.random.normal(two, (size,))
    return lambda w: 0.5 * (x @ w - y) ** 2


def run(tx, steps, size):
    @jax.jit
    def whole(key):
        def step(state, key):
            losses_fn = batch(key, size)
            g = jax.grad(lambda w: jnp.mean(losses_fn(w)))(E)
            _, state = tx.update(g, state, E, losses_fn=losses_fn)
            return state, (gradtx.readings(state), jnp.sum(g**2))

        return jax.lax.scan(step, tx.init(E), jax.random.split(key, steps))[1]

    return whole(jax.random.key(0))


@pytest.fixture(scope="module")
def single():
    """Returns readings of independent steps: with decay 0 the running mean keeps only the last step."""
    found, squares = run(gradtx.gradient_noise_scale(decay=0.0), 3000, 64)
    return {name.split("/")[1]: np.asarray(value, np.float64) for name, value in found.items()}, np.asarray(squares)


def near(values, expected, errors=4):
    assert abs(values.mean() - expected) < errors * values.std() / len(values) ** 0.5


def test_the_trace_and_the_squared_norm_are_unbiased(single):
    found, squares = single
    near(found["trace_covariance"], TRACE)
    near(found["gradient_norm_squared"], SIGNAL)
    assert squares.mean() > 1.8 * SIGNAL  # the uncorrected squared norm is far too large


def test_the_ratio_of_means_is_closer_to_the_noise_scale_than_the_mean_of_ratios(single):
    found, _ = single
    readings, _ = run(gradtx.gradient_noise_scale(), 3000, 64)
    ratio = float(readings["gradient_noise_scale/noise_scale"][-1])
    ratios = found["trace_covariance"] / found["gradient_norm_squared"]
    assert ratio == pytest.approx(TRACE / SIGNAL, rel=0.08)
    assert abs(ratio - TRACE / SIGNAL) < abs(np.mean(ratios) - TRACE / SIGNAL)


def test_the_noise_scale_is_infinite_while_the_estimated_squared_norm_is_not_positive(single):
    found, _ = single
    assert np.any(found["gradient_norm_squared"] <= 0)
    np.testing.assert_array_equal(np.isinf(found["noise_scale"]), found["gradient_norm_squared"] <= 0)


def test_all_readings_are_nan_for_a_single_example():
    found, _ = run(gradtx.gradient_noise_scale(), 3, 1)
    assert all(np.isnan(value).all() for value in found.values())


def by_devices(tx, key, size):
    """Returns the readings of one step on one device. Collectives go over the axis `data`."""
    losses_fn = batch(key, size)
    at = E + 0 * jax.random.normal(key)  # varies over devices, so that the gradient is not averaged
    g = jax.grad(lambda w: jnp.mean(losses_fn(w)))(at)
    _, state = tx.update(g, tx.init(E), E)
    return gradtx.readings(state)


def test_the_gradients_of_the_devices_give_the_same_noise_scale():
    tx = gradtx.gradient_noise_scale(axis_name="data", batch_size=8)
    keys = jax.random.split(jax.random.key(1), (3000, 8))
    found = jax.jit(jax.vmap(jax.vmap(lambda key: by_devices(tx, key, 8), axis_name="data")))(keys)
    found = {name.split("/")[1]: np.asarray(value[:, 0], np.float64) for name, value in found.items()}
    near(found["trace_covariance"], TRACE)
    near(found["gradient_norm_squared"], SIGNAL)


def test_eight_devices_give_the_readings_of_eight_rows_under_vmap():
    tx = gradtx.gradient_noise_scale(axis_name="data", batch_size=4)
    keys = jax.random.split(jax.random.key(2), 8)
    expected = jax.vmap(lambda key: by_devices(tx, key, 4), axis_name="data")(keys)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(keys, jax.sharding.NamedSharding(mesh, jax.P("data")))
        run = jax.shard_map(lambda keys: by_devices(tx, keys[0], 4), in_specs=jax.P("data"), out_specs=jax.P())
        found = jax.jit(run)(sharded)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value[0], rtol=1e-5, err_msg=name)


def test_gradients_that_are_already_averaged_are_refused():
    tx = gradtx.gradient_noise_scale(axis_name="data", batch_size=4)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="must be each device's own, before they are averaged"):
        jax.shard_map(lambda g: tx.update(g, tx.init(E), E)[0], in_specs=jax.P(), out_specs=jax.P())(E)


@pytest.mark.parametrize("options", [{"axis_name": "data"}, {"batch_size": 4}])
def test_axis_name_and_batch_size_must_be_given_together(options):
    with pytest.raises(ValueError, match=r"gradient_noise_scale: axis_name and batch_size.* belong together"):
        gradtx.gradient_noise_scale(**options)


def test_random_probes_estimate_the_trace_without_bias_beyond_128_parameters():
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(3, 200)), jnp.float32)
    params = jnp.zeros(200)
    tx = gradtx.gradient_noise_scale(decay=0.0)

    def step(state, _):
        _, state = tx.update(jnp.mean(gradients, axis=0), state, params, losses_fn=lambda w: gradients @ w)
        return state, gradtx.readings(state)["gradient_noise_scale/trace_covariance"]

    _, found = jax.jit(lambda state: jax.lax.scan(step, state, length=2000))(tx.init(params))
    near(np.asarray(found, np.float64), float(np.sum(np.var(gradients, axis=0, ddof=1))))
