"""Newton's method is not slowed by ill-conditioning, and it goes to saddles unless it is saddle-free."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

CONDITION = jnp.array([1.0, 30.0, 1e4])


def ill_conditioned(params):
    x = jnp.concatenate([params["a"], params["b"]])
    return 0.5 * jnp.sum(CONDITION * (x - 1.0) ** 2)


def saddle(x):
    return 0.5 * (x[0] ** 2 - x[1] ** 2)


def one_step(tx, value_fn, params):
    grads = jax.grad(value_fn)(params)
    updates, _ = tx.update(grads, tx.init(params), params, value_fn=value_fn)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("saddle_free", [False, True])
def test_one_step_reaches_the_minimum_of_an_ill_conditioned_quadratic(solver, saddle_free):
    params = {"a": jnp.array([-3.0]), "b": jnp.array([5.0, 2.0])}
    tx = gradtx.newton(solver=solver, saddle_free=saddle_free)
    reached = one_step(tx, ill_conditioned, params)
    np.testing.assert_allclose(np.concatenate([reached["a"], reached["b"]]), 1.0, atol=2e-3)
    gradient_step = one_step(optax.with_extra_args_support(gradtx.sgd(1.9 / 1e4)), ill_conditioned, params)
    assert abs(float(gradient_step["a"][0]) - 1.0) > 3.9  # the flat direction has hardly moved


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_plain_newton_steps_to_a_saddle_and_saddle_free_newton_leaves_it(solver):
    start = jnp.array([0.5, 0.1])
    np.testing.assert_allclose(one_step(gradtx.newton(solver=solver), saddle, start), 0.0, atol=1e-6)
    free = gradtx.newton(solver=solver, saddle_free=True)
    np.testing.assert_allclose(one_step(free, saddle, start), [0.0, 0.2], atol=1e-6)
    assert saddle(one_step(free, saddle, start)) < saddle(start)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_damping_is_added_to_every_eigenvalue(solver, x64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    hessian, g = root @ root.T - 2.0 * np.eye(4), rng.normal(size=4)
    params = jnp.zeros(4)
    eigenvalues, q = np.linalg.eigh(hessian)
    damping = 0.5 - eigenvalues[0]
    for saddle_free, h in ((False, hessian), (True, q @ np.diag(np.abs(eigenvalues)) @ q.T)):
        tx = gradtx.newton(damping, saddle_free=saddle_free, solver=solver)
        updates, _ = tx.update(
            jnp.asarray(g), tx.init(params), params, value_fn=lambda x: 0.5 * x @ hessian @ x + g @ x
        )
        np.testing.assert_allclose(updates, -np.linalg.solve(h + damping * np.eye(4), g), rtol=1e-6)


def test_missing_and_bad_arguments_are_refused_by_name():
    params = jnp.ones(2)
    tx = gradtx.newton()
    with pytest.raises(
        ValueError, match=r"^newton needs the loss: call update\(grads, state, params, value_fn=loss\)\.$"
    ):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="newton needs the parameters"):
        tx.update(params, tx.init(params), value_fn=saddle)
    with pytest.raises(ValueError, match='solver must be "dense" or "cg", got \'lu\''):
        gradtx.newton(solver="lu")


def test_the_step_along_a_flat_direction_with_a_slope_is_not_finite():
    params = jnp.array([1.0, 1.0])
    tx = gradtx.newton()
    updates, _ = tx.update(jnp.array([1.0, 1.0]), tx.init(params), params, value_fn=lambda x: 0.5 * x[0] ** 2 + x[1])
    assert not np.isfinite(updates[1])


@pytest.mark.parametrize("unit", [1e-24, 1e24], ids=str)
@pytest.mark.parametrize(("solver", "saddle_free"), [("dense", False), ("dense", True), ("cg", False), ("cg", True)])
def test_the_unit_of_the_loss_does_not_change_the_step(solver, saddle_free, unit):
    params = jnp.array([1.0, -1.0, 2.0])
    tx = gradtx.newton(solver=solver, saddle_free=saddle_free)
    reached, elsewhere = (
        one_step(tx, lambda x, u=u: u * jnp.sum(CONDITION[:2] @ x[:2] ** 2 - x[2] ** 2), params) for u in (1.0, unit)
    )
    np.testing.assert_allclose(elsewhere, reached, atol=1e-5)
    np.testing.assert_allclose(reached, [0.0, 0.0, 4.0 if saddle_free else 0.0], atol=1e-5)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_the_derivative_of_a_saddle_free_step_matches_the_difference_quotient(solver):
    hessian, g, h = jnp.diag(jnp.array([1.0, -2.0])), jnp.array([1.0, 0.5]), 1e-2

    @jax.jit
    def summed(damping, g):
        tx = gradtx.newton(damping, saddle_free=True, solver=solver)
        updates, _ = tx.update(g, tx.init(g), jnp.zeros(2), value_fn=lambda x: 0.5 * x @ hessian @ x + g @ x)
        return jnp.sum(jnp.sin(updates))

    by_damping, by_gradient = jax.grad(summed, argnums=(0, 1))(0.5, g)
    assert by_damping == pytest.approx(float(summed(0.5 + h, g) - summed(0.5 - h, g)) / (2 * h), rel=1e-2)
    shift = jnp.array([0.0, h])
    assert by_gradient[1] == pytest.approx(float(summed(0.5, g + shift) - summed(0.5, g - shift)) / (2 * h), rel=1e-2)
