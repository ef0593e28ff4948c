"""The diagnosis finds every planted challenge, raises no alarm on healthy runs, and says what it cannot know."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from gradtx.instruments.diagnosis.challenges import CHALLENGES
HEALTHY=1

SETS=[]


@pytest.mark.parametrize("planted", SETS, ids=str)
def test_what_was_planted_is_found_and_healthy_runs_are_left_alone(planted, record_property):
    diagnosed = [(label, name, gradtx.diagnose(run)) for label, name, run in planted.runs()]
    for label, _, diagnosis in diagnosed:
        record_property("diagnosed", [label, sorted(diagnosis.challenges)])  # tests/conftest.py adds them up
    for label, name, diagnosis in diagnosed:
        if label == HEALTHY:
            assert not diagnosis.challenges, f"{name}:\n{diagnosis}"
        else:
            assert label in diagnosis.challenges, f"{name}: {label} is not among\n{diagnosis}"


def test_the_labelled_runs_cover_the_challenges():
    labels = {label for planted in SETS for label in planted.labels.values()}
    assert set(CHALLENGES) - labels == {"nonfinite"}  # planted below, by hand


def noisy_fall(steps=200, seed=0):
    k = np.arange(steps)
    return 2.0 * np.exp(-k / 40) + 0.02 + 0.01 * np.random.default_rng(seed).normal(size=steps)


def test_a_loss_alone_is_enough_to_see_a_divergence_and_names_what_else_would_tell():
    diagnosis = gradtx.diagnose({"loss": 1.3 ** np.arange(60.0)})
    assert diagnosis.challenges == {"learning_rate_too_high"}
    diagnosis = gradtx.diagnose({"loss": noisy_fall()})
    assert not diagnosis.findings
    assert "gradtx.gradient_norm()" in diagnosis.unjudged["saddle"]
    assert "gradtx.curvature_ratio" in diagnosis.unjudged["ill_conditioning"]


@pytest.mark.parametrize("seed", range(3))
def test_nan_is_found_wherever_it_is(seed):
    at = int(np.random.default_rng(seed).integers(10, 150))
    loss = noisy_fall(seed=seed)
    counts = np.where(np.arange(200) >= at, 3, 0)
    assert gradtx.diagnose({"loss": loss, "gradient_norm/nonfinite": counts}).challenges == {"nonfinite"}
    loss[at:] = np.nan
    (found,) = gradtx.diagnose({"loss": loss}).findings
    assert (found.challenge, found.steps[0]) == ("nonfinite", at)
    assert gradtx.diagnose({"loss": np.full(5, np.inf)}).challenges == {"nonfinite"}


def test_what_led_to_a_nan_is_named_before_it():
    loss = 2.0 * 1.5 ** np.arange(60.0)
    loss[50:] = np.nan
    run = {"loss": loss, "curvature_ratio/ratio": np.full(60, 1.2), "gradient_norm/global": 1.2 ** np.arange(60.0)}
    assert [f.challenge for f in gradtx.diagnose(run).findings] == ["learning_rate_too_high", "nonfinite"]


def test_a_norm_that_never_falls_rules_critical_points_out():
    diagnosis = gradtx.diagnose({"loss": noisy_fall(), "gradient_norm/global": 1 + 0.1 * np.sin(np.arange(200))})
    assert "no critical point" in diagnosis.ruled_out["minima, saddles and plateaus"]


@pytest.mark.parametrize(("lowest", "is_ruled_out"), [(0.2, True), (0.05, False)])
def test_a_norm_above_a_tenth_of_its_largest_meets_no_critical_point(lowest, is_ruled_out):
    norm = np.where(np.arange(200) // 50 == 2, lowest, 1.0)
    run = {"loss": noisy_fall(), "gradient_norm/global": norm, "curvature_ratio/gHg": norm**2}
    assert ("minima, saddles and plateaus" in gradtx.diagnose(run).ruled_out) == is_ruled_out


@pytest.mark.parametrize(
    ("curvature", "challenges"), [(-0.1, {"saddle"}), (-0.01, {"plateau"}), (0.001, {"plateau"}), (0.1, set())]
)
@pytest.mark.parametrize("lowest_at", [100, 200])  # where the curvature turns, and amid its stretch
def test_at_a_shelf_the_curvature_tells(curvature, challenges, lowest_at):
    k = np.arange(400)
    is_shelf = (k >= 100) & (k < 300)
    loss = np.where(k < 100, 10 - k / 20, np.where(is_shelf, 5.0, 5.0 - (k - 300) / 25))
    norm = np.where(is_shelf, 0.05 + 0.02 * np.abs(k - lowest_at) / 100, 1.0)
    run = {"loss": loss, "gradient_norm/global": norm}
    run["curvature_ratio/gHg"] = np.where(is_shelf, curvature, 1.0) * norm**2
    assert gradtx.diagnose(run).challenges == challenges


@pytest.mark.parametrize(("ratio", "challenges"), [(0.1, set()), (0.8, {"oscillation"})])
def test_to_turn_back_is_oscillation_only_where_steps_are_long(ratio, challenges):
    run = {"loss": noisy_fall(), "gradient_alignment/cosine": np.full(200, -0.6)}
    assert gradtx.diagnose(run | {"curvature_ratio/ratio": np.full(200, ratio)}).challenges == challenges


@pytest.mark.parametrize(("is_falling", "challenges"), [(True, set()), (False, {"gradient_noise"})])
def test_noise_is_harmless_while_the_loss_falls(is_falling, challenges):
    k = np.arange(200)
    noisy = 0.1 * np.random.default_rng(0).normal(size=200)
    loss = 10 - 0.04 * k + noisy if is_falling else 2 + 8 * np.exp(-k / 5) + noisy
    run = {"loss": loss, "learning_rate": 0.5, "gradient_tests/norm": np.full(200, 0.9)}
    assert gradtx.diagnose(run | {"gradient_tests/standard_error": np.full(200, 4.0)}).challenges == challenges


@pytest.mark.parametrize(
    ("rho", "challenge"), [(0.8, "vanishing_gradients"), (1.25, "exploding_gradients"), (1.0, None)]
)
def test_gradients_through_time_are_judged_where_they_were_measured(rho, challenge):
    norms = np.tile(rho ** np.arange(49.0, -1, -1), (100, 1))
    run = {"loss": noisy_fall(100), "gradient_norm/global": np.ones(100), "temporal_gradients/norms": norms}
    assert gradtx.diagnose(run).challenges == ({challenge} if challenge else set())


@pytest.mark.parametrize(("growth", "rise", "explodes"), [(1000, 5, True), (30, 5, False), (1000, 1, False)])
def test_gradients_explode_that_grow_a_hundred_times_and_take_the_loss_with_them(growth, rise, explodes):
    way = np.linspace(0, 1, 200)
    run = {"loss": rise**way, "gradient_norm/global": growth**way, "curvature_ratio/ratio": np.full(200, 0.3)}
    assert ("exploding_gradients" in gradtx.diagnose(run).challenges) == explodes


@pytest.mark.parametrize(
    ("slope", "challenge"), [(0.2, "vanishing_gradients"), (-0.2, "exploding_gradients"), (0.05, None)]
)
def test_the_slope_alone_tells_over_fifty_steps(slope, challenge):
    run = {
        "loss": noisy_fall(100),
        "gradient_norm/global": np.ones(100),
        "temporal_gradients/slope": np.full(100, slope),
    }
    assert gradtx.diagnose(run).challenges == ({challenge} if challenge else set())


def test_a_loss_that_hovers_while_half_of_the_steps_overshoot_has_too_high_a_rate():
    loss = 1 + 0.1 * np.random.default_rng(0).normal(size=200)
    for ratio, challenges in ((0.9, set()), (1.5, {"learning_rate_too_high"})):
        run = {"loss": loss, "curvature_ratio/ratio": np.full(200, ratio)}
        assert gradtx.diagnose(run).challenges == challenges


def test_a_rise_at_the_start_from_which_the_run_came_back_is_no_too_high_rate():
    k = np.arange(200)
    loss = np.where(k < 3, 1.0 + 3 * k, 7.0 * np.exp(-k / 30))
    run = {"loss": loss, "curvature_ratio/ratio": np.where(k < 3, 2.0, 0.3)}
    assert not gradtx.diagnose(run).challenges


def test_where_noise_is_most_of_the_gradient_its_direction_says_nothing_of_the_conditioning():
    k, norm = np.arange(200), np.full(200, 0.3)
    run = {"loss": 2 - 0.002 * k, "gradient_norm/global": norm, "learning_rate": 0.01}
    run["curvature_ratio/gHg"] = np.where(k < 20, 100.0, 1.0) * norm**2
    assert gradtx.diagnose(run).challenges == {"ill_conditioning"}
    assert not gradtx.diagnose(run | {"gradient_tests/norm": np.full(200, 0.9)}).challenges
    assert not gradtx.diagnose(run | {"loss": 2 + 0.002 * k}).challenges  # nor where nothing is gained any more


def test_a_random_walk_wanders():
    path = np.random.default_rng(0).normal(size=(401, 2)).cumsum(axis=0)
    straight = np.linalg.norm(path[1:] - path[0], axis=1) / np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()
    run = {"loss": np.full(400, 1.0), "trajectory/straightness": straight, "trajectory/distance": np.ones(400)}
    assert "wandering" in gradtx.diagnose(run).challenges
    assert not gradtx.diagnose(run | {"trajectory/straightness": np.full(400, 0.9)}).challenges


def readings_of_everything():
    looking = gradtx.panel(0.1), gradtx.sharpness(0.1), gradtx.stationarity(0.1), gradtx.plateau(), gradtx.trajectory()
    return sorted(gradtx.readings(optax.chain(*looking).init(jnp.zeros(2))))


def odd(curve, rng):
    """The curve, or what may become of one in a run that is not as it should be."""
    one = np.arange(len(curve)) == rng.integers(len(curve))
    return [
        curve, curve * 1e-30, curve * 1e30, -curve, 0 * curve, np.full(len(curve), curve[0]),
        np.full(len(curve), np.nan), np.where(np.arange(len(curve)) % 16, np.nan, curve),
        np.where(one, rng.choice([np.nan, np.inf, -np.inf, 0, 1e300, 1e-300]), curve),
    ][rng.integers(9)]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_run_of_any_length_with_any_curves_is_judged(seed):
    rng, names = np.random.default_rng(seed), readings_of_everything()
    for _ in range(200):
        steps = int(rng.choice([1, 2, 3, 5, 19, 20, 21, 39, 40, 41, 150]))
        start, fall = rng.choice([0.0, 1.0, -1.0]), rng.choice([-1.0, 0.0, 1.0])
        run = {"loss": start + fall * np.arange(steps) / steps + rng.choice([0, 0.1]) * rng.normal(size=steps)}
        for name in names:
            if rng.random() < 0.7:
                run[name] = odd(np.exp(rng.normal(size=steps)) * rng.choice([1e-3, 1, 1e3]), rng)
        extra = {"batch_size": 32, "learning_rate": 0.1, "iterates": rng.normal(size=(steps + 1, 2)).cumsum(axis=0)}
        diagnosis = gradtx.diagnose(run | {name: x for name, x in extra.items() if rng.random() < 0.5})
        assert json.loads(diagnosis.to_json())["challenges"] == sorted(diagnosis.challenges)
        assert str(diagnosis)
        assert diagnosis._repr_html_()


def test_a_history_and_its_dict_are_judged_alike():
    tx = optax.chain(gradtx.panel(0.23), gradtx.sgd(0.23))
    history = lab.run(landscapes.quadratic(10.0), tx, steps=60, key=jax.random.key(0))
    diagnosis = gradtx.diagnose(history)
    assert "learning_rate_too_high" in diagnosis.challenges
    as_dict = {"loss": history.loss, **history.readings, "iterates": history.iterates, "batch_size": 1}
    assert gradtx.diagnose(as_dict).challenges == diagnosis.challenges


def test_prints_exports_and_renders():
    diagnosis = gradtx.diagnose({"loss": 1.3 ** np.arange(60.0)})
    (found,) = diagnosis.findings
    text = str(diagnosis)
    for piece in (found.title, "[learning_rate_too_high]", "chapter §4.1", found.remedy.splitlines()[0], "Not judged"):
        assert piece in text
    assert json.loads(diagnosis.to_json())["challenges"] == ["learning_rate_too_high"]
    page = diagnosis._repr_html_()
    assert "<b>the learning rate is too high</b>" in page
    assert "&lt;" not in found.title
    assert "nothing amiss" in str(gradtx.diagnose({"loss": noisy_fall()}))


def test_a_number_that_is_none_is_null_in_json():
    rng, n = np.random.default_rng(0), 400
    hovers = np.concatenate([np.linspace(5.0, 1.0, 50), np.ones(n - 50)]) + 0.1 * rng.normal(size=n)
    norm, cosine = 1 + 0.1 * rng.normal(size=n), 0.1 * rng.normal(size=n)
    readings = {"gradient_norm/global": norm, "gradient_alignment/cosine": cosine}
    diagnosis = gradtx.diagnose({"loss": hovers, "learning_rate": 2.0, **readings})
    (found,) = diagnosis.findings
    assert np.isnan(found.numbers["noise_to_signal"])  # no instrument here measures it
    strict = json.loads(diagnosis.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert strict["findings"][0]["numbers"]["noise_to_signal"] is None
    assert strict["findings"][0]["numbers"]["level"] == found.numbers["level"]


def test_the_remedy_of_ill_conditioning_is_stable_at_every_rate_that_plain_descent_stands():
    sick = landscapes.quadratic(1000.0)
    rate = 1.95 / 1000  # Nesterov's momentum stands 1.36 / 1000, the heavy ball 3.8 / 1000
    tx = eval(CHALLENGES["ill_conditioning"].remedy.removeprefix("tx = "), {"gradtx": gradtx, "learning_rate": rate})
    history = lab.run(sick, tx, steps=300, key=jax.random.key(0))
    assert history.loss[-1] < 1e-3 * history.loss[0]


def test_every_remedy_is_code_that_compiles_and_every_challenge_has_its_section():
    for word, challenge in CHALLENGES.items():
        compile(challenge.remedy.format(usual_norm=1.0, times=4), word, "exec")
        assert challenge.section.startswith("§")


@pytest.mark.parametrize(
    ("history", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "diagnose: history must be a lab.History or a dict"),
        ({}, ValueError, "diagnose: history must hold loss"),
        ({"loss": np.zeros((2, 2))}, ValueError, "must hold loss, an array .steps., got .2, 2."),
        (
            {"loss": np.ones(3), "gradient_norm/global": np.ones(4)},
            ValueError,
            "gradient_norm/global must have one value",
        ),
        ({"loss": "abc"}, TypeError, "loss must be an array of numbers, got str"),
    ],
)
def test_bad_input_is_named(history, error, message):
    with pytest.raises(error, match=message):
        gradtx.diagnose(history)
