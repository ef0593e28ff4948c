"""A state stored in fewer bytes trains like one in float32, and a run repeats bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab
from gradtx._core.rounding import chances, chances_of_bits, from_8bit, mixed, scales_8bit, to_8bit, to_bfloat16
from gradtx.lab.problems.sequences import adding
from gradtx.lab.problems.text import characters
from tests.comparing import assert_same

DTYPES = {"bfloat16": jnp.bfloat16, "8bit": "8bit"}
RANDOM = np.random.default_rng(0)
SIGNED = jnp.asarray(RANDOM.normal(size=(40, 130)) * np.exp(2 * RANDOM.normal(size=(40, 130))), jnp.float32)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def round_trip(x, seed):
    scale = scales_8bit(x)
    return from_8bit(to_8bit(x, scale, mixed(jnp.uint32(seed))), scale)


ROUNDINGS = {"bfloat16": lambda x, seed: to_bfloat16(x, mixed(jnp.uint32(seed))).astype(x.dtype), "8bit": round_trip}
STEPS = {"bfloat16": 2.0**-7, "8bit": 2.0**-3}


@pytest.mark.parametrize("x", [SIGNED, SIGNED**2], ids=["both signs", "none negative"])
@every_dtype
def test_rounding_is_within_one_step_and_unbiased(dtype, x):
    rounded = jax.vmap(lambda seed: ROUNDINGS[dtype](x, seed))(jnp.arange(1000))
    largest = np.max(np.abs(np.pad(np.ravel(x), (0, -x.size % 256)).reshape(-1, 256)), axis=1)
    limit = np.repeat(largest, 256)[: x.size].reshape(x.shape) * 2.0**-15
    kept = np.abs(x) > limit
    errors = (np.asarray(rounded, np.float64) - np.asarray(x)) / np.where(kept, np.abs(x), 1)
    assert np.max(np.abs(errors[:, kept])) <= STEPS[dtype]
    assert np.max(np.abs(np.mean(errors, axis=0)[kept])) < 4 * 0.5 * STEPS[dtype] / 1000**0.5


def test_chances_are_uniform_over_seeds_and_evenly_spread_over_entries():
    over_seeds = jax.vmap(lambda seed: chances(mixed(seed), (3, 5)))(jnp.arange(2000, dtype=jnp.uint32))
    counts = np.stack([np.histogram(np.asarray(over_seeds)[:, i, j], 8, (0, 2**32))[0] for i in (0, 2) for j in (0, 4)])
    assert np.all(np.abs(counts - 250) < 5 * 250**0.5)
    neighbours = np.sort(np.asarray(chances(jnp.uint32(7), (1000,)), np.float64))
    assert np.max(np.diff(neighbours)) < 4 * 2**32 / 1000


def test_chances_of_bits_are_uniform_over_seeds_and_evenly_spread_over_close_numbers():
    bits = jnp.arange(0x3EAAAAAB, 0x3EAAAAAB + 1000, dtype=jnp.uint32)  # the bits of 1/3 and of the next 999 numbers
    over_seeds = np.asarray(
        jax.vmap(lambda seed: chances_of_bits(bits, mixed(seed)))(jnp.arange(2000, dtype=jnp.uint32))
    )
    counts = np.stack([np.histogram(over_seeds[:, i], 8, (0, 2**32))[0] for i in (0, 1, 999)])
    assert np.all(np.abs(counts - 250) < 5 * 250**0.5)
    assert np.max(np.diff(np.sort(over_seeds[7].astype(float)))) < 4 * 2**32 / 1000


def test_8_bit_storage_keeps_zeros_signs_and_the_largest_entry():
    powers = jnp.asarray([1.5 * 2.0**k for k in range(-13, 1)] * 20, jnp.float32)
    for x in (powers, powers.at[::2].multiply(-1), jnp.zeros(300), 1e30 * powers, 1e-30 * powers):
        scaled = x.at[0].set(jnp.max(jnp.abs(x)) / 1.5)  # a power of two among multiples of 1.5
        back = round_trip(scaled, 3)
        np.testing.assert_allclose(back, scaled, rtol=0.13)
        np.testing.assert_array_equal(back == 0, scaled == 0)
        np.testing.assert_array_equal(jnp.sign(back), jnp.sign(scaled))
        assert float(jnp.max(jnp.abs(back))) == pytest.approx(float(jnp.max(jnp.abs(scaled))), rel=1e-6)


def test_a_positive_second_moment_does_not_become_0():
    x = jnp.ones(256).at[1:].set(jnp.logspace(-30, -1, 255))
    assert bool(jnp.all(round_trip(x, 1) > 0))
    assert bool(jnp.any(round_trip(x.at[0].set(-1.0), 1) == 0))  # a negative entry in the block reduces the range


def test_nonfinite_entries_stay_visible_and_affect_only_their_block():
    for bad in (jnp.nan, jnp.inf):
        x = jnp.ones(600).at[300].set(bad)
        finite = jnp.isfinite(round_trip(x, 1))
        assert not bool(finite[300])
        assert bool(jnp.all(finite[:256]) & jnp.all(finite[512:]))
        np.testing.assert_array_equal(to_bfloat16(x, jnp.uint32(9)).astype(jnp.float32), x)


@pytest.mark.parametrize("shape", [(24, 1280), (2, 8, 1536), (3, 16, 1792)], ids=str)  # of no other test: see below
def test_a_tpu_stores_the_same_numbers_as_a_cpu(shape, monkeypatch):
    x = jnp.asarray(RANDOM.normal(size=shape), jnp.float32)
    x = x.at[..., 0, :256].set(jnp.abs(x[..., 0, :256])).at[..., -1, -1].set(jnp.nan)  # blocks of all kinds

    def stored(x):
        scale = scales_8bit(x)
        return scale, jnp.ravel(from_8bit(to_8bit(x, scale, jnp.uint32(7)), scale))

    here, chosen = jax.lax.platform_dependent, []

    def on_a_tpu(*args, tpu, default):
        chosen.append(default)
        return here(*args, default=tpu)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_a_tpu)
    got = jax.jit(stored)(x)
    assert len(chosen) == 2  # for the scales, and for the scale of each entry; not found in a cache
    assert_same(got, jax.jit(stored)(jnp.ravel(x)))  # a vector is stored alike on all platforms


def trained(tx, steps=30, size=5000):
    params = {"w": jnp.linspace(-1, 1, size), "b": jnp.ones(3)}

    @jax.jit
    def run(params, state):
        def step(carry, _):
            params, state = carry
            grads = jax.tree.map(lambda p: p * jnp.linspace(1, 3, p.size), params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=steps)[0]

    return run(params, tx.init(params))


@every_dtype
def test_a_run_repeats_bit_for_bit_and_depends_on_the_seed(dtype):
    def run(seed):
        return trained(gradtx.stored_as(gradtx.adam(0.01), DTYPES[dtype], seed=seed))

    assert_same(run(0), run(0))
    assert not np.array_equal(run(0)[0]["w"], run(1)[0]["w"])


@every_dtype
def test_small_leaves_stay_in_float32_and_large_leaves_train_closely(dtype):
    params, state = trained(gradtx.stored_as(gradtx.rmsprop(0.01, momentum=0.9), DTYPES[dtype]))
    expected, _ = trained(gradtx.rmsprop(0.01, momentum=0.9))
    np.testing.assert_allclose(params["b"], expected["b"], rtol=1e-5)  # bfloat16 has an error of 2⁻⁹
    np.testing.assert_allclose(params["w"], expected["w"], atol=0.05)
    assert state.stored_state[0].mean_square["w"].dtype == (jnp.uint8 if dtype == "8bit" else jnp.bfloat16)
    assert state.restored()[0].mean_square["w"].dtype == jnp.float32
    assert state.restored()[0].mean_square["b"].dtype == jnp.float32


def bytes_a_parameter(tx, size=1_000_000):
    return sum(x.nbytes for x in jax.tree.leaves(tx.init(jnp.zeros(size)))) / size


def test_the_state_of_adam_takes_8_or_4_or_2_bytes_per_parameter():
    assert bytes_a_parameter(gradtx.adam(0.1)) == pytest.approx(8, abs=0.01)
    assert bytes_a_parameter(gradtx.stored_as(gradtx.adam(0.1), jnp.bfloat16)) == pytest.approx(4, abs=0.01)
    assert bytes_a_parameter(gradtx.stored_as(gradtx.adam(0.1), "8bit")) < 2.2
    assert bytes_a_parameter(gradtx.stored_as(optax.adamw(0.1), "8bit")) < 2.2


def test_a_bfloat16_accumulator_can_be_stored_in_8_bits():
    tx = gradtx.stored_as(gradtx.heavy_ball(0.9, accumulator_dtype=jnp.bfloat16), "8bit")
    state = tx.init({"w": jnp.ones(5000), "b": jnp.ones(3)})
    _, new = tx.update({"w": jnp.ones(5000), "b": jnp.ones(3)}, state)
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)


def test_bfloat16_storage_keeps_shardings_and_8_bit_storage_skips_sharded_leaves():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones((64, 128)), jax.sharding.NamedSharding(mesh, jax.P("x", None)))
        for dtype, expected in ((jnp.bfloat16, jnp.bfloat16), ("8bit", jnp.float32)):
            tx = gradtx.stored_as(gradtx.heavy_ball(0.9), dtype)
            state = jax.jit(tx.init)(params)
            updates, new = jax.jit(tx.update)(params, state, params)
            assert jax.typeof(updates) == jax.typeof(params)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            assert new.stored_state.velocity.dtype == expected
            assert jax.typeof(new.stored_state.velocity).sharding == jax.typeof(params).sharding


@every_dtype
@pytest.mark.sampled(1)
def test_nesterov_eval_params_works_with_stored_as_inside_and_outside_of_packed(dtype):
    inner = gradtx.sgd(0.01, 0.9, nesterov=True)
    params, state = trained(gradtx.packed(gradtx.stored_as(inner, DTYPES[dtype], min_leaf_size=1)), size=300)
    expected = gradtx.nesterov_eval_params(*trained(inner, size=300))
    got = gradtx.nesterov_eval_params(params, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1 if dtype == "8bit" else 0.01), got, expected)
    outside = trained(gradtx.stored_as(gradtx.packed(inner), DTYPES[dtype], min_leaf_size=1), size=300)
    got = gradtx.nesterov_eval_params(*outside)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1 if dtype == "8bit" else 0.01), got, expected)


PROBLEMS = {
    "digits": (lambda: lab.digits(), 0.003, DTYPES.values()),
    "adding": (lambda: adding(length=10, hidden=16, examples=500), 0.01, ["8bit"]),
    "characters": (lambda: characters(context=8, width=16, layers=1), 0.01, ["8bit"]),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.sampled(1)
def test_a_stored_state_trains_real_problems_almost_like_float32(name):
    make, rate, dtypes = PROBLEMS[name]
    problem, tx, steps = make(), gradtx.adam(rate), 150

    def final_loss(tx):
        history = lab.run(problem, tx, steps=steps, key=jax.random.key(1), eval_every=steps, progress=False)
        return history.train_loss[0], history.train_loss[-1]

    start, whole = final_loss(tx)
    for dtype in dtypes:
        _, small = final_loss(gradtx.stored_as(tx, dtype, min_leaf_size=1))
        assert small - whole < 0.05 * (start - whole)


def test_bfloat16_parameters_move_by_small_updates_on_average():
    def step(params, key):
        return gradtx.apply_updates_stochastic(params, {"w": jnp.full(2000, -1e-3)}, key), None

    start = {"w": jnp.ones(2000, jnp.bfloat16)}
    params, _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 50))
    assert float(jnp.mean(params["w"].astype(jnp.float32))) == pytest.approx(0.95, abs=1e-3)
    # Rounding to nearest loses every update.
    assert np.array_equal(optax.apply_updates(start, {"w": jnp.full(2000, -1e-3)})["w"], start["w"])


def test_apply_updates_stochastic_updates_other_dtypes_like_optax():
    params = {"w": jnp.ones(3), "h": jnp.ones(2, jnp.float16), "n": None}
    updates = {"w": jnp.full(3, 0.1), "h": jnp.full(2, 0.1), "n": None}
    got = gradtx.apply_updates_stochastic(params, updates, jax.random.key(0))
    expected = optax.apply_updates(params, updates)
    assert [x.dtype for x in jax.tree.leaves(got)] == [x.dtype for x in jax.tree.leaves(expected)]
    assert_same(got, expected)


def test_bad_arguments_are_refused_by_name():
    for wrong in (jnp.float16, "4bit", None, 8):
        with pytest.raises(ValueError, match=r'stored_as: dtype must be jnp\.bfloat16 or "8bit", got'):
            gradtx.stored_as(gradtx.sgd(0.1), wrong)
    with pytest.raises(ValueError, match="stored_as: seed must be at least 0, got -1"):
        gradtx.stored_as(gradtx.sgd(0.1), "8bit", seed=-1)
    with pytest.raises(TypeError, match="stored_as: min_leaf_size must be an integer"):
        gradtx.stored_as(gradtx.sgd(0.1), "8bit", min_leaf_size=1.5)
    with pytest.raises(TypeError, match="stored_as: tx must be a gradient transformation"):
        gradtx.stored_as(lambda g: g, "8bit")


@every_dtype
def test_a_stored_state_can_be_read_with_another_min_leaf_size(dtype):
    params = {"w": jnp.ones(5000), "b": jnp.ones(300)}
    made = gradtx.stored_as(gradtx.heavy_ball(0.9), DTYPES[dtype], min_leaf_size=1)
    resumed = gradtx.stored_as(gradtx.heavy_ball(0.9), DTYPES[dtype], min_leaf_size=10**6)
    state = made.update(params, made.init(params))[1]
    assert_same(made.update(params, state), resumed.update(params, state))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "8bit"])
def test_a_stack_of_stored_states_is_restored_like_each_state_alone(dtype):
    tx = gradtx.stored_as(gradtx.sgd(0.1, momentum=0.9), dtype, min_leaf_size=1)
    gradients = jax.random.normal(jax.random.key(0), (2, 300)) * jnp.array([[1.0], [100.0]])
    _, stack = jax.vmap(lambda g: tx.update(g, tx.init(g)))(gradients)
    for number, g in enumerate(gradients):
        alone = tx.update(g, tx.init(g))[1].restored()
        assert_same(alone, jax.tree.map(lambda x, n=number: x[n], stack.restored()))
