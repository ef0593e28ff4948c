"""The panel gives the readings of the single instruments from one pass over the model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import mean, net, opaque, trained

SINGLES = {
    "gradient_norm": gradtx.gradient_norm,
    "gradient_alignment": gradtx.gradient_alignment,
    "clipping_events": lambda **o: gradtx.clipping_events(0.1, **o),
    "curvature_ratio": lambda **o: gradtx.curvature_ratio(0.1, **o),
    "gradient_tests": gradtx.gradient_tests,
    "gradient_noise_scale": gradtx.gradient_noise_scale,
}


@pytest.fixture(scope="module", params=[1, 3])
def both(request):
    """Returns the readings of the panel and of the single instruments in the same training."""
    params, losses_fn = net(40)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    every = request.param

    def losses(p):
        return losses_fn(unravel(p))

    singles = optax.chain(*(make(every=every) for make in SINGLES.values()))
    panel = gradtx.panel(0.1, every, max_norm=0.1)
    last = gradtx.update_ratio()
    runs = [
        trained(optax.chain(tx, gradtx.sgd(0.1), last), mean(losses), flat, 8, losses_fn=losses)
        for tx in (panel, singles)
    ]
    return every, runs[0][0], runs[1][0]


@pytest.mark.sampled(1)
def test_the_readings_of_the_panel_equal_those_of_the_single_instruments(both):
    _, panel, singles = both
    for name, value in singles.items():
        if name != "update_ratio/global":
            np.testing.assert_allclose(panel[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.isnan([value[-1] for value in panel.values()]).any()


@pytest.mark.parametrize(("argument", "error"), [({"seed": 0.5}, TypeError), ({"num_probes": 0}, ValueError)])
def test_an_argument_that_does_not_fit_is_named_as_the_panels_own(argument, error):
    with pytest.raises(error, match=f"^panel: {next(iter(argument))} must be"):
        gradtx.panel(0.1, **argument)


@pytest.mark.sampled(1)
def test_the_update_ratio_of_the_panel_is_that_of_the_step_before(both):
    every, panel, singles = both
    before = np.asarray(singles["update_ratio/global"])
    expected = [np.nan if k < max(every, 1) else before[every * (k // every) - 1] for k in range(8)]
    np.testing.assert_allclose(panel["update_ratio/global"], expected, rtol=1e-3)


def test_the_panel_calls_the_losses_three_times_per_trace():
    params, losses_fn = net(40)
    calls = []

    def counted(p):
        calls.append(p)
        return losses_fn(p)

    tx = gradtx.panel(0.1)
    grads = jax.grad(mean(losses_fn))(params)
    jax.make_jaxpr(lambda g, s, p: tx.update(g, s, p, losses_fn=counted))(grads, tx.init(params), params)
    assert len(calls) == 3  # a nested pass, one along random signs, and the check for mixed examples


def test_the_readings_of_the_panel_agree_if_forward_mode_is_not_possible():
    params, losses_fn = net(40)
    grads = jax.grad(mean(losses_fn))(params)
    tx = gradtx.panel(0.1)
    exact, found = (
        gradtx.readings(jax.jit(lambda p, f=f: tx.update(grads, tx.init(p), p, losses_fn=f)[1])(params))
        for f in (losses_fn, lambda p: opaque(losses_fn(p)))
    )
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=2e-2, err_msg=name)


def test_the_update_ratio_of_the_panel_changes_after_two_measured_steps_in_a_row():
    tx = gradtx.panel(0.5)
    state, seen = tx.init(jnp.array(8.0)), []

    def losses_fn(p):
        return p * jnp.ones(3)

    for p, measure in ((8.0, True), (4.0, True), (2.0, False), (1.0, True), (0.25, True)):
        params = jnp.array(p)
        _, state = tx.update(params, state, params, losses_fn=losses_fn, measure=measure)
        seen.append(float(gradtx.readings(state)["update_ratio/global"]))
    np.testing.assert_allclose(seen, [np.nan, 0.5, 0.5, 0.5, 0.75], rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="finds copies in the program that XLA makes for CPUs")
def test_the_stored_gradient_and_parameters_are_overwritten_without_a_copy():
    params = {"w": jnp.ones((30, 41))}
    tx = optax.chain(gradtx.panel(0.1), gradtx.sgd(0.1))

    def step(params, state):
        def losses_fn(p):
            return jnp.sin(jnp.arange(5.0)[:, None, None] * p["w"]).sum((1, 2))

        updates, state = tx.update(jax.grad(mean(losses_fn))(params), state, params, losses_fn=losses_fn)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params)).compile().as_text()
    assert re.search(r"f32\[30,41\]\S* parameter\(\d\).*panel_last_gradient", program)
    assert not re.search(r"f32\[30,41\]\S* copy\(%state\S*panel_last", program)
