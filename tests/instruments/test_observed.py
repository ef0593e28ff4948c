"""`observed` does not change the optimizer, and its curvature ratio is that of the step which the optimizer takes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import gradtx

from .runs import mean, net, trained

DATA = jnp.array([[1.0, 0.2], [-0.5, 1.5], [0.3, -2.0], [2.0, 1.0], [1.0, -1.0], [0.0, 0.5]])


def losses(x):
    """Returns least-squares losses plus a fourth power. The Hessian varies and has a closed form."""
    return 0.5 * (DATA @ x - 1.0) ** 2 + 0.1 * jnp.sum(x**4)


def hessian(x):
    data = np.asarray(DATA, np.float64)
    return data.T @ data / len(data) + np.diag(1.2 * np.asarray(x, np.float64) ** 2)


METHODS = {
    "sgd": gradtx.sgd(0.1),
    "heavy ball": gradtx.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.05),
    "rmsprop after a clip": optax.chain(gradtx.clip_by_global_norm(0.1), gradtx.rmsprop(0.01)),
    "a schedule": optax.adamw(optax.cosine_decay_schedule(0.1, 20), weight_decay=0.1),
}
START = jnp.array([2.0, -1.0])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.sampled(2)
def test_the_curvature_ratio_is_that_of_the_update_which_the_method_returns(name):
    tx = METHODS[name]
    seen, places = trained(gradtx.observed(tx), mean(losses), START, 12, losses_fn=losses)
    _, plain_places = trained(tx, mean(losses), START, 12, losses_fn=losses)
    np.testing.assert_allclose(places, plain_places, rtol=1e-5)
    x = np.asarray(places, np.float64)
    u = np.diff(x, axis=0)
    g = np.array([jax.grad(mean(losses))(p) for p in places[:-1]], np.float64)
    curvature = np.array([step @ hessian(at) @ step for step, at in zip(u, x[:-1], strict=True)])
    np.testing.assert_allclose(seen["curvature_ratio/ratio"][:-1], -curvature / (2 * (g * u).sum(1)), rtol=1e-2)
    expected = np.linalg.norm(u, axis=1) / np.linalg.norm(x[:-1], axis=1)
    np.testing.assert_allclose(seen["update_ratio/global"][:-1], expected, rtol=1e-3)


def test_all_readings_for_plain_descent_equal_those_of_the_panel():
    watched, _ = trained(gradtx.observed(gradtx.sgd(0.1)), mean(losses), START, 8, losses_fn=losses)
    panel, _ = trained(optax.chain(gradtx.panel(0.1), gradtx.sgd(0.1)), mean(losses), START, 8, losses_fn=losses)
    assert set(watched) == set(panel)
    for name in set(panel) - {"update_ratio/global"}:
        np.testing.assert_allclose(watched[name], panel[name], rtol=1e-4, atol=1e-7, err_msg=name)
    # The panel comes before sgd in the chain, so its update ratio is that of the step before.
    np.testing.assert_allclose(watched["update_ratio/global"][:-1], panel["update_ratio/global"][1:], rtol=1e-4)


def test_the_change_of_a_quadratic_loss_is_the_slope_times_one_minus_the_ratio():
    h = np.diag([1.0, 10.0])

    def loss(x):
        return 0.5 * x @ jnp.asarray(h, jnp.float32) @ x

    seen, places = trained(gradtx.observed(optax.adam(0.1)), loss, START, 6)
    x = np.asarray(places, np.float64)
    values = 0.5 * np.einsum("ki,ij,kj->k", x, h, x)
    slopes = np.einsum("ki,ij,kj->k", x[:-1], h, np.diff(x, axis=0))
    ratio = np.asarray(seen["curvature_ratio/ratio"], np.float64)[:-1]
    np.testing.assert_allclose(np.diff(values), slopes * (1 - ratio), rtol=1e-3)


def test_readings_that_need_single_examples_are_nan_if_only_the_mean_loss_is_given():
    seen, _ = trained(gradtx.observed(optax.adam(0.1)), mean(losses), START, 4)
    full, _ = trained(gradtx.observed(optax.adam(0.1)), mean(losses), START, 4, losses_fn=losses)
    for name, curve in seen.items():
        if name.startswith(("gradient_tests", "gradient_noise_scale")):
            assert np.isnan(curve).all(), name
        else:
            np.testing.assert_allclose(curve, full[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_curvature_ratio_of_a_step_of_zero_is_nan():
    tx = gradtx.observed(optax.set_to_zero())
    _, state = tx.update(jnp.ones(2), tx.init(START), START, losses_fn=losses)
    found = gradtx.readings(state)
    assert np.isnan(found["curvature_ratio/ratio"])
    assert found["update_ratio/global"] == 0


def test_readings_stay_the_same_between_two_measurements():
    seen, _ = trained(gradtx.observed(optax.adam(0.1), every=3), mean(losses), START, 7, losses_fn=losses)
    every, _ = trained(gradtx.observed(optax.adam(0.1)), mean(losses), START, 7, losses_fn=losses)
    for name in ("curvature_ratio/ratio", "update_ratio/global", "gradient_alignment/cosine"):
        held = np.asarray(every[name])[[0, 0, 0, 3, 3, 3, 6]]
        np.testing.assert_allclose(seen[name], held, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["adam", "heavy ball"])
def test_a_step_between_two_measurements_copies_no_array_of_the_parameters_size(name):
    params, losses_fn = net(50)
    tx = gradtx.observed(METHODS[name], every=3)

    def step(params, state):
        updates, state = tx.update(jax.grad(mean(losses_fn))(params), state, params, losses_fn=losses_fn)
        return optax.apply_updates(params, updates), state

    program = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params)).compile().as_text()
    entry = program[program.index("ENTRY") :]
    assert re.search(r"f32\[3,50\]\S* parameter\(", entry)  # arrays are still written so
    assert not re.findall(r"f32\[3,50\]\S* copy\(", entry)


def test_the_update_passes_bit_for_bit_at_measured_and_unmeasured_steps():
    params, losses_fn = net(4)
    bad = jax.tree.map(lambda p: jnp.zeros_like(p).at[0].set(-0.0).at[1].set(jnp.nan).at[2].set(jnp.inf), params)
    tx = gradtx.observed(optax.identity(), every=2)
    state, update = tx.init(params), jax.jit(lambda g, s: tx.update(g, s, params, losses_fn=losses_fn))
    for _ in range(3):
        updates, state = update(bad, state)
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(bad), strict=True):
            assert u.tobytes() == g.tobytes()


def test_each_member_of_a_vmap_has_its_own_readings():
    def run(rate):
        return trained(gradtx.observed(optax.adam(rate)), mean(losses), START, 4, losses_fn=losses)[0]

    rates = jnp.array([0.01, 0.1])
    together = jax.vmap(run)(rates)
    for i, rate in enumerate(rates):
        for name, curve in run(rate).items():
            np.testing.assert_allclose(together[name][i], curve, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_curvature_ratio_around_accumulate_is_that_of_the_steps_that_move():
    tx = gradtx.observed(gradtx.accumulate(gradtx.sgd(0.1), 3))
    seen, _ = trained(tx, mean(losses), START, 6, losses_fn=losses)
    assert np.isnan(seen["curvature_ratio/ratio"][:2]).all()
    g = np.asarray(jax.grad(mean(losses))(START), np.float64)
    expected = 0.1 * g @ hessian(START) @ g / (2 * g @ g)
    np.testing.assert_allclose(seen["curvature_ratio/ratio"][2], expected, rtol=1e-3)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.sampled(1)
def test_skip_nonfinite_inside_or_outside_changes_neither_steps_nor_readings(inside):
    guard, method = gradtx.skip_nonfinite, optax.adam(0.1)
    tx = gradtx.observed(guard(method)) if inside else guard(gradtx.observed(method))
    seen, places = trained(tx, mean(losses), START, 5, losses_fn=losses)
    alone, same = trained(gradtx.observed(method), mean(losses), START, 5, losses_fn=losses)
    np.testing.assert_allclose(places, same, rtol=1e-6)
    for name, curve in alone.items():
        np.testing.assert_allclose(seen[name], curve, rtol=1e-4, atol=1e-6, err_msg=name)


def test_readings_of_observed_are_found_inside_wrappers_of_optax():
    tx = optax.MultiSteps(gradtx.observed(optax.adam(0.1)), 1)
    seen, _ = trained(tx.gradient_transformation(), mean(losses), START, 2, losses_fn=losses)
    assert np.isfinite(seen["curvature_ratio/ratio"]).all()
    outer = gradtx.observed(optax.chain(gradtx.gradient_norm(), optax.sgd(0.1)))
    _, state = outer.update(jnp.ones(2), outer.init(START), START, losses_fn=losses)
    assert {"gradient_norm/global", "gradient_norm@2/global"} <= set(gradtx.readings(state))


def test_each_device_under_shard_map_measures_its_part_of_the_batch_along_the_common_step():
    params, _ = net(4)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    tx = gradtx.observed(optax.chain(gradtx.mean_across("data"), optax.adam(0.1)))
    x = jax.random.normal(jax.random.key(0), (8, 3))

    def batch_losses(p, x):
        return 0.5 * (jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]) ** 2

    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P("data")))
    def step(params, x):
        local = jax.lax.pcast(params, "data", to="varying") if hasattr(jax.lax, "pcast") else params
        g = jax.grad(lambda p: jnp.mean(batch_losses(p, x)))(local)
        updates, state = tx.update(g, tx.init(params), params, losses_fn=lambda p: batch_losses(p, x))
        return updates, gradtx.readings(state)["curvature_ratio/ratio"][None]

    updates, ratios = jax.jit(step)(params, x)
    for k in range(2):
        part = x[4 * k : 4 * k + 4]

        def along(t, part=part):
            moved = jax.tree.map(lambda a, u: a + t * u, params, updates)
            return jnp.mean(batch_losses(moved, part))

        slope, curvature = jax.grad(along)(0.0), jax.grad(jax.grad(along))(0.0)
        np.testing.assert_allclose(ratios[k], -curvature / (2 * slope), rtol=1e-3)


def test_missing_losses_and_bad_arguments_are_refused_by_name():
    tx = gradtx.observed(optax.adam(0.1))
    with pytest.raises(ValueError, match=r"observed needs the loss: call update.*losses_fn"):
        tx.update(jnp.ones(2), tx.init(START), START)
    with pytest.raises(TypeError, match="observed: tx must be a gradient transformation"):
        gradtx.observed(0.1)
    with pytest.raises(ValueError, match="observed: every must be"):
        gradtx.observed(optax.adam(0.1), every=0)
    with pytest.raises(ValueError, match="observed: losses_fn must return an array"):
        tx.update(jnp.ones(2), tx.init(START), START, losses_fn=mean(losses))
