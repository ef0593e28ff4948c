"""These tests hold for every instrument: when it measures, what it refuses, and where it can be used."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.zoo import INSTRUMENTS

from .runs import mean, net, watched

PARAMS, LOSSES = net(4)
GRADS = jax.grad(mean(LOSSES))(PARAMS)
EXTRA = {"value": jnp.float32(1.0), "value_fn": mean(LOSSES), "losses_fn": LOSSES}
ALL = {
    "gradient_norm": gradtx.gradient_norm,
    "update_ratio": gradtx.update_ratio,
    "clipping_events": gradtx.clipping_events,
    "gradient_alignment": gradtx.gradient_alignment,
    "curvature_ratio": lambda **o: gradtx.curvature_ratio(0.1, **o),
    "gain_ratio": gradtx.gain_ratio,
    "gradient_tests": gradtx.gradient_tests,
    "gradient_noise_scale": gradtx.gradient_noise_scale,
    "sharpness": lambda **o: gradtx.sharpness(0.1, num_iterations=2, **o),
    "plateau": gradtx.plateau,
    "trajectory": gradtx.trajectory,
    "panel": lambda **o: gradtx.panel(0.1, **o),
}
every_instrument = pytest.mark.parametrize("name", ALL)


def test_all_instruments_that_measure_every_n_steps_are_tested_here():
    missing = {row.name for row in INSTRUMENTS if row.takes("every")} ^ ALL.keys()
    assert not missing, f"give these a row in `ALL` of tests/instruments/test_instrument.py: {missing}"


def test_an_instrument_with_every_n_measures_steps_0_n_2n():
    g = jnp.arange(1.0, 9.0)[:, None]
    found = watched(gradtx.gradient_norm(every=3), g)["gradient_norm/global"]
    np.testing.assert_array_equal(found, [1, 1, 1, 4, 4, 4, 7, 7])


@every_instrument
def test_a_step_with_measure_false_only_counts(name):
    if name == "trajectory":
        pytest.skip("a trajectory measures each step of a path, see test_trajectory.py")
    tx = ALL[name](every=1)
    state = tx.init(PARAMS)

    def equations(measure):
        def step(g, s, p):
            return tx.update(g, s, p, measure=measure, **EXTRA)[1]

        return len(jax.make_jaxpr(step)(GRADS, state, PARAMS).eqns)

    assert equations(False) <= 6  # these add 1 to a count that saturates
    assert equations(True) > equations(False)


def test_readings_stay_the_same_until_the_next_step_with_measure_true():
    tx = gradtx.gradient_norm()
    step = jax.jit(lambda g, s, measure: tx.update(g, s, measure=measure)[1], static_argnames="measure")
    state, seen = tx.init(jnp.zeros(1)), []
    for k in range(5):
        state = step(jnp.full(1, k + 1.0), state, measure=k % 3 == 0)
        seen.append((int(gradtx.readings(state)["gradient_norm/global"]), int(state.gradient_norm_measured_at)))
    assert seen == [(1, 0), (1, 0), (1, 0), (4, 3), (4, 3)]
    assert state.gradient_norm_count == 5


@pytest.mark.parametrize("name", ["gradient_alignment", "panel"])
@pytest.mark.sampled(1)
def test_measure_remember_gives_the_readings_of_every(name):
    grads = [jax.tree.map(lambda g, k=k: (-1) ** k * (k + 1) * g, GRADS) for k in range(7)]
    tx, periodic = ALL[name](every=1), ALL[name](every=3)
    states = [tx.init(PARAMS), periodic.init(PARAMS)]
    step = jax.jit(lambda g, s, p, measure: tx.update(g, s, p, measure=measure, **EXTRA)[1], static_argnames="measure")
    follow = jax.jit(lambda g, s, p: periodic.update(g, s, p, **EXTRA)[1])
    for k, g in enumerate(grads):
        params = jax.tree.map(lambda x, k=k: x + k, PARAMS)
        measure = {0: True, 2: "remember"}.get(k % 3, False)
        states = [step(g, states[0], params, measure=measure), follow(g, states[1], params)]
        found, expected = map(gradtx.readings, states)
        for reading, value in expected.items():
            np.testing.assert_allclose(found[reading], value, rtol=1e-5, atol=1e-6, err_msg=f"{reading} at step {k}")
    assert not np.isnan(found["gradient_alignment/cosine"])


@pytest.mark.parametrize("measure", [1, jnp.array(True), "yes"])
def test_measure_must_be_a_python_bool_or_remember(measure):
    tx = gradtx.gradient_norm()
    rule = 'gradient_norm: measure must be True, False, "remember" or None, a static argument'
    with pytest.raises(TypeError, match=rule):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), measure=measure)


NEEDS = {
    "update_ratio": ({}, "needs the parameters: call update.grads, state, params"),
    "curvature_ratio": ({}, "needs the loss: call update.grads, state, params, value_fn=loss"),
    "gain_ratio": ({}, "needs the loss: call update"),
    "sharpness": ({}, "needs the loss: call update"),
    "gradient_tests": ({"value_fn": mean(LOSSES)}, "needs the loss of each example: call update.*losses_fn=losses"),
    "gradient_noise_scale": ({"value_fn": mean(LOSSES)}, "needs the loss of each example: call update"),
    "plateau": ({}, "needs the loss's value: call update.*value=value"),
    "trajectory": ({}, "needs the parameters: call update"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_argument_is_named_with_the_call_that_gives_it(name):
    extra, message = NEEDS[name]
    tx = ALL[name]()
    with pytest.raises(ValueError, match=f"{name} {message}"):
        tx.update(GRADS, tx.init(PARAMS), None if "parameters" in message else PARAMS, **extra)


def test_losses_of_a_wrong_shape_are_refused_by_name():
    tx = gradtx.gradient_tests()
    with pytest.raises(ValueError, match=r"gradient_tests: losses_fn must return an array \[batch\], got shape \(\)"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, losses_fn=mean(LOSSES))
    tx = gradtx.curvature_ratio(0.1)
    with pytest.raises(ValueError, match=r"curvature_ratio: value_fn must return a scalar, got shape \(12,\)"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, value_fn=LOSSES)


def test_a_loss_of_masked_parameters_is_refused_with_advice():
    tx = optax.masked(gradtx.curvature_ratio(0.1), {"b": False, "v": True, "w": True})
    with pytest.raises(ValueError, match=r"1 of 3 parameters are masked: chain the instrument outside optax.masked"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, value_fn=mean(LOSSES))


@every_instrument
@pytest.mark.sampled(4)
def test_a_leaf_without_a_gradient_counts_as_one_with_a_zero_gradient(name):
    tx = ALL[name]()
    step = jax.jit(lambda g, p: gradtx.readings(tx.update(g, tx.init(p), p, **EXTRA)[1]))
    found = step(GRADS | {"b": None}, PARAMS)
    zero = step(GRADS | {"b": jnp.zeros_like(PARAMS["b"])}, PARAMS)
    for key in found:
        if key != "update_ratio/global":  # its norm of the parameters leaves out such a leaf
            np.testing.assert_allclose(found[key], zero[key], rtol=1e-6, err_msg=key)


def test_a_chain_of_all_instruments_in_a_scan_does_not_change_adam():
    plain, seen = optax.adam(1e-2), optax.chain(*(make() for make in ALL.values()), optax.adam(1e-2))

    def run(tx):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(mean(LOSSES))(params), state, params, **EXTRA)
            return (optax.apply_updates(params, updates), state), gradtx.readings(state)

        return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=4))(PARAMS)

    ((alone, _), _), ((beside, _), curves) = run(optax.with_extra_args_support(plain)), run(seen)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(beside), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert all(value.shape == (4,) for value in curves.values())
    assert {name.split("/")[0] for name in curves} >= ALL.keys() - {"panel"}
    assert {"gradient_norm@2/global", "curvature_ratio@2/gHg"} <= curves.keys()  # from the panel


def test_learning_rates_can_be_swept_under_vmap():
    def ratio(rate):
        tx = optax.chain(gradtx.panel(rate), gradtx.sharpness(rate, num_iterations=2), gradtx.stationarity(rate, rate))
        found = gradtx.readings(tx.update(GRADS, tx.init(PARAMS), PARAMS, losses_fn=LOSSES)[1])
        return found["curvature_ratio/ratio"], found["sharpness/stability"]

    first, second = jax.jit(jax.vmap(ratio))(jnp.array([0.1, 0.2, 0.4]))
    np.testing.assert_allclose(first / first[0], [1, 2, 4], rtol=1e-5)
    np.testing.assert_allclose(second / second[0], [1, 2, 4], rtol=1e-5)


SHARDED = {
    "gradient_norm": lambda **o: gradtx.gradient_norm(per_leaf=True, **o),
    "update_ratio": lambda **o: gradtx.update_ratio(per_leaf=True, **o),
    "clipping_events": lambda **o: gradtx.clipping_events(1.0, **o),
    "gradient_alignment": gradtx.gradient_alignment,
    "stationarity": lambda **o: gradtx.stationarity(0.1, 0.5, **o),
    "trajectory": gradtx.trajectory,
}


def test_readings_of_shards_with_axis_name_equal_those_of_the_whole_arrays():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    specs = {"b": jax.P(), "w": jax.P("x", None)}
    rng = np.random.default_rng(0)
    params = {
        "b": jnp.asarray(rng.normal(size=3), jnp.float32),
        "w": jnp.asarray(rng.normal(size=(16, 3)), jnp.float32),
    }
    steps = [jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params) for _ in range(3)]
    steps[2]["w"] = steps[2]["w"].at[5, 1].set(jnp.nan)

    def run(params, steps, **options):
        tx = optax.chain(*(make(**options) for make in SHARDED.values()))
        state, found = tx.init(params), []
        for u in steps:
            _, state = tx.update(u, state, params)
            params = optax.apply_updates(params, u)
            found.append(gradtx.readings(state))
        return found

    expected = jax.jit(run)(params, steps)
    with jax.set_mesh(mesh):
        shardings = {k: jax.sharding.NamedSharding(mesh, spec) for k, spec in specs.items()}
        sharded = jax.device_put((params, steps), (shardings, [shardings] * 3))
        whole = jax.shard_map(lambda p, s: run(p, s, axis_name="x"), in_specs=(specs, [specs] * 3), out_specs=jax.P())
        found = jax.jit(whole)(*sharded)
    for k in range(3):
        for name, value in expected[k].items():
            np.testing.assert_allclose(found[k][name], value, rtol=1e-5, err_msg=f"{name} at {k}")
    assert found[2]["gradient_norm/nonfinite"] == 1


def test_the_panel_works_inside_shard_map():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    tx = gradtx.panel(0.1, every=2)

    def local(params):
        state = tx.init(params)
        for _ in range(2):
            _, state = tx.update(params, state, params, losses_fn=lambda p: jnp.sum(p**2, axis=1) / 2)
        return {name: value[None] for name, value in gradtx.readings(state).items()}

    params = jnp.arange(48.0).reshape(16, 3)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.P("x", None)))
        found = jax.jit(jax.shard_map(local, in_specs=jax.P("x", None), out_specs=jax.P("x")))(sharded)
    np.testing.assert_allclose(
        found["gradient_norm/global"], np.linalg.norm(np.asarray(params).reshape(8, -1), axis=1), rtol=1e-6
    )


@pytest.mark.parametrize("axis_name", [1, ("x", 2)])
def test_an_axis_name_must_be_a_string_or_a_tuple_of_strings(axis_name):
    with pytest.raises(TypeError, match="gradient_norm: axis_name must be a string, a tuple of strings or None"):
        gradtx.gradient_norm(axis_name=axis_name)


# Instruments that measure every few steps


def sometimes(name, every=3):
    """Returns a compiled training step of a net whose largest leaf has the shape [3, 50], and its arguments."""
    params, losses = net(50)
    tx = optax.chain(ALL[name](every=every), optax.sgd(0.1))

    def step(params, state):
        value, g = jax.value_and_grad(mean(losses))(params)
        extra = {"value": value, "value_fn": mean(losses), "losses_fn": losses}
        updates, state = tx.update(g, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1)), (params, tx.init(params))


@every_instrument
@pytest.mark.sampled(4)
def test_a_step_between_two_measurements_copies_no_array_of_the_parameters_size(name):
    if name == "trajectory":
        pytest.skip("a trajectory is measured at each step")
    step, arguments = sometimes(name)
    program = step.lower(*arguments).compile().as_text()
    entry = program[program.index("ENTRY") :]
    assert re.search(r"f32\[3,50\]\S* parameter\(", entry)  # arrays are still written so
    assert not re.findall(r"f32\[3,50\]\S* copy\(", entry)


@pytest.mark.parametrize("name", ["gradient_norm", "gradient_alignment"])
def test_the_same_steps_are_measured_outside_jit(name):
    tx, g = ALL[name](every=3), jnp.array([[1.0, 2.0], [-1.0, 1.0], [3.0, 0.5], [1.0, -2.0], [0.5, 0.5]])
    expected, state = watched(tx, g), tx.init(g[0])
    for k in range(5):
        _, state = tx.update(g[k], state)
        for reading, value in gradtx.readings(state).items():
            np.testing.assert_allclose(value, expected[reading][k], rtol=1e-6, err_msg=f"{reading} at {k}")


@every_instrument
@pytest.mark.sampled(4)
def test_updates_pass_bit_for_bit_at_measured_and_unmeasured_steps(name):
    tx = ALL[name](every=2)
    bad = jax.tree.map(lambda g: g.at[0].set(-0.0).at[1].set(jnp.nan).at[2].set(jnp.inf), GRADS)
    state, update = tx.init(PARAMS), jax.jit(lambda g, s: tx.update(g, s, PARAMS, **EXTRA))
    for _ in range(3):
        updates, state = update(bad, state)
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(bad), strict=True):
            assert u.tobytes() == g.tobytes()


@every_instrument
@pytest.mark.sampled(3)
def test_an_instrument_does_not_change_the_derivative_of_a_training(name):
    def trained(log_rate, weight, tx):
        def losses(p):
            return weight * LOSSES(p)

        params, state = PARAMS, tx.init(PARAMS)
        for _ in range(3):
            value, g = jax.value_and_grad(mean(losses))(params)
            extra = {"value": value, "value_fn": mean(losses), "losses_fn": losses}
            updates, state = optax.with_extra_args_support(tx).update(g, state, params, **extra)
            params = jax.tree.map(lambda p, u: p - jnp.exp(log_rate) * u, params, updates)
        return mean(LOSSES)(params)

    found, expected = (
        jax.jit(jax.grad(trained, argnums=(0, 1)), static_argnums=2)(-1.0, 1.5, tx)
        for tx in (ALL[name](every=2), optax.identity())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@every_instrument
def test_the_docstring_of_each_instrument_explains_its_use_inside_accumulate(name):
    assert "Inside `accumulate`" in (getattr(gradtx, name).__doc__ or "")


MISSING = {
    "update_ratio": "the parameters: call update(grads, state, params).",
    "curvature_ratio": "the parameters and the loss: call update(grads, state, params, value_fn=loss).",
    "gradient_tests": "the parameters and the loss of each example: "
    "call update(grads, state, params, losses_fn=losses), losses(params) -> [batch].",
    "plateau": "the loss's value: call update(grads, state, params, value=value).",
    "panel": "the parameters and the loss of each example: "
    "call update(grads, state, params, losses_fn=losses), losses(params) -> [batch].",
}


@pytest.mark.parametrize("name", MISSING)
def test_one_error_names_all_missing_arguments(name):
    tx = ALL[name]()
    with pytest.raises(ValueError, match=re.escape(f"{name} needs {MISSING[name]}")):
        tx.update(GRADS, tx.init(PARAMS))


@pytest.mark.parametrize("given", [{}, {"value": jnp.float32(1.0)}, {"value_fn": mean(LOSSES)}, {"losses_fn": None}])
def test_a_panel_asks_for_losses_fn_whatever_else_was_given(given):
    tx = ALL["panel"]()
    with pytest.raises(ValueError, match=r"^panel needs the loss of each example: call update.*losses_fn=losses"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, **given)


WRONG = {
    "a function as value": ("plateau", {"value": mean(LOSSES)}, "value must be a number, got a function .*value_fn"),
    "a pair as value": ("plateau", {"value": (1.0, {"aux": 2})}, r"got a tuple of 2: .*value=value\[0\]\."),
    "a string as value": ("plateau", {"value": "0.5"}, "value must be a number, got '0.5'.*pass one number"),
    "losses as value": ("plateau", {"value": jnp.ones(8)}, r"scalar, got shape \(8,\): .*value=jnp.mean\(value\)\."),
    "a number as value_fn": (
        "curvature_ratio",
        {"value_fn": jnp.float32(1.0)},
        r"must be a function of the parameters, got .*value_fn=lambda params: loss\(params, batch\)\.",
    ),
    "an array as losses_fn": (
        "gradient_tests",
        {"losses_fn": jnp.ones(8)},
        r"got Array of shape \(8,\).*losses_fn=lambda params: losses\(params, batch\)\.",
    ),
    "value_fn with aux": (
        "gain_ratio",
        {"value_fn": lambda p: (jnp.float32(1.0), {"accuracy": object()})},
        r"value_fn must return a scalar, got tuple of 2: .*value_fn=lambda params: loss\(params\)\[0\]\.",
    ),
    "losses_fn with aux": (
        "gradient_noise_scale",
        {"losses_fn": lambda p: (jnp.ones(8), None)},
        r"losses_fn must return an array \[batch\], got tuple of 2: .*losses\(params\)\[0\]\.",
    ),
    "value_fn without return": ("sharpness", {"value_fn": lambda p: None}, "got NoneType: .*`return loss`"),
    "value_fn with an integer": (
        "curvature_ratio",
        {"value_fn": lambda p: jnp.int32(1)},
        "floating.*got dtype int32",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_extra_argument_is_refused_with_the_correct_call(kind):
    name, extra, message = WRONG[kind]
    tx = ALL[name]()
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        tx.update(GRADS, tx.init(PARAMS), PARAMS, **extra)
    assert str(caught.value).startswith(f"{name}: ")
    assert caught.value.__cause__ is None


PER_LEAF = {"gradient_norm": gradtx.gradient_norm, "update_ratio": gradtx.update_ratio}


@pytest.mark.parametrize("name", PER_LEAF)
def test_the_program_of_readings_per_leaf_grows_linearly_with_the_number_of_leaves(name):
    """The program has one conditional for all leaves. With one per leaf, XLA took 194 s for a thousand leaves."""
    tx = PER_LEAF[name](per_leaf=True)

    def program(leaves):
        params = {f"leaf{i}": jnp.ones(2 + i % 3) for i in range(leaves)}
        step = jax.jit(lambda g, s, p: tx.update(g, s, p)[1])
        return step.lower(params, tx.init(params), params).as_text().splitlines()

    few, many = program(20), program(40)
    choices = [sum("stablehlo.case" in line for line in lines) for lines in (few, many)]
    assert choices[0] == choices[1] > 0
    assert len(few) < len(many) < 2 * len(few)


@pytest.mark.parametrize("name", PER_LEAF)
def test_readings_per_leaf_are_right_if_squares_of_other_leaves_overflow_or_underflow(name):
    sizes = {"a": 1e30, "b": 1.0, "c": 1e-30, "d": 0.0, "e": 3.0}
    grads = {key: jnp.full(4, size) for key, size in sizes.items()}
    params = {key: jnp.full(4, 2.0) for key in sizes}
    tx = PER_LEAF[name](per_leaf=True)
    _, state = tx.update(grads, tx.init(params), params)
    of_the_parameters = 1 if name == "gradient_norm" else 4
    expected = [2 * size / of_the_parameters for size in sizes.values()]
    np.testing.assert_allclose(gradtx.readings(state)[f"{name}/leaves"], expected, rtol=1e-5)
    bad = grads | {"e": jnp.array([1.0, jnp.nan, 0.0, 0.0])}
    _, state = tx.update(bad, tx.init(params), params)
    np.testing.assert_allclose(gradtx.readings(state)[f"{name}/leaves"], [*expected[:4], np.nan], rtol=1e-5)


@pytest.mark.parametrize("name", PER_LEAF)
def test_readings_per_leaf_are_those_of_the_whole_leaf_inside_shard_map(name):
    """One leaf is sharded and one is replicated. Each is counted once."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    grads, params = {"s": jnp.arange(1.0, 9.0), "r": jnp.array([3.0, 4.0])}, {"s": jnp.ones(8), "r": jnp.ones(2)}
    alone = PER_LEAF[name](per_leaf=True)
    expected = gradtx.readings(alone.update(grads, alone.init(params), params)[1])
    tx, specs = PER_LEAF[name](per_leaf=True, axis_name="x"), {"s": jax.P("x"), "r": jax.P()}

    def local(g, p):
        return gradtx.readings(tx.update(g, tx.init(p), p)[1])

    with jax.set_mesh(mesh):
        put = {key: jax.sharding.NamedSharding(mesh, spec) for key, spec in specs.items()}
        run = jax.jit(jax.shard_map(local, in_specs=(specs, specs), out_specs=jax.P()))
        found = run(*jax.device_put((grads, params), (put, put)))
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, err_msg=key)


@pytest.fixture
def debugging():
    """Makes NaN and inf stop the program, like `JAX_DEBUG_NANS=1 JAX_DEBUG_INFS=1`."""
    jax.clear_caches()  # programs that were traced without the flags keep their NaN
    with jax.debug_nans(True), jax.debug_infs(True):
        yield
    jax.clear_caches()


@pytest.mark.parametrize("name", ["panel", "plateau", "sharpness", "gain_ratio", "trajectory", "update_ratio"])
@pytest.mark.usefixtures("debugging")
@pytest.mark.sampled(2)
def test_a_healthy_run_does_not_trigger_debug_nans_or_debug_infs(name):
    """This includes the first step, at which most readings are not known yet, zeros, and a batch of one example."""
    tx = ALL[name]()
    params = jax.tree.map(jnp.zeros_like, PARAMS) if name == "update_ratio" else PARAMS
    one = {"losses_fn": lambda p: LOSSES(p)[:1]}
    readings, state = gradtx.readings(tx.init(params)), tx.init(params)
    step = jax.jit(lambda g, s, p: tx.update(g, s, p, **EXTRA | one)[1])
    for _ in range(2):
        state = step(GRADS, state, params)
        readings = gradtx.readings(state)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in readings.values())
    with pytest.raises(FloatingPointError):
        step(jax.tree.map(lambda g: g / jnp.zeros(()), GRADS), state, params)


@pytest.mark.usefixtures("debugging")
def test_8_bit_states_and_early_stopping_do_not_trigger_debug_nans_or_debug_infs():
    tx, g = gradtx.stored_as(gradtx.adam(0.1), "8bit", min_leaf_size=256), jnp.ones(300).at[:100].set(0.0)
    state = tx.init(g)
    for _ in range(2):
        _, state = jax.jit(tx.update)(g, state, g)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state.restored()))
    for mode in ("min", "max"):
        stopping = gradtx.early_stopping(2, mode=mode)
        assert float(stopping.update(3.0, stopping.init()).best) == 3.0
