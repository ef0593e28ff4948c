"""Early stopping agrees with a loop over the curve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def stop_of(curve, patience, min_delta, sign):
    best, at = np.inf, -1
    for k, metric in enumerate(curve):
        if sign * metric < best - min_delta:
            best, at = sign * metric, k
        if k - at >= patience:
            return k, sign * best
    return None, sign * best


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("min_delta", [0.0, 0.2])
def test_early_stopping_stops_at_the_step_that_a_loop_over_the_curve_finds(mode, min_delta):
    stopping = gradtx.early_stopping(3, min_delta, mode)
    for seed in range(10):
        curve = np.random.default_rng(seed).normal(size=30).astype(np.float32)

        def step(state, metric):
            state = stopping.update(metric, state)
            return state, state.should_stop

        state, stops = jax.lax.scan(step, stopping.init(), jnp.asarray(curve))
        at, best = stop_of(curve, 3, min_delta, 1 if mode == "min" else -1)
        assert (int(np.argmax(stops)) if np.any(stops) else None) == at
        assert float(state.best) == pytest.approx(best)


def test_a_nan_metric_does_not_count_as_an_improvement():
    stopping = gradtx.early_stopping(2)
    state = stopping.init()
    for metric in (1.0, float("nan"), float("nan")):
        state = stopping.update(metric, state)
    assert bool(state.should_stop)
    assert float(state.best) == 1.0


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("min_delta", [0.0, 0.25])
def test_a_gain_of_exactly_min_delta_does_not_count_and_a_stopped_state_is_constant(mode, min_delta):
    stopping = gradtx.early_stopping(2, min_delta, mode)
    gained = 1 - min_delta if mode == "min" else 1 + min_delta
    state = stopping.update(1.0, stopping.init())
    for _ in range(2):
        state = stopping.update(gained, state)
    assert bool(state.should_stop)
    assert (int(state.best_evaluation), int(state.evaluations)) == (0, 3)
    assert stopping.update(-9.0 if mode == "min" else 9.0, state) == state


def test_the_default_mode_is_min_and_no_infinities_are_computed():
    stopping = gradtx.early_stopping(2)
    with jax.debug_infs(True), jax.debug_nans(True):
        state = jax.jit(stopping.init)()
        for metric in (3.0, 2.0, 5.0, 5.0):
            state = stopping.update(metric, state)
        jax.jit(gradtx.early_stopping(2, mode="max").init)()
    assert (float(state.best), int(state.best_evaluation), bool(state.should_stop)) == (2.0, 1, True)


def test_bad_arguments_are_refused_by_name():
    for arguments in ((0,), (1, -0.1), (1, float("nan")), (1, 0.0, "up")):
        with pytest.raises(ValueError, match=r"^early_stopping: "):
            gradtx.early_stopping(*arguments)
    with pytest.raises(TypeError, match="patience must be an integer"):
        gradtx.early_stopping(1.5)
    with pytest.raises(TypeError, match=r"early_stopping: min_delta must be a number, got '0\.1'"):
        gradtx.early_stopping(1, "0.1")
