"""Schedules follow their formulas, and `robbins_monro` judges schedules correctly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


@pytest.mark.parametrize(
    ("first", "last", "steps"), [(1.0, 0.01, 100), (0.3, 0.003, 120), (1.0, 0.0, 7), (0.0, 1.0, 3)]
)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_linear_decay_is_a_line_and_then_exactly_the_final_value(first, last, steps, wrap):
    schedule = wrap(gradtx.linear_decay(first, last, steps))
    for k in range(steps):
        np.testing.assert_allclose(schedule(k), first + (last - first) * k / steps, rtol=1e-5, atol=1e-7)
    for k in (steps, steps + 1, 2**31 - 1):
        assert float(schedule(jnp.int32(k))) == np.float32(last)


def test_inverse_time_decay_halves_the_rate_after_the_given_steps():
    schedule = gradtx.inverse_time_decay(0.4, 50)
    assert [float(schedule(k)) for k in (0, 50, 150)] == pytest.approx([0.4, 0.2, 0.1])


BEFORE = {
    "linear_decay": lambda τ: gradtx.linear_decay(0.3, 0.01, τ),
    "inverse_time_decay": lambda τ: gradtx.inverse_time_decay(0.3, τ),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("count", [-1, -7, -14, -(2**31) + 1, -0.5])
def test_the_rate_before_step_0_is_that_of_step_0(name, count):
    schedule = BEFORE[name](7)
    for k in (count, jnp.asarray(count), np.asarray(count)):
        assert float(schedule(k)) == np.float32(0.3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(schedule))(jnp.array([count, 0])), np.float32(0.3))


@pytest.mark.parametrize("name", BEFORE)
def test_derivatives_pass_through_joined_schedules(name):
    """At step 3 of a join at 10 the later schedule is called with k = -7, for which 1 + k / 7 is 0."""

    def rate(τ, step):
        return optax.join_schedules([optax.constant_schedule(0.3), BEFORE[name](τ)], [10])(step)

    assert [float(jax.grad(rate)(7.0, step)) for step in (0, 3, 9)] == [0.0, 0.0, 0.0]
    assert float(jax.grad(rate)(7.0, 12)) > 0  # the rate grows with τ
    assert float(rate(7.0, 10)) == np.float32(0.3)


def test_schedules_are_float64_under_x64(x64):
    for schedule in (gradtx.linear_decay(0.3, 0.003, 7), gradtx.inverse_time_decay(0.3, 7)):
        assert schedule(jnp.int32(3)).dtype == jnp.float64
    assert float(gradtx.linear_decay(0.3, 0.003, 7)(3)) == pytest.approx(0.3 - 0.297 * 3 / 7, rel=1e-15)


def test_bad_arguments_are_refused_by_name():
    for steps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"linear_decay: steps must be in \(0, inf\), got"):
            gradtx.linear_decay(1.0, 0.1, steps)
        with pytest.raises(ValueError, match="inverse_time_decay: steps"):
            gradtx.inverse_time_decay(1.0, steps)
    with pytest.raises(ValueError, match="linear_decay: initial"):
        gradtx.linear_decay(-1.0, 0.1, 10)


VERDICTS = {  # name: schedule, first condition, second condition, exponent
    "1/k": (lambda k: 1 / (k + 1), True, True, 1.0),
    "k^-0.75": (lambda k: (k + 1.0) ** -0.75, True, True, 0.75),
    "k^-0.6": (lambda k: (k + 1.0) ** -0.6, True, True, 0.6),
    "1/√k": (lambda k: (k + 1.0) ** -0.5, True, False, 0.5),
    "k^-1.5": (lambda k: (k + 1.0) ** -1.5, False, True, 1.5),
    "constant": (0.1, True, False, 0.0),
    "exponential": (optax.exponential_decay(0.1, 1000, 0.9), False, True, np.inf),
    "slow exponential": (lambda k: jnp.exp(-k / 3e8), False, True, np.inf),
    "cosine to zero": (optax.cosine_decay_schedule(0.1, 10_000), False, True, np.inf),
    "linear to a floor": (gradtx.linear_decay(0.1, 0.001, 1000), True, False, 0.0),
    "linear to zero": (gradtx.linear_decay(0.1, 0.0, 1000), False, True, np.inf),
    "inverse time": (gradtx.inverse_time_decay(0.1, 1000), True, True, 1.0),
    "restarts": (lambda k: 0.1 * (1 + jnp.cos(jnp.pi * (k % 1000) / 1000)), True, False, 0.0),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_robbins_monro_names_the_condition_that_fails(name):
    schedule, first, second, exponent = VERDICTS[name]
    report = gradtx.robbins_monro(schedule)
    assert (report.sum_diverges, report.sum_of_squares_converges) == (first, second)
    assert report.satisfied == (first and second)
    assert report.tail_exponent == pytest.approx(exponent, abs=0.02)
    words = {
        (True, True): "Both conditions hold",
        (False, True): "first condition fails",
        (True, False): "second condition fails",
    }
    assert words[first, second] in str(report)


def test_the_verdict_of_robbins_monro_names_a_linear_decay_to_a_floor():
    assert "a linear decay to a floor" in gradtx.robbins_monro(gradtx.linear_decay(1.0, 0.01, 100)).verdict


def test_the_verdict_of_robbins_monro_on_a_power_of_k_names_the_exponent():
    falling = gradtx.robbins_monro(lambda k: 0.1 / (1 + k) ** 0.5).verdict
    assert "falls as k^-0.50" in falling
    assert "shrinks only as slowly as the rate" in falling
    assert "grows as k^0.50" in gradtx.robbins_monro(lambda k: 0.1 * (1 + k) ** 0.5).verdict


def test_robbins_monro_gives_the_partial_sums():
    report = gradtx.robbins_monro(lambda k: 1.0 / (k + 1))
    harmonic = [np.sum(1 / np.arange(1.0, n + 1)) for n in report.steps]
    np.testing.assert_allclose(report.sums, harmonic, rtol=1e-6)
    np.testing.assert_allclose(report.sums_of_squares[-1], np.pi**2 / 6, rtol=1e-5)


def test_robbins_monro_refuses_schedules_that_are_not_learning_rates():
    with pytest.raises(ValueError, match=r"must stay in \[0, inf\), got -"):
        gradtx.robbins_monro(lambda k: 0.5 - 0.1 * k)
    with pytest.raises(ValueError, match="nothing is learned"):
        gradtx.robbins_monro(lambda k: 0.0 * k)
    with pytest.raises(TypeError, match="must be a number"):
        gradtx.robbins_monro("0.1")
