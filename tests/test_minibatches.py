"""Each epoch reads each example once, in an order of its own."""

import jax
import numpy as np
import pytest

import gradtx


def test_every_epoch_is_a_new_permutation():
    batches = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 12, 4, 5)).reshape(5, 12)
    assert all(sorted(epoch) == list(range(12)) for epoch in batches.tolist())
    assert len({tuple(epoch) for epoch in batches.tolist()}) == 5


def test_what_does_not_fill_a_batch_is_left_out_of_that_epoch():
    batches = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 10, 4, 3))
    assert batches.shape == (6, 4)
    assert all(len(set(epoch)) == 8 for epoch in batches.reshape(3, 8).tolist())


def test_the_same_key_gives_the_same_batches():
    one, two, other = (gradtx.shuffled_epochs(jax.random.key(k), 20, 5, 2) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert np.any(np.asarray(one) != np.asarray(other))


def test_bad_sizes_are_refused():
    for sizes in ((0, 1, 1), (5, 0, 1), (5, 6, 1), (5, 1, 0)):
        with pytest.raises(ValueError, match=r"^shuffled_epochs: "):
            gradtx.shuffled_epochs(jax.random.key(0), *sizes)
