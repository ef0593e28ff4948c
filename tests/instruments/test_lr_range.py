"""The range test finds the rate above which descent diverges. On a quadratic it is 2/λ_max for every start."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

X = np.random.default_rng(0).normal(size=(100, 16, 4)).astype(np.float32)


def quadratic(spectrum, seed=None, centre=0.0):
    """Returns a quadratic with these curvatures. Its axes are turned at random unless `seed` is None."""
    rotation = np.eye(len(spectrum))
    if seed is not None:
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=rotation.shape))[0]
    matrix = jnp.asarray(rotation * np.array(spectrum) @ rotation.T, jnp.float32)
    return lambda x: (x - centre) @ matrix @ (x - centre) / 2


def ill(x):
    return jnp.sum(jnp.array([1.0, 20.0]) * x**2) / 2


CONDITIONINGS = {
    "1": ([2.0] * 3, None, 1.7),
    "20": ([1.0, 20.0], None, 1.7),
    "1e4": ([0.01, 1.0, 100.0], 1, 0.0),
    "1e5, 20 curvatures": (np.geomspace(1e-3, 1e2, 20), 0, 1.7),
    "a flat direction": ([0.0, 0.5, 3.0], 0, 1.7),
    "one dimension": ([20.0], None, 0.0),
    "a saddle, steeper downwards": ([-5.0, 1.0, 3.0], None, 0.0),
    "a saddle with opposite curvatures": ([-3.0, 3.0, 1.0], 2, 1.7),
}


@pytest.mark.parametrize("name", CONDITIONINGS)
@pytest.mark.sampled(3)
def test_the_divergence_is_at_two_over_the_largest_curvature(name):
    spectrum, seed, centre = CONDITIONINGS[name]
    found = gradtx.lr_range_test(quadratic(spectrum, seed, centre), jnp.ones(len(spectrum)))
    np.testing.assert_allclose(found.divergence, 2 / max(spectrum), rtol=1e-3)


STARTS = {
    "at the minimum": [0.0, 0.0],
    "in the flattest direction": [1.0, 0.0],
    "in the steepest direction": [0.0, 1.0],
}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.sampled(1)
def test_the_divergence_does_not_depend_on_the_start(name):
    np.testing.assert_allclose(gradtx.lr_range_test(ill, jnp.array(STARTS[name])).divergence, 0.1, rtol=1e-3)


@pytest.mark.parametrize("steps", [40, 1000])
def test_the_divergence_does_not_depend_on_the_number_of_steps(steps):
    found = gradtx.lr_range_test(ill, jnp.ones(2), steps=steps)  # with 1000, gradients are 0 before 0.1
    np.testing.assert_allclose(found.divergence, 0.1, rtol=1e-3)


def test_gradient_descent_diverges_above_the_rate_found_and_not_below():
    loss = quadratic([0.1, 3.0, 8.0], 1)
    divergence = gradtx.lr_range_test(loss, jnp.ones(3)).divergence
    x = jnp.ones((2, 3))  # one run per row
    factors = jnp.array([[0.97], [1.03]])
    descend = jax.jit(jax.vmap(lambda x, rate: x - rate * jax.grad(loss)(x)))
    for _ in range(200):
        x = descend(x, factors * divergence)
    below, above = loss(x[0]), loss(x[1])
    assert below < loss(jnp.ones(3)) / 100
    assert above > 100 * loss(jnp.ones(3))


def test_the_divergence_at_close_curvatures_is_right_within_one_ratio_of_rates():
    found = gradtx.lr_range_test(quadratic([1.0, 19.0, 20.0], 1), jnp.ones(3), steps=30)
    assert 0.1 * (1 - 1e-5) <= found.divergence <= 0.1 * (1e7 ** (1 / 29))


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_the_divergence_scales_with_the_unit_of_the_loss(unit):
    found = gradtx.lr_range_test(lambda x: unit * ill(x), jnp.ones(2), lowest=1e-4 / unit, highest=10 / unit)
    np.testing.assert_allclose(found.divergence * unit, 0.1, rtol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("diverge", [1.5, 2.0, 5.0])
@pytest.mark.sampled(2)
def test_the_run_ends_when_the_loss_has_risen_by_the_factor_diverge(diverge, offset):
    found = gradtx.lr_range_test(lambda x: x**2 / 2 + offset, 1.0, lowest=1.5, highest=4, steps=300, diverge=diverge)
    x, best, kept = 1.0, 0.5 + offset, 0
    for rate in found.learning_rates:
        x -= rate * x
        best = min(best, x**2 / 2 + offset)
        if x**2 / 2 + offset > best + (diverge - 1) * max(best, 0.5 + offset - best):
            break
        kept += 1
    assert kept < 300
    assert np.isfinite(found.losses).sum() == kept


def test_the_divergence_is_infinite_if_all_rates_are_below_it():
    found = gradtx.lr_range_test(ill, jnp.ones(2), highest=0.09)
    assert found.divergence == np.inf
    assert np.isfinite(found.losses).all()
    assert found.minimum > 0.05


def test_losses_and_rates_match_those_of_a_plain_loop():
    sweep = {"steps": 30, "lowest": 1e-3, "highest": 1.0, "skip_first": 2}
    found, sharp = (gradtx.lr_range_test(ill, jnp.ones(2), smooth=s, **sweep) for s in (0.05, 0.0))
    rates, x, losses = np.geomspace(1e-3, 1.0, 30), np.ones(2), []
    for rate in rates:
        x = x - rate * np.array([1.0, 20.0]) * x
        losses.append(np.sum([1.0, 20.0] * x**2) / 2)
    np.testing.assert_allclose(found.learning_rates, rates, rtol=1e-6)
    kept = np.isfinite(found.losses)
    np.testing.assert_allclose(found.losses[kept], np.array(losses)[kept], rtol=1e-3, atol=1e-10)
    best = np.minimum.accumulate([10.5, *losses])[:-1]
    over = np.array(losses) > best + 4 * np.maximum(best, 10.5 - best)
    ended = int(np.argmax(over)) if over.any() else 30
    assert kept.tolist() == [i < ended for i in range(30)]
    falls = -np.diff([10.5, *losses])
    assert sharp.steepest == rates[2 + np.argmax(falls[2:ended])]
    assert sharp.minimum == rates[np.argmin(losses[:ended])]
    centred = np.convolve(falls, np.ones(3) / 3, mode="same")  # a centred mean does not shift the rates
    assert found.steepest == rates[2 + np.argmax(centred[2 : ended - 5])]


METHODS = {
    "optax's sgd": (optax.sgd, 0.1, 0.1),
    # Heavy ball is stable up to 2 (1 + momentum) / λ_max. The sweep rises late, so it finds at least 2 / λ_max.
    "momentum": (lambda rate: gradtx.sgd(rate, momentum=0.9), 0.1, 0.4),
    "clipped": (lambda rate: optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(rate)), 0.1, 2.0),
    "Adam": (gradtx.adam, 0.1, np.inf),
    "Newton, which needs value_fn": (lambda rate: optax.chain(gradtx.newton(), optax.scale(rate)), 1.9, np.inf),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.sampled(2)
def test_other_methods_can_be_swept(name):
    make_tx, low, high = METHODS[name]
    found = gradtx.lr_range_test(ill, jnp.array([3.0, 2.0]), make_tx)
    assert low * (1 - 1e-3) <= found.divergence <= high * (1 + 1e-3)
    assert 0 < found.steepest <= found.minimum < np.inf


WAITING = {
    "accumulate 4": lambda rate: gradtx.accumulate(gradtx.sgd(rate), 4),
    "accumulate 8 behind a clip": lambda rate: gradtx.accumulate(
        optax.chain(gradtx.clip_by_global_norm(1e9), optax.sgd(rate)), 8
    ),
    "MultiSteps": lambda rate: optax.MultiSteps(optax.sgd(rate), 4).gradient_transformation(),
}


@pytest.mark.parametrize("name", WAITING)
def test_the_divergence_is_found_although_accumulation_waits_at_most_steps(name):
    found = gradtx.lr_range_test(ill, jnp.array([3.0, 2.0]), WAITING[name], steps=160)
    np.testing.assert_allclose(found.divergence, 0.1, rtol=1e-3)
    assert 1e-3 < found.steepest <= found.minimum < 0.4


def test_the_divergence_of_accumulated_minibatches_is_that_of_their_mean_gradient():
    matrices = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, size=(160, 1, 1)) * np.diag([1.0, 20.0]))

    def loss(x, matrix):
        return x @ matrix @ x / 2

    found = gradtx.lr_range_test(
        loss, jnp.ones(2), lambda rate: gradtx.accumulate(gradtx.sgd(rate), 4), steps=160,
        batches=jnp.asarray(matrices, jnp.float32),
    )  # fmt: skip
    assert 2 / 30 <= found.divergence <= 2 / 10


def frozen_leaf(rate):
    return optax.partition(
        {"trained": gradtx.sgd(rate), "frozen": optax.set_to_zero()}, {"a": "trained", "b": "frozen"}
    )


def frozen_entries(rate):
    mask = {"a": jnp.ones(2), "b": jnp.array([0.0, 0.0])}
    return optax.chain(gradtx.sgd(rate), optax.stateless(lambda u, _: jax.tree.map(jnp.multiply, u, mask)))


def frozen_and_accumulated(rate):
    return gradtx.accumulate(frozen_leaf(rate), 4)


@pytest.mark.parametrize("make_tx", [frozen_leaf, frozen_entries, frozen_and_accumulated])
@pytest.mark.parametrize("curvature", [0.1, 1000.0])
@pytest.mark.sampled(2)
def test_the_divergence_does_not_depend_on_frozen_parameters(make_tx, curvature):
    """The largest curvature of the trained leaf is about 20. That of the frozen leaf has no effect."""

    def loss(p):
        coupled = jnp.concatenate([p["a"], p["b"]])
        matrix = jnp.diag(jnp.array([1.0, 20.0, curvature, curvature])) + 0.3
        return coupled @ matrix @ coupled / 2

    found = gradtx.lr_range_test(loss, {"a": jnp.ones(2), "b": jnp.ones(2)}, make_tx, steps=160)
    sharpest = np.linalg.eigvalsh(np.diag([1.0, 20.0]) + 0.3)[-1]
    np.testing.assert_allclose(found.divergence, 2 / sharpest, rtol=2e-3)


@pytest.mark.parametrize("steps", [2, 3, 5, 9, 15, 29])
@pytest.mark.sampled(2)
def test_a_run_of_few_steps_has_a_steepest_rate(steps):
    found = gradtx.lr_range_test(ill, jnp.ones(2), lowest=1e-3, highest=0.1, steps=steps)
    assert 1e-3 <= found.steepest <= 0.1
    assert found.remark == ""


REMARKS = {
    "a constant loss": (
        {"value_fn": lambda x: 3.0 + 0 * jnp.sum(x)},
        "the gradient is 0 at every step; start elsewhere",
    ),
    "rates that are far too low": (
        {"value_fn": lambda x: 1.0 + jnp.sum(x**2), "lowest": 1e-14, "highest": 1e-12},
        "no step changed the loss by more than its rounding error; raise highest",
    ),
    "rates that are all too high": (
        {"lowest": 10.0, "highest": 100.0},
        "the first step ended the run; start with a lower",
    ),
    "a short run": (
        {"lowest": 0.11},
        r"the run ended after \d+ steps, of which skip_first=10 and skip_last=5 leave none",
    ),
    "no step": (
        {"make_tx": lambda rate: gradtx.accumulate(gradtx.sgd(rate), 1000)},
        "no step moved the parameters; take more steps than the transformation waits for",
    ),
}


@pytest.mark.parametrize("kind", REMARKS)
def test_a_remark_says_why_no_steepest_rate_was_found_and_what_to_do(kind):
    change, remark = REMARKS[kind]
    arguments = {"value_fn": ill, "params": jnp.ones(2)} | change
    found = gradtx.lr_range_test(arguments.pop("value_fn"), arguments.pop("params"), **arguments)
    assert np.isnan(found.steepest)
    assert re.search(remark, found.remark)
    assert str(found).startswith("no steepest rate")
    assert found.remark in str(found)


def test_each_step_uses_one_minibatch_and_its_loss():
    truth = jnp.array([1.0, -2.0, 3.0, 0.5])
    batches = {"x": jnp.asarray(X), "y": jnp.asarray(X) @ truth}

    def loss(w, batch):
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    found = gradtx.lr_range_test(loss, jnp.zeros(4), batches=batches)
    np.testing.assert_allclose(
        found.losses[0], loss(-1e-6 * jax.grad(loss)(jnp.zeros(4), jax.tree.map(lambda a: a[0], batches)),
                              jax.tree.map(lambda a: a[0], batches)), rtol=1e-5)  # fmt: skip
    sharpest = [2 / np.linalg.eigvalsh(2 * x.T @ x / 16)[-1] for x in X]
    assert min(sharpest) <= found.divergence <= 2 * max(sharpest)


def test_a_net_trains_below_the_divergence_and_not_far_above():
    x = jax.random.normal(jax.random.key(0), (64, 8))
    y = jnp.sin(x @ jax.random.normal(jax.random.key(1), (8,)))
    params = {
        "w": jax.random.normal(jax.random.key(2), (8, 32)) / 3,
        "v": jax.random.normal(jax.random.key(3), (32,)) / 6,
    }

    def loss(p):
        return jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - y) ** 2)

    @jax.jit
    def trained(rate):
        def step(_, p):
            return jax.tree.map(lambda a, g: a - rate * g, p, jax.grad(loss)(p))

        return loss(jax.lax.fori_loop(0, 300, step, params))

    found = gradtx.lr_range_test(loss, params)
    assert trained(found.divergence / 2) < trained(found.divergence / 20) < loss(params)
    assert not trained(4 * found.divergence) < loss(params)


@pytest.mark.parametrize(
    ("loss", "divergence"),
    [
        (jnp.sum, np.inf),  # no curvature
        (lambda x: -jnp.sum(jnp.log(x)), np.inf),  # the loss flattens faster than the rates grow
        (lambda x: jnp.sum(jnp.sqrt(1 + x**2)), 2.0),
    ],
)
@pytest.mark.sampled(1)
def test_the_divergence_is_right_for_losses_that_are_not_quadratic(loss, divergence):
    found = gradtx.lr_range_test(loss, jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(found.divergence, divergence, rtol=0.2)


def test_half_precision_and_losses_without_second_derivatives_are_supported():
    found = gradtx.lr_range_test(ill, jnp.ones(2, jnp.bfloat16))
    np.testing.assert_allclose(found.divergence, 0.1, rtol=0.02)

    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    def backward(x, cotangent):
        return (jax.pure_callback(lambda x, c: np.float32(2 * c * x), x, x, cotangent),)

    square.defvjp(lambda x: (square(x), x), backward)
    found = gradtx.lr_range_test(lambda x: 10 * square(x), jnp.array([3.0, 2.0]))
    assert 0.1 <= found.divergence < 0.3  # only the rise of the loss shows it


def test_losses_and_rates_are_nan_if_the_first_step_ends_the_run():
    found = gradtx.lr_range_test(ill, jnp.ones(2), lowest=10.0, highest=100.0)
    assert np.isnan([found.steepest, found.minimum]).all()
    assert np.isnan(found.losses).all()
    assert found.divergence <= 10.0
    falls_for_ever = gradtx.lr_range_test(
        lambda x: jnp.log(jnp.sum(x**2)), jnp.array([1.0]), lowest=0.5, highest=0.50001
    )
    assert np.isnan(falls_for_ever.losses[0])  # one step to the minimum of -inf


def test_the_result_prints_the_steepest_and_the_divergent_rate():
    text = str(gradtx.lr_range_test(ill, np.ones(2)))  # NumPy's float64 is taken as JAX takes it
    assert "diverges from 0.1" in text
    assert text.startswith("steepest at ")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lowest": 0.0}, ValueError, r"lr_range_test: lowest must be in \(0, inf\), got 0.0"),
        ({"lowest": "1e-3"}, TypeError, "lr_range_test: lowest must be a number, got '1e-3'"),
        ({"lowest": 1.0, "highest": 1.0}, ValueError, "lowest must be below highest, got 1.0 and 1.0"),
        ({"highest": float("nan")}, ValueError, r"highest must be in \(0, inf\), got nan"),
        ({"lowest": 0.0}, ValueError, r"lowest must be in \(0, inf\), got 0.0"),
        ({"highest": "1"}, TypeError, r"highest must be a number, got '1' \(str\)"),
        ({"make_tx": gradtx.sgd(0.1)}, TypeError, "make_tx must be a function of the learning rate, got"),
        ({"value_fn": None}, TypeError, "value_fn must be a function of the parameters, got None"),
        ({"steps": 1}, ValueError, "lr_range_test: steps must be at least 2, got 1"),
        ({"steps": 10.0}, TypeError, "steps must be an integer, got 10.0"),
        ({"skip_first": -1}, ValueError, "skip_first must be at least 0, got -1"),
        ({"skip_last": -1}, ValueError, "skip_last must be at least 0, got -1"),
        (
            {"steps": 12, "skip_first": 8, "skip_last": 4},
            ValueError,
            r"must be less than steps = 12, got 12: skip fewer",
        ),
        ({"smooth": 1.0}, ValueError, r"smooth must be in \[0, 1\), got 1.0"),
        ({"diverge": 1.0}, ValueError, r"diverge must be in \(1, inf\), got 1.0"),
        ({"batches": jnp.ones((3, 2))}, ValueError, "a leading axis of steps = 100, got 3"),
        ({"batches": {"x": jnp.ones((100, 2)), "y": 1.0}}, ValueError, "steps = 100, got 100, None"),
        ({"batches": ()}, ValueError, "steps = 100, got no array"),
        ({"params": jnp.arange(2)}, TypeError, "lr_range_test: params must be of a floating dtype, got int32"),
        ({"params": {}}, ValueError, "params must hold at least one number"),
        ({"value_fn": lambda x: x}, ValueError, r"must return a real floating scalar, got shape \(2,\)"),
        ({"value_fn": lambda x: jnp.nan * jnp.sum(x)}, ValueError, "the loss must be finite at the start, got nan"),
        ({"make_tx": lambda rate: rate}, TypeError, "make_tx must give a gradient transformation, got float"),
        ({"make_tx": gradtx.delta_bar_delta}, ValueError, r"must not be kept in the state .* at state\[0\].rates"),
        ({"make_tx": optax.inject_hyperparams(optax.sgd)}, ValueError, "at state.hyperparams.'learning_rate'."),
    ],
)
def test_bad_arguments_are_refused_by_name(change, error, message):
    arguments = {"value_fn": ill, "params": jnp.ones(2)} | change
    with pytest.raises(error, match=message):
        gradtx.lr_range_test(arguments.pop("value_fn"), arguments.pop("params"), **arguments)
