"""Clipping events match those of the clip itself, and the counted spikes are the planted ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import watched


def test_fraction_and_shrink_are_right_for_a_scripted_sequence_of_norms():
    found = watched(gradtx.clipping_events(1.0), jnp.array([[0.5], [2.0], [-4.0], [1.0], [jnp.nan], [0.0]]))
    np.testing.assert_allclose(found["clipping_events/fraction"], [0, 1 / 2, 2 / 3, 1 / 2, 1 / 2, 2 / 5], rtol=1e-6)
    shrink = np.cumsum([1, 1 / 2, 1 / 4, 1, 0, 1]) / [1, 2, 3, 4, 4, 5]
    np.testing.assert_allclose(found["clipping_events/shrink"], shrink, rtol=1e-6)


def length(tree):
    return np.linalg.norm(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]))


@pytest.mark.parametrize("limit", [0.1, 1.0, np.inf])
def test_fraction_and_shrink_match_the_clipping_of_optax(limit):
    keys = jax.random.split(jax.random.key(0), 20)
    trees = [{"a": jax.random.normal(k, (2, 3)) / 3, "b": jax.random.normal(k, ()) / 3} for k in keys]
    clip = optax.clip_by_global_norm(limit)
    clipped = [clip.update(tree, clip.init(tree))[0] for tree in trees]
    factors = np.array([length(c) / length(t) for c, t in zip(clipped, trees, strict=True)])
    found = watched(gradtx.clipping_events(limit), jax.tree.map(lambda *xs: jnp.stack(xs), *trees))
    np.testing.assert_allclose(found["clipping_events/fraction"][-1], np.mean(factors < 0.999999), rtol=1e-6)
    np.testing.assert_allclose(found["clipping_events/shrink"][-1], np.mean(factors), rtol=1e-5)


def test_fraction_and_shrink_are_nan_without_a_limit():
    found = watched(gradtx.clipping_events(), jnp.ones((3, 1)))
    assert np.isnan(found["clipping_events/fraction"]).all()
    assert np.isnan(found["clipping_events/shrink"]).all()


def norms(steps, seed=0, scatter=0.1):
    return 1 + scatter * np.random.default_rng(seed).uniform(-1, 1, size=steps)


def spikes(sequence):
    return np.asarray(
        watched(gradtx.clipping_events(), jnp.asarray(sequence, jnp.float32)[:, None])["clipping_events/spikes"]
    )


def test_each_isolated_spike_is_counted_once_and_noise_is_not_counted():
    sequence = norms(200)
    assert spikes(sequence)[-1] == 0
    sequence[[60, 61, 150]] *= 10
    np.testing.assert_array_equal(np.flatnonzero(np.diff(spikes(sequence))) + 1, [60, 61, 150])


def test_a_huge_spike_does_not_hide_the_next_one_and_no_spike_is_counted_during_warm_up():
    sequence = norms(100)
    sequence[10] = 100
    sequence[[50, 55]] = 1e6, 3
    assert spikes(sequence)[-1] in (1, 2)  # a spike during warm-up may widen the usual range
    sequence[10] = 1
    assert spikes(sequence)[-1] == 2


def test_a_lasting_change_of_the_level_is_learnt():
    sequence = norms(400) * np.where(np.arange(400) < 100, 1, 5)
    found = spikes(sequence)
    assert 1 <= found[-1] < 60
    assert found[-1] == found[250]
