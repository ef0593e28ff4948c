"""Several micro-batches give the step of the large batch."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same

KEY_X, KEY_Y = jax.random.split(jax.random.key(0))
X, Y = jax.random.normal(KEY_X, (24, 3)), jax.random.normal(KEY_Y, (24,))


def loss(params, x, y):
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def start():
    return {"w": jnp.ones(3), "b": jnp.zeros(())}


def train(tx, parts, compiled=True, **weights):
    """Takes one update for each (x, y). If `weights` is given, the sizes are passed as weights."""
    params = start()
    state = tx.init(params)
    update = jax.jit(tx.update) if compiled else tx.update
    for x, y in parts:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        extra = {"weight": len(y), "value": value} if weights else {"value": value}
        updates, state = update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params, state


def cut(sizes):
    edges = np.cumsum([0, *sizes])
    assert edges[-1] == 24
    return [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(edges)]


assert_close = partial(assert_same, rtol=1e-5, atol=1e-6)


INNER = {
    "adam": lambda: gradtx.adam(0.1),
    "clipped nesterov": lambda: optax.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.sgd(lambda k: 0.1 / (k + 1), momentum=0.9, nesterov=True)
    ),
    "a method that reads the loss": lambda: optax.polyak_sgd(f_min=0.1),
    "optax": lambda: optax.adamw(0.1),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", INNER)
def test_equal_micro_batches_give_the_step_of_the_large_batch(name, compiled):
    big, big_state = train(INNER[name](), cut([8, 8, 8]), compiled)
    small, state = train(gradtx.accumulate(INNER[name](), every=4), cut([2] * 12), compiled)
    assert_close(small, big)
    assert_close(state.accumulating_state, big_state)
    assert int(state.accumulated_count) == 3


@pytest.mark.parametrize("name", INNER)
def test_weighted_micro_batches_of_different_sizes_give_the_step_of_the_large_batch(name):
    big, big_state = train(INNER[name](), cut([12, 12]))
    small, state = train(gradtx.accumulate(INNER[name](), every=3), cut([1, 8, 3, 5, 5, 2]), weighted=True)
    assert_close(small, big)
    assert_close(state.accumulating_state, big_state)
    unweighted, _ = train(gradtx.accumulate(INNER[name](), every=3), cut([1, 8, 3, 5, 5, 2]))
    assert not np.allclose(unweighted["w"], big["w"], rtol=1e-3)


def test_the_number_of_micro_batches_may_grow():
    every = gradtx.growing_batch_sizes(1, 4, every=2)  # 1, 1, 2, 2, 4, ...
    big, big_state = train(gradtx.adam(0.1), cut([2, 2, 4, 4, 8, 4])[:-1])
    small, state = train(gradtx.accumulate(gradtx.adam(0.1), every), cut([2] * 12)[:-2])
    assert_close(small, big)
    assert_close(state.accumulating_state, big_state)


def test_one_micro_batch_per_step_is_bit_equal_to_the_plain_transformation():
    alone, _ = train(gradtx.adam(0.1), cut([8] * 3))
    wrapped, _ = train(gradtx.accumulate(gradtx.adam(0.1), every=1), cut([8] * 3), weighted=True)
    assert_same(wrapped, alone)


def test_accumulate_gives_the_same_numbers_in_a_scan_and_in_a_loop():
    tx = gradtx.accumulate(gradtx.sgd(0.1, momentum=0.9), gradtx.growing_batch_sizes(1, 3, every=2))

    def step(carry, k):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, X[2 * k][None], Y[2 * k][None]), state, params)
        return (optax.apply_updates(params, updates), state), jnp.any(updates["w"] != 0)

    (params, _), moved = jax.lax.scan(step, (start(), tx.init(start())), jnp.arange(12))
    expected, _ = train(tx, [(X[2 * k][None], Y[2 * k][None]) for k in range(12)])
    assert_close(params, expected)
    assert moved.astype(int).tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1]


def test_half_precision_micro_batches_are_averaged_in_float32():
    """The gradients alternate between 1 and 0.004, 1024 in all. A bfloat16 mean would not change in the late steps."""
    tx = gradtx.accumulate(gradtx.sgd(1.0), every=1024)
    gradients = jnp.tile(jnp.array([1.0, 0.004], jnp.bfloat16), 512)
    state = tx.init(jnp.zeros((), jnp.bfloat16))
    state, _ = jax.lax.scan(lambda s, g: (tx.update(g, s)[1], None), state, gradients[:-1])
    assert state.accumulated_mean.dtype == jnp.float32
    updates, _ = tx.update(gradients[-1], state)
    assert updates.dtype == jnp.bfloat16
    exact = np.asarray(gradients, np.float64).mean()
    np.testing.assert_allclose(float(updates), -exact, rtol=2**-8)
    np.testing.assert_allclose(float(state.accumulated_mean), np.asarray(gradients[:-1], np.float64).mean(), rtol=1e-5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_nonfinite_micro_batch_affects_only_its_own_step(bad):
    tx = gradtx.accumulate(gradtx.sgd(0.1), every=2)
    state = tx.init(jnp.zeros(2))
    seen = []
    for g in ([bad, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]):
        updates, state = tx.update(jnp.array(g), state)
        seen.append(np.asarray(updates))
    assert not np.isfinite(seen[1][0])
    np.testing.assert_allclose([seen[1][1], *seen[3]], -0.1)


def test_a_nan_loss_in_one_step_does_not_affect_the_next_step():
    tx = gradtx.accumulate(gradtx.plateau(), every=2)
    state = tx.init(jnp.zeros(()))
    for value in (jnp.nan, 1.0, 2.0, 4.0):
        _, state = tx.update(jnp.array(1.0), state, value=value)
    assert float(state.accumulated_value) == 0
    for value in (1.0, 3.0):
        _, state = tx.update(jnp.array(1.0), state, value=value)
    np.testing.assert_allclose(gradtx.readings(state)["plateau/slope"], -1.0, rtol=1e-5)  # 3, then 2


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_nonfinite_micro_batch_of_weight_zero_has_no_effect(bad):
    tx = gradtx.accumulate(gradtx.sgd(0.1), every=3)
    for order in ([0, 1, 2], [1, 0, 2], [1, 2, 0]):
        state = tx.init(jnp.zeros(()))
        micro_batches = [(bad, 0.0), (1.0, 1.0), (4.0, 2.0)]
        for i in order:
            g, weight = micro_batches[i]
            updates, state = tx.update(jnp.array(g), state, weight=weight, value=jnp.array(g))
        np.testing.assert_allclose(float(updates), -0.3, rtol=1e-6)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state))


def test_a_step_without_any_weight_waits_for_a_weighted_micro_batch():
    tx = gradtx.accumulate(gradtx.sgd(0.1), every=2)
    state = tx.init(jnp.zeros(()))
    for weight, expected in ((0, 0.0), (0, 0.0), (5, -0.1), (1, 0.0), (1, -0.1)):
        updates, state = tx.update(jnp.array(1.0), state, weight=weight)
        np.testing.assert_allclose(float(updates), expected)
    assert int(state.accumulated_count) == 2


def test_skip_nonfinite_outside_drops_the_micro_batch_and_inside_drops_the_step():
    def run(tx, gradients):
        state, params = tx.init(jnp.zeros(())), jnp.zeros(())
        for g in gradients:
            updates, state = tx.update(jnp.array(g), state)
            params = params + updates
        return float(params)

    inner = gradtx.sgd(1.0)
    outside = gradtx.skip_nonfinite(gradtx.accumulate(inner, every=2))
    inside = gradtx.accumulate(gradtx.skip_nonfinite(inner), every=2)
    assert run(outside, [1.0, np.nan, 3.0]) == -2.0
    assert run(inside, [1.0, np.nan, 3.0, 5.0]) == -4.0


def test_bad_arguments_are_refused_by_name():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"accumulate: every must be at least 1, got {wrong}"):
            gradtx.accumulate(gradtx.sgd(0.1), wrong)
    with pytest.raises(TypeError, match="every must be an integer or a function of the step"):
        gradtx.accumulate(gradtx.sgd(0.1), 1.5)
    with pytest.raises(TypeError, match="tx must be a gradient transformation"):
        gradtx.accumulate(lambda g: g, 2)


D, NOISE = 10, 3.9**0.5  # with ‖e‖² = 1: tr Σ = D (1 + 3.9) + 1 = 50
E = jnp.full(D, D**-0.5)
ACCUMULATORS = {
    "accumulate": lambda tx, n: gradtx.accumulate(tx, n),
    "MultiSteps": lambda tx, n: optax.MultiSteps(tx, n).gradient_transformation(),
    "accumulate in MultiSteps": lambda tx, n: optax.MultiSteps(
        gradtx.accumulate(tx, n // 2), 2
    ).gradient_transformation(),
    "MultiSteps in accumulate": lambda tx, n: gradtx.accumulate(optax.MultiSteps(tx, n // 2), 2),
}


def regression(key, size):
    """Returns the losses of new examples x ~ N(0, I), y = noise. The true weights are 0."""
    one, two = jax.random.split(key)
    x, y = jax.random.normal(one, (size, D)), NOISE * jax.random.normal(two, (size,))
    return lambda w: 0.5 * (x @ w - y) ** 2


@pytest.mark.parametrize("wrapper", ACCUMULATORS)
def test_noise_scale_and_gradient_tests_count_the_examples_of_the_whole_step(wrapper):
    """In this linear regression tr Σ = 50 and ‖G‖² = 1. Each step has 8 micro-batches of 8 examples."""
    inner = optax.chain(gradtx.gradient_noise_scale(decay=0.999), gradtx.gradient_tests())
    tx = ACCUMULATORS[wrapper](inner, 8)

    def micro(state, key):
        losses_fn = regression(key, 8)
        grads = jax.grad(lambda w: jnp.mean(losses_fn(w)))(E)
        _, state = tx.update(grads, state, E, losses_fn=losses_fn)
        return state, gradtx.readings(state)

    keys = jax.random.split(jax.random.key(0), 8 * 600)
    found = jax.jit(lambda keys: jax.lax.scan(micro, tx.init(E), keys)[1])(keys)
    found = {name: np.asarray(values)[7::8] for name, values in found.items()}
    assert found["gradient_noise_scale/noise_scale"][-1] == pytest.approx(50, rel=0.12)
    assert found["gradient_noise_scale/gradient_norm_squared"][-1] == pytest.approx(1, rel=0.12)
    squares = found["gradient_tests/standard_error"] ** 2
    assert squares.mean() == pytest.approx(50 / 64, rel=0.05)
    ratios = found["gradient_tests/norm"] / found["gradient_tests/standard_error"]  # 1 / ‖g‖, ‖g‖² = 1 + 50 / 64
    assert np.mean(ratios**-2.0) == pytest.approx(1 + 50 / 64, rel=0.1)


@pytest.mark.parametrize("instrument", [gradtx.gradient_noise_scale, gradtx.gradient_tests])
def test_an_accumulated_sum_in_place_of_the_mean_is_refused_by_name(instrument):
    tx = optax.MultiSteps(instrument(), 2, use_grad_mean=False)
    with pytest.raises(ValueError, match=rf"^{instrument.__name__}: the gradient must be the mean .*use_grad_mean"):
        tx.update(jnp.array(1.0), tx.init(jnp.array(1.0)), jnp.array(1.0), losses_fn=lambda x: x * jnp.arange(3.0))


def test_instruments_count_weighted_micro_batches_of_different_sizes():
    """The micro-batches have six and two examples. Σ is that of the two, and the mean is over all eight."""
    rows = jnp.array([0.0, 2.0, 4.0, 6.0, 8.0, 1.0, 3.0, 9.0])
    tx = gradtx.accumulate(optax.chain(gradtx.gradient_tests(), gradtx.gradient_noise_scale()), every=2)
    x, state = jnp.array(5.0), tx.init(jnp.array(5.0))
    for part in (rows[:6], rows[6:]):

        def losses_fn(x, part=part):
            return 0.5 * (x - part) ** 2

        grads = jnp.mean(x - part)
        _, state = tx.update(grads, state, x, losses_fn=losses_fn, weight=len(part))
    found, trace, g = gradtx.readings(state), np.var([3.0, 9.0], ddof=1), float(5 - rows.mean())
    assert found["gradient_tests/standard_error"] == pytest.approx(np.sqrt(trace / 8), rel=1e-5)
    assert found["gradient_noise_scale/gradient_norm_squared"] == pytest.approx(g**2 - trace / 8, rel=1e-5)


def test_the_noise_scale_is_nan_if_the_last_micro_batch_is_padding():
    tx = gradtx.accumulate(gradtx.gradient_noise_scale(), every=2)
    x, state = jnp.array(5.0), tx.init(jnp.array(5.0))

    def losses_fn(x):
        return 0.5 * (x - jnp.array([0.0, 2.0, 4.0])) ** 2

    for weight in (3, 0):
        _, state = tx.update(jnp.array(3.0), state, x, losses_fn=losses_fn, weight=weight)
    assert int(state.accumulated_count) == 1
    assert np.isnan(float(gradtx.readings(state)["gradient_noise_scale/noise_scale"]))


def test_plateau_inside_accumulate_reads_the_mean_loss_of_the_micro_batches():
    tx = gradtx.accumulate(gradtx.plateau(), every=2)
    state = tx.init(jnp.zeros(1))
    for value in (1.0, 3.0, 0.0, 2.0, 1.0, -1.0):  # 2, 1, 0
        _, state = tx.update(jnp.zeros(1), state, value=value)
    assert gradtx.readings(state)["plateau/slope"] == pytest.approx(-1.0, rel=1e-5)


@pytest.mark.parametrize("value", [None, "absent"])
def test_a_missing_value_is_an_error_only_if_an_instrument_needs_it(value):
    tx = gradtx.accumulate(gradtx.sgd(0.1), every=1)
    extra = {} if value == "absent" else {"value": None}
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), **extra)
    np.testing.assert_allclose(updates, [-0.1], rtol=1e-6)
    tx = gradtx.accumulate(gradtx.plateau(), every=1)
    with pytest.raises(ValueError, match=r"plateau needs the loss's value: call update\(.*, value=value\)\."):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), **extra)
