"""Each epoch reads each example once, in a new order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def test_every_epoch_is_a_new_permutation():
    batches = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 12, 4, 5)).reshape(5, 12)
    assert all(sorted(epoch) == list(range(12)) for epoch in batches.tolist())
    assert len({tuple(epoch) for epoch in batches.tolist()}) == 5


def test_without_reshuffling_every_epoch_has_the_order_of_the_first():
    often = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 12, 4, 3))
    once = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 12, 4, 3, reshuffle=False))
    np.testing.assert_array_equal(once, np.tile(often[:3], (3, 1)))


def test_remainder_drop_leaves_out_examples_that_do_not_fill_a_batch():
    batches = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 10, 4, 3))
    assert batches.shape == (6, 4)
    assert all(len(set(epoch)) == 8 for epoch in batches.reshape(3, 8).tolist())


def test_remainder_wrap_fills_the_last_batch_with_the_first_examples_of_the_epoch():
    batches = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 10, 4, 3, remainder="wrap")).reshape(3, 3, 4)
    for epoch in batches:
        assert set(epoch.ravel().tolist()) == set(range(10))
        np.testing.assert_array_equal(epoch[2, 2:], epoch[0, :2])
        assert all(len(set(batch)) == 4 for batch in epoch.tolist())


def test_remainder_pad_fills_the_last_batch_with_minus_one():
    batches = gradtx.shuffled_epochs(jax.random.key(0), 10, 4, 3, remainder="pad")
    np.testing.assert_array_equal(jnp.sum(batches >= 0, axis=1), [4, 4, 2] * 3)
    assert all(sorted(epoch) == [-1, -1, *range(10)] for epoch in batches.reshape(3, 12).tolist())


def test_all_remainder_policies_agree_if_the_batches_divide_the_epoch():
    same = [gradtx.shuffled_epochs(jax.random.key(3), 12, 4, 2, remainder=r) for r in ("drop", "wrap", "pad")]
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])


def test_the_shuffled_orders_do_not_change_between_versions():
    """A run that is resumed after an upgrade must see the same minibatches as without the upgrade."""
    first = gradtx.shuffled_epochs(jax.random.key(0), 10, 4, 2)
    np.testing.assert_array_equal(first, [[0, 8, 2, 4], [1, 7, 9, 5], [0, 3, 9, 5], [1, 8, 4, 6]])


def test_the_same_key_gives_the_same_batches_inside_and_outside_of_jit():
    one, two, other = (gradtx.shuffled_epochs(jax.random.key(k), 20, 5, 2) for k in (1, 1, 2))
    traced = jax.jit(lambda key: gradtx.shuffled_epochs(key, 20, 5, 2))(jax.random.key(1))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, traced)
    assert np.any(np.asarray(one) != np.asarray(other))


def test_an_online_pass_does_not_repeat_an_example():
    batches = np.asarray(gradtx.online_pass(jax.random.key(0), 103, 10))
    assert batches.shape == (10, 10)
    assert len(set(batches.ravel().tolist())) == 100
    padded = np.asarray(gradtx.online_pass(jax.random.key(0), 103, 10, remainder="pad"))
    assert sorted(padded.ravel().tolist()) == [-1] * 7 + list(range(103))


# Statistics of minibatches: chapter §3


@partial(jax.jit, static_argnames="learning_rate")
def mean_by_sgd(examples, batches, learning_rate):
    """Returns the mean of the examples as estimated by one pass of SGD from 0 on the squared distances."""

    def step(theta, indices):
        return theta - learning_rate * jnp.mean(theta - examples[indices]), None

    return jax.lax.scan(step, 0.0, batches)[0]


def test_sgd_on_sorted_data_is_biased_and_on_shuffled_data_is_not():
    n, rate = 1000, 0.05
    examples = jnp.linspace(0.0, 1.0, n)
    in_order = float(mean_by_sgd(examples, jnp.arange(n)[:, None], rate))
    weights = rate * (1 - rate) ** np.arange(n)[::-1]  # SGD weighs about 1 / rate last examples, here the largest
    assert in_order == pytest.approx(float(weights @ np.linspace(0, 1, n)), abs=1e-4)
    assert in_order - 0.5 > 0.45
    keys = jax.random.split(jax.random.key(0), 50)
    shuffled = [float(mean_by_sgd(examples, gradtx.online_pass(key, n, 1), rate)) for key in keys]
    expected_spread = np.sqrt(1 / 12 * rate / (2 - rate))
    assert np.mean(shuffled) == pytest.approx(0.5, abs=4 * expected_spread / np.sqrt(50))
    assert np.std(shuffled) == pytest.approx(expected_spread, rel=0.3)


def test_the_spread_of_a_minibatch_gradient_falls_as_one_over_root_n():
    n = 2048
    gradients = jax.random.normal(jax.random.key(0), (n,)) ** 3  # gradients of the examples, of any distribution
    sigma = float(jnp.std(gradients))
    for size in (1, 4, 16, 64):
        batches = gradtx.shuffled_epochs(jax.random.key(1), n, size, epochs=20)
        spread = float(jnp.std(jnp.mean(gradients[batches], axis=1)))
        without_replacement = np.sqrt((n - size) / (n - 1))
        assert spread == pytest.approx(sigma / np.sqrt(size) * without_replacement, rel=0.1)


def test_bad_arguments_are_refused_by_name():
    for sizes in ((0, 1, 1), (5, 0, 1), (5, 6, 1), (5, 1, 0)):
        with pytest.raises(ValueError, match=r"^shuffled_epochs: "):
            gradtx.shuffled_epochs(jax.random.key(0), *sizes)
    for argument in ("num_examples", "batch_size", "epochs"):
        sizes = {"num_examples": 5, "batch_size": 1, "epochs": 1} | {argument: 1.5}
        with pytest.raises(TypeError, match=rf"^shuffled_epochs: {argument} must be an integer, got 1\.5"):
            gradtx.shuffled_epochs(jax.random.key(0), **sizes)
    with pytest.raises(TypeError, match=r"^online_pass: key must be a JAX random key, .* got 0"):
        gradtx.online_pass(0, 5, 1)
    with pytest.raises(ValueError, match=r"^online_pass: batch_size must be at most num_examples = 5, got 6"):
        gradtx.online_pass(jax.random.key(0), 5, 6)
    with pytest.raises(ValueError, match=r"^online_pass: remainder must be one of 'drop', 'pad', got 'wrap'"):
        gradtx.online_pass(jax.random.key(0), 5, 2, remainder="wrap")
