"""A gradient far longer than usual is skipped without a change of the state. A new level is learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same

NOISE = 1 + 0.1 * np.random.default_rng(0).normal(size=400)


def run(tx, sizes, params=None):
    params = jnp.ones(3) if params is None else params
    state = tx.init(params)

    def step(carry, size):
        params, state = carry
        updates, state = tx.update(size * jnp.array([0.6, 0.0, 0.8]), state, params)
        return (optax.apply_updates(params, updates), state), state.spike_skipped

    return jax.jit(lambda p, s: jax.lax.scan(step, (p, s), jnp.asarray(sizes, jnp.float32)))(params, state)


@pytest.mark.parametrize("tx", [gradtx.sgd(0.1, 0.9), optax.adam(0.1)], ids=["gradtx", "Optax"])
def test_a_run_with_skipped_spikes_is_bit_equal_to_one_without_them(tx):
    guard = gradtx.skip_spikes(tx)
    spiked = np.insert(NOISE[:60], [40, 50], [10.0, np.nan])
    (params, state), skipped = run(guard, spiked)
    (expected, expected_state), never = run(guard, NOISE[:60])
    assert np.flatnonzero(skipped).tolist() == [40, 51]
    assert not never.any()
    np.testing.assert_array_equal(params, expected)
    assert_same(state.unspiked_state, expected_state.unspiked_state)
    assert (int(state.spike_skipped_count), int(state.spike_guarded_count)) == (2, 62)


def test_the_usual_norm_and_its_deviation_match_those_of_the_run():
    (_, state), _ = run(gradtx.skip_spikes(gradtx.sgd(0.1), decay=0.99), NOISE)
    assert float(state.usual_norm) == pytest.approx(1.0, abs=0.03)
    assert float(state.usual_deviation) == pytest.approx(0.1, rel=0.3)


def test_a_lasting_change_of_the_level_is_learnt():
    _, skipped = run(gradtx.skip_spikes(gradtx.sgd(0.1)), np.concatenate([NOISE[:100], 5 * NOISE[100:]]))
    assert bool(skipped[100])
    assert not skipped[200:].any()


def test_ordinary_noise_is_not_skipped():
    _, skipped = run(gradtx.skip_spikes(gradtx.sgd(0.1)), NOISE)
    assert int(skipped.sum()) <= 2


def test_norms_whose_squares_overflow_are_judged_and_bad_arguments_are_refused():
    (_, state), skipped = run(gradtx.skip_spikes(gradtx.sgd(0.1), warm_up=5), [1e25] * 10 + [1e37])
    assert np.flatnonzero(skipped).tolist() == [10]
    assert np.isfinite(float(state.usual_norm))
    for arguments, message in (
        ({"threshold": 0.0}, r"skip_spikes: threshold must be in \(0, inf\), got 0.0"),
        ({"decay": 1.0}, r"skip_spikes: decay must be in \[0, 1\), got 1.0"),
        ({"warm_up": 0}, "skip_spikes: warm_up must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            gradtx.skip_spikes(gradtx.sgd(0.1), **arguments)
