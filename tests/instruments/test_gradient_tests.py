"""The gradient tests match those from explicit per-example gradients, and the standard error falls as 1/√n."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.instruments.directional import EXACT_UP_TO

from .runs import mean, net, opaque


def explicit(params, losses_fn):
    """Computes all four readings from the gradients of single examples."""
    rows = jax.jacrev(losses_fn)(params)
    g = np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(rows)], axis=1)
    n, whole = len(g), g.mean(axis=0)
    norm, trace, inner = np.linalg.norm(whole), np.sum(np.var(g, axis=0, ddof=1)), np.var(g @ whole, ddof=1)
    across = g - np.outer(g @ whole / norm**2, whole)
    return {
        "standard_error": np.sqrt(trace / n),
        "norm": np.sqrt(trace / n) / norm,
        "inner_product": np.sqrt(inner / n) / norm**2,
        "orthogonality": np.sqrt(np.sum(np.var(across, axis=0, ddof=1)) / n) / norm,
    }


def measured(params, losses_fn, steps=None, **options):
    """Returns readings at one point, with a leading axis if `steps` is given. Each step has different probes."""
    tx = gradtx.gradient_tests(**options)

    @jax.jit
    def run(params):
        grads = jax.grad(mean(losses_fn))(params)

        def step(state, _):
            _, state = tx.update(grads, state, params, losses_fn=losses_fn)
            return state, gradtx.readings(state)

        return jax.lax.scan(step, tx.init(params), length=steps or 1)[1]

    found = {name.split("/")[1]: np.asarray(value) for name, value in run(params).items()}
    return found if steps else {name: value[0] for name, value in found.items()}


def test_all_four_readings_match_per_example_gradients_if_parameters_are_few():
    params, losses_fn = net(6)
    expected, found = explicit(params, losses_fn), measured(params, losses_fn)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def many():
    params, losses_fn = net(40)
    assert sum(x.size for x in jax.tree.leaves(params)) > EXACT_UP_TO
    return params, losses_fn, explicit(params, losses_fn)


def test_the_inner_product_is_exact_and_the_trace_unbiased_if_parameters_are_many(many):
    params, losses_fn, expected = many
    found = measured(params, losses_fn, steps=400)
    np.testing.assert_allclose(found["inner_product"], expected["inner_product"], rtol=1e-4)
    traces = found["standard_error"].astype(np.float64) ** 2
    assert len(np.unique(traces)) == 400
    error = traces.std() / 20
    assert error < 0.1 * traces.mean()
    assert abs(traces.mean() - expected["standard_error"] ** 2) < 3 * error


@pytest.mark.slow
def test_four_probes_halve_the_standard_deviation_of_the_trace(many):
    params, losses_fn, _ = many
    one, four = (measured(params, losses_fn, steps=200, num_probes=n)["standard_error"] ** 2 for n in (1, 4))
    assert 1.5 < one.std() / four.std() < 2.7  # the expected ratio is 2


def test_the_standard_error_falls_as_one_over_the_root_of_the_batch():
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((8192, 5), (8192,)))
    products = []
    for n in (128, 1024, 8192):
        found = measured(jnp.ones(5), lambda p, n=n: 0.5 * (x[:n] @ p - y[:n]) ** 2)
        products.append(found["standard_error"] * n**0.5)
    np.testing.assert_allclose(products, products[-1], rtol=0.15)


def test_all_readings_are_nan_for_a_single_example():
    found = measured(jnp.ones(2), lambda p: jnp.sum(p**2)[None])
    assert all(np.isnan(value) for value in found.values())


def test_finite_differences_agree_if_forward_mode_is_not_possible(many):
    params, losses_fn, _ = many
    exact, found = measured(params, losses_fn), measured(params, lambda p: opaque(losses_fn(p)))
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-2, err_msg=name)
