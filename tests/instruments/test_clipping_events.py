"""Clipping events are those that the clip itself would say; spikes are those planted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .runs import watched


def test_a_scripted_sequence_of_norms():
    found = watched(gradtx.clipping_events(1.0), jnp.array([[0.5], [2.0], [-4.0], [1.0], [jnp.nan], [0.0]]))
    np.testing.assert_allclose(found["clipping_events/fraction"], [0, 1 / 2, 2 / 3, 1 / 2, 1 / 2, 2 / 5], rtol=1e-6)
    shrink = np.cumsum([1, 1 / 2, 1 / 4, 1, 0, 1]) / [1, 2, 3, 4, 4, 5]
    np.testing.assert_allclose(found["clipping_events/shrink"], shrink, rtol=1e-6)


def length(tree):
    return np.linalg.norm(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]))


@pytest.mark.parametrize("limit", [0.1, 1.0, np.inf])
def test_fraction_and_shrink_are_what_optax_does_to_the_same_tree(limit):
    keys = jax.random.split(jax.random.key(0), 20)
    trees = [{"a": jax.random.normal(k, (2, 3)) / 3, "b": jax.random.normal(k, ()) / 3} for k in keys]
    clip = optax.clip_by_global_norm(limit)
    clipped = [clip.update(tree, clip.init(tree))[0] for tree in trees]
    factors = np.array([length(c) / length(t) for c, t in zip(clipped, trees, strict=True)])
    found = watched(gradtx.clipping_events(limit), jax.tree.map(lambda *xs: jnp.stack(xs), *trees))
    np.testing.assert_allclose(found["clipping_events/fraction"][-1], np.mean(factors < 0.999999), rtol=1e-6)
    np.testing.assert_allclose(found["clipping_events/shrink"][-1], np.mean(factors), rtol=1e-5)


def test_without_a_limit_there_is_nothing_to_say_about_clipping():
    found = watched(gradtx.clipping_events(), jnp.ones((3, 1)))
    assert np.isnan(found["clipping_events/fraction"]).all()
    assert np.isnan(found["clipping_events/shrink"]).all()


def norms(steps, seed=0, scatter=0.1):
    return 1 + scatter * np.random.default_rng(seed).uniform(-1, 1, size=steps)


def spikes(sequence):
    return np.asarray(
        watched(gradtx.clipping_events(), jnp.asarray(sequence, jnp.float32)[:, None])["clipping_events/spikes"]
    )


def test_isolated_spikes_are_counted_each_once_and_noise_is_not():
    sequence = norms(200)
    assert spikes(sequence)[-1] == 0
    sequence[[60, 61, 150]] *= 10
    np.testing.assert_array_equal(np.flatnonzero(np.diff(spikes(sequence))) + 1, [60, 61, 150])


def test_a_cliff_does_not_hide_the_next_and_warm_up_counts_none():
    sequence = norms(100)
    sequence[10] = 100
    sequence[[50, 55]] = 1e6, 3
    assert spikes(sequence)[-1] in (1, 2)  # what was seen while warming up may widen the level
    sequence[10] = 1
    assert spikes(sequence)[-1] == 2


def test_a_level_that_has_changed_for_good_is_learnt():
    sequence = norms(400) * np.where(np.arange(400) < 100, 1, 5)
    found = spikes(sequence)
    assert 1 <= found[-1] < 60
    assert found[-1] == found[250]
