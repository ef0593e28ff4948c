"""The diagnosis finds what was planted, leaves healthy runs alone, and its remedies cure; in any unit, from any log."""

import hashlib
import json
import pickle
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from gradtx.instruments.diagnosis import report
from gradtx.instruments.diagnosis.causes import EXPLAINS
from gradtx.instruments.diagnosis.challenges import CHALLENGES
from gradtx.instruments.diagnosis.diagnose import RULES, judged
from tests import planted
from tests.planted import HEALTHY, Case, Method, cases, cured_curves_of, curves_of

ALL = cases()
SUBJECTS = list(dict.fromkeys(case.subject for case in ALL))
QUICK = ("bowl", "function", "diabetes")  # half of the runs, in three small programs
every_subject = pytest.mark.parametrize(
    "subject",
    [s if s.name in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SUBJECTS],
    ids=[s.name for s in SUBJECTS],
)
# Words that may stand beside the planted one: the same thing seen from another side.
BESIDE = {
    "learning_rate_too_high": {"nonfinite"},
    "exploding_gradients": {"nonfinite"},
    "cliff": {"nonfinite"},
    "saddle": {"nonfinite"},
    "gradient_noise": {"stationary"},
    "vanishing_gradients": {"plateau"},
    "plateau": {"vanishing_gradients"},
}


@pytest.fixture(scope="session")
def runs_of(pytestconfig):
    """Cases and curves of a subject; kept in pytest's cache until the code that makes them changes."""
    root = Path(gradtx.__file__).parent
    sources = [
        Path(planted.__file__),
        *sorted((root / "instruments").glob("*.py")),
        *sorted((root / "_core").glob("*.py")),
    ]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in sources) + jax.__version__.encode()).hexdigest()[:16]
    cache = getattr(pytestconfig, "cache", None)
    folder = None if cache is None else Path(cache.mkdir("labelled-runs"))
    kept = {}

    def found(subject):
        if subject not in kept:
            path = None if folder is None else folder / f"{key}-{subject.name.replace(' ', '-')}.pickle"
            mine = [case for case in ALL if case.subject == subject]
            if path is not None and path.exists():
                curves = pickle.loads(path.read_bytes())
            else:
                curves = curves_of(mine)
                if path is not None:
                    path.write_bytes(pickle.dumps(curves))
            kept[subject] = list(zip(mine, curves, strict=True))
        return kept[subject]

    return found


def log_of(case, curves):
    return {**curves, "batch_size": case.subject.batch}


def by_panel(case, curves):
    """The same run as `gradtx.panel(learning_rate)` reads it: the ratio of a step -εg, whatever the method is."""
    rates, norm = case.method.rates(case.subject.steps), curves["gradient_norm/global"]
    with np.errstate(all="ignore"):
        ratio = np.where(norm > 0, rates * (curves["curvature_ratio/gHg"] / norm / norm) / 2, np.nan)
    moved = np.concatenate([[np.nan], curves["update_ratio/global"][:-1]])
    log = {name: curve for name, curve in curves.items() if not name.startswith("trajectory")}
    return log | {"curvature_ratio/ratio": ratio, "update_ratio/global": moved, **case.known()}


def few(case, curves):
    """What most people log."""
    return {"loss": curves["loss"], "grad_norm": curves["gradient_norm/global"], "lr": case.known()["learning_rate"]}


POWERS = {  # of the loss's unit in each reading
    "loss": 1, "gradient_norm/global": 1, "curvature_ratio/gHg": 3, "curvature_ratio/critical_learning_rate": -1,
    "gradient_tests/standard_error": 1, "gradient_noise_scale/trace_covariance": 2,
    "gradient_noise_scale/gradient_norm_squared": 2, "gradient_alignment/pflug": 2,
}  # fmt: skip


def in_unit(unit, log):
    """The same run with the loss in another unit: for plain descent the rate would change with it.

    In float64: g'Hg has the third power of the unit, which single precision cannot hold for large or small gradients.
    """
    return {name: np.asarray(curve, float) * unit ** POWERS.get(name, 0) for name, curve in log.items()}


# The labelled runs.


def test_there_are_150_labelled_runs_of_which_half_are_not_plain_and_60_are_healthy():
    assert len(ALL) >= 150
    assert sum(case.method.kind != "sgd" or case.method.schedule != "constant" for case in ALL) >= len(ALL) / 2
    assert sum(case.label == HEALTHY for case in ALL) >= 60
    labels = {case.label for case in ALL} - {HEALTHY}
    assert set(CHALLENGES) - labels == {"stationary", "edge_of_stability"}  # planted below


@every_subject
def test_planted_challenges_are_found_and_healthy_runs_have_no_finding(subject, runs_of, record_property):
    wrong, runs = [], runs_of(subject)
    for case, curves in runs:
        found = gradtx.diagnose(log_of(case, curves)).challenges
        record_property("diagnosed", [case.label, sorted(found)])  # tests/conftest.py adds them up
        if (
            found
            if case.label == HEALTHY
            else not {case.label} <= found <= {case.label} | BESIDE.get(case.label, set())
        ):
            wrong.append(f"{case.label}: {case}: {sorted(found)}")
    assert len(wrong) <= 0.05 * len(runs), "\n".join(wrong)
    assert not [line for line in wrong if line.startswith(HEALTHY)], "\n".join(wrong)


@every_subject
@pytest.mark.parametrize("reading", [pytest.param(by_panel, marks=pytest.mark.slow), few])
def test_a_healthy_run_has_no_finding_in_logs_with_other_readings_either(subject, reading, runs_of):
    for case, curves in runs_of(subject):
        if case.label == HEALTHY:
            diagnosis = gradtx.diagnose(reading(case, curves))
            assert not diagnosis.challenges, f"{case}:\n{diagnosis}"


@every_subject
def test_findings_do_not_change_with_the_unit_or_the_zero_of_the_loss(subject, runs_of):
    for case, curves in runs_of(subject):
        log = log_of(case, curves)
        found = gradtx.diagnose(log).challenges
        others = [in_unit(1e-6, log), in_unit(1e6, log), log | {"loss": log["loss"] / np.log(2)}]
        others += [log | {"loss": np.float64(1e6) * log["loss"]}, log | {"loss": np.float64(1e-6) * log["loss"]}]
        shift = 10 * np.float64(np.nanmax(np.abs(np.where(np.abs(log["loss"]) < 1e3, log["loss"], 0.0))))
        others += [log | {"loss": log["loss"] + shift}, log | {"loss": log["loss"] - shift}]
        for i, other in enumerate(others):
            assert gradtx.diagnose(other).challenges == found, f"{case}, change {i}"


@every_subject
def test_of_the_findings_with_high_confidence_95_per_cent_are_right(subject, runs_of):
    said = []
    for case, curves in runs_of(subject):
        allowed = {case.label} | BESIDE.get(case.label, set())
        findings = gradtx.diagnose(log_of(case, curves)).findings
        said += [f.challenge in allowed for f in findings if f.confidence == "high"]
    assert not said or np.mean(said) >= 0.95


def test_the_order_of_the_rules_does_not_change_the_findings(runs_of):
    rules = list(RULES)
    for case, curves in runs_of(next(s for s in SUBJECTS if s.name == "function")):
        log = log_of(case, curves)
        random.Random(0).shuffle(rules)
        assert judged(log, tuple(rules)).to_dict() == gradtx.diagnose(log).to_dict(), case


def test_of_two_findings_of_one_challenge_the_surer_or_else_the_more_exact_one_is_kept():
    def rule(confidence, steps):
        return lambda evidence, taken, verdict: [report.finding("plateau", f"{steps}", {}, steps, confidence)]

    log = {"loss": np.linspace(1.0, 0.5, 100)}
    by_confidence = rule("medium", (10, 11)), rule("high", (0, 99))
    by_steps = rule("high", (0, 99)), rule("high", (20, 40))
    for rules, steps in ((by_confidence, (0, 99)), (by_steps, (20, 40))):
        for order in (rules, rules[::-1]):
            assert [f.steps for f in judged(log, order).findings] == [steps]


@pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov", "adam", "rmsprop"])
@pytest.mark.sampled(1)
def test_the_methods_of_the_labelled_runs_are_those_of_gradtx(kind):
    subject = planted.Subject("short bowl", planted.BOWL.losses, 0, 8, 20)
    what = planted.bowl(3, noise=0.5)
    case = Case(HEALTHY, subject, Method(kind, 0.05, "cosine"), what["start"], what["arguments"])
    (own,), real = curves_of([case]), case.retrained(case.method.tx(subject.steps))
    for name in ("loss", "gradient_norm/global", "update_ratio/global", "curvature_ratio/ratio"):
        np.testing.assert_allclose(own[name], real[name], rtol=2e-3, atol=1e-5, err_msg=name)


# Remedies.


def with_remedies(runs):
    """Case, curves and finding of each run whose planted challenge is found with a remedy."""
    return [
        (case, curves, finding)
        for case, curves in runs
        for finding in gradtx.diagnose(log_of(case, curves)).findings
        if finding.challenge == case.label and finding.remedy
    ]


def uncured(sick):
    """Yields the label of each run, and a text on what its printed remedy did not cure; the text is empty if cured."""
    later = cured_curves_of([case for case, *_ in sick], [finding.remedy for *_, finding in sick])
    for (case, curves, finding), after in zip(sick, later, strict=True):
        diagnosis = gradtx.diagnose(log_of(case, after))
        left = [f for f in diagnosis.findings if f.challenge == case.label and not are_left_out(f)]
        change = f"{finding.remedy} loss {end_of(curves['loss']):.4g} -> {end_of(after['loss']):.4g}"
        is_cured = not left and is_no_worse(curves["loss"], after["loss"])
        yield case.label, "" if is_cured else f"{case.label}: {case}: {change}, {sorted(diagnosis.challenges)}"


def are_left_out(finding):
    """Whether values that are not finite no longer reach the parameters. Their batches are still in the data."""
    return finding.challenge == "nonfinite" and not finding.remedy


def end_of(loss):
    known = loss[np.isfinite(loss)]
    return float(np.median(known[-max(1, len(known) // 10) :]))


def is_no_worse(before, after):
    """Whether the second run descends, and ends as low as the first up to 1 % of the gain and the error of a median."""
    late = after[-max(1, len(after) // 10) :]
    late = late[np.isfinite(late)]  # a step that was left out may have no loss
    error = 1.25 * float(np.std(late)) / len(late) ** 0.5  # of a normal sample's median
    allowed = 0.01 * max(0.0, float(before[0]) - end_of(before)) + 2 * error
    start = max(after[0], float(np.median(after[:5])))  # a first loss may be low by chance
    return np.isfinite(end_of(after)) and end_of(after) <= end_of(before) + allowed and end_of(after) < start


@every_subject
@pytest.mark.slow
def test_nine_of_ten_remedies_cure_and_most_of_each_challenge(subject, runs_of, record_property):
    cures = {}
    for label, left in uncured(with_remedies(runs_of(subject))):
        record_property("cured", [label, not left])  # tests/conftest.py adds them up
        cures.setdefault(label, []).append(left)
    failed = [left for all_left in cures.values() for left in all_left if left]
    assert len(failed) <= 0.1 * sum(map(len, cures.values())), "\n".join(failed)
    for label, all_left in cures.items():
        assert sum(not left for left in all_left) > 0.5 * len(all_left), f"{label}: " + "\n".join(failed)


def test_the_remedies_for_a_wrong_rate_and_for_noise_cure(runs_of):
    names = "bowl, sgd 0.22", "bowl, adam 1e-05", "bowl, sgd 0.05,  0"
    runs = runs_of(next(s for s in SUBJECTS if s.name == "bowl"))
    sick = with_remedies([(case, curves) for case, curves in runs if str(case).startswith(names)])
    assert {case.label for case, *_ in sick} == {"learning_rate_too_high", "learning_rate_too_low", "gradient_noise"}
    assert not [left for _, left in uncured(sick) if left]


@pytest.mark.slow
def test_a_remedy_with_traced_numbers_equals_the_printed_remedy():
    subject = planted.Subject("short bowl", planted.BOWL.losses, 0, 8, 20)
    what, method = planted.bowl(3, noise=0.5), Method("momentum", 0.05)
    case = Case(HEALTHY, subject, method, what["start"], what["arguments"])
    remedy = "tx = gradtx.accumulate(optax.chain(gradtx.clip_by_global_norm(0.7), tx, optax.scale(0.4)), 2)"
    names = {"tx": method.tx(subject.steps), "gradtx": gradtx, "optax": optax}
    exec(remedy, names)
    (traced, _), printed = cured_curves_of([case, case], [remedy, "tx = gradtx.skip_nonfinite(tx)"]), names["tx"]
    for name, curve in case.retrained(printed).items():
        np.testing.assert_allclose(traced[name], curve, rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_the_docstring_of_each_rule_has_a_condition_a_source_and_a_case_that_proves_it_wrong(rule):
    for part in ("True if ", "Source: ", "Wrong if "):
        assert part in " ".join(rule.__doc__.split()) + " "


def test_a_remedy_changes_the_optimizer_that_the_user_has():
    for word, challenge in CHALLENGES.items():
        if challenge.remedy:
            assert challenge.remedy.startswith("tx = ")
            assert "tx" in challenge.remedy.removeprefix("tx = "), word
        assert not challenge.remedy.startswith("print")


def test_the_table_of_causes_names_only_challenges_and_has_no_circle():
    assert set(EXPLAINS) <= set(CHALLENGES)
    for cause, effects in EXPLAINS.items():
        assert set(effects) <= set(CHALLENGES) - {cause}
    places = {cause: i for i, cause in enumerate(EXPLAINS)}
    for cause, effects in EXPLAINS.items():
        for effect in effects:
            assert places.get(effect, len(places)) > places[cause], (cause, effect)


def noisy_fall(steps=200, seed=0):
    k = np.arange(steps)
    return 2.0 * np.exp(-k / 40) + 0.02 + 0.01 * np.random.default_rng(seed).normal(size=steps)


def test_a_loss_alone_shows_a_divergence_and_unjudged_names_the_missing_readings():
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


def test_the_cause_of_a_nan_is_named_before_the_nan():
    loss = 2.0 * 1.5 ** np.arange(60.0)
    loss[50:] = np.nan
    run = {"loss": loss, "curvature_ratio/ratio": np.full(60, 1.2), "gradient_norm/global": 1.2 ** np.arange(60.0)}
    assert [f.challenge for f in gradtx.diagnose(run).findings] == ["learning_rate_too_high", "nonfinite"]


def test_only_a_norm_without_noise_that_never_falls_rules_critical_points_out():
    run = {"loss": noisy_fall(), "gradient_norm/global": 1 + 0.1 * np.sin(np.arange(200))}
    name = "minima, saddles and plateaus"
    assert "no critical point" in gradtx.diagnose(run | {"gradient_tests/norm": np.full(200, 0.3)}).ruled_out[name]
    # A minibatch's norm never falls below its noise: over the minimum of a noisy bowl it stays as large as here.
    for noise in ({}, {"gradient_tests/norm": np.full(200, 1.0)}):
        assert name not in gradtx.diagnose(run | noise).ruled_out
    assert "gradtx.gradient_tests()" in gradtx.diagnose(run).unjudged[name]


def test_with_a_noise_scale_but_no_batch_size_unjudged_names_the_batch_size():
    run = {"loss": noisy_fall()}
    assert "readings of gradtx.gradient_noise_scale()" in gradtx.diagnose(run).unjudged["batch_too_small"]
    run["gradient_noise_scale/noise_scale"] = np.full(200, 50.0)
    assert "batch_size=64" in gradtx.diagnose(run).unjudged["batch_too_small"]
    assert "batch_too_small" not in gradtx.diagnose(run | {"batch_size": 64}).unjudged


@pytest.mark.parametrize(("lowest", "is_ruled_out"), [(0.2, True), (0.05, False)])
def test_a_norm_above_a_tenth_of_its_largest_meets_no_critical_point(lowest, is_ruled_out):
    norm = np.where(np.arange(200) // 50 == 2, lowest, 1.0)
    run = {"loss": noisy_fall(), "gradient_norm/global": norm, "gradient_alignment/cosine": np.ones(200)}
    assert ("minima, saddles and plateaus" in gradtx.diagnose(run).ruled_out) == is_ruled_out


@pytest.mark.parametrize(
    ("curvature", "challenges"), [(-0.1, {"saddle"}), (-0.01, {"plateau"}), (0.001, {"plateau"}), (0.1, set())]
)
@pytest.mark.parametrize("lowest_at", [100, 200])  # where the curvature turns, and amid its stretch
def test_at_a_shelf_the_curvature_decides_between_a_saddle_a_flat_region_and_neither(curvature, challenges, lowest_at):
    k = np.arange(400)
    is_shelf = (k >= 100) & (k < 300)
    loss = np.where(k < 100, 10 - k / 20, np.where(is_shelf, 5.0, 5.0 - (k - 300) / 25))
    norm = np.where(is_shelf, 0.05 + 0.02 * np.abs(k - lowest_at) / 100, 1.0)
    run = {"loss": loss, "gradient_norm/global": norm}
    run["curvature_ratio/gHg"] = np.where(is_shelf, curvature, 1.0) * norm**2
    assert gradtx.diagnose(run).challenges == challenges


@pytest.mark.parametrize(("ratio", "challenges"), [(0.1, set()), (0.8, {"oscillation"})])
def test_gradients_that_turn_back_are_an_oscillation_only_if_steps_are_long(ratio, challenges):
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
def test_gradients_through_time_are_judged_if_they_were_measured(rho, challenge):
    norms = np.tile(rho ** np.arange(49.0, -1, -1), (100, 1))
    run = {"loss": noisy_fall(100), "gradient_norm/global": np.ones(100), "temporal_gradients/norms": norms}
    assert gradtx.diagnose(run).challenges == ({challenge} if challenge else set())


@pytest.mark.parametrize(("growth", "rise", "explodes"), [(1000, 5, True), (30, 5, False), (1000, 1, False)])
def test_gradients_explode_if_they_grow_a_hundred_times_and_the_loss_rises_with_them(growth, rise, explodes):
    way = np.linspace(0, 1, 200)
    run = {"loss": rise**way, "gradient_norm/global": growth**way, "curvature_ratio/ratio": np.full(200, 0.3)}
    assert ("exploding_gradients" in gradtx.diagnose(run).challenges) == explodes


@pytest.mark.parametrize(("update", "challenges"), [(0.02, {"cliff"}), (4.0, {"learning_rate_too_high"})])
def test_a_leap_that_the_length_of_the_step_explains_is_no_cliff(update, challenges):
    k = np.arange(60)
    norm, moved = np.where(k == 30, 40.0, 1.0), np.where(k == 29, update, 0.01)
    moved[30:] = 10.0
    run = {"loss": np.where(k < 30, 2 - k / 30, 9.0), "gradient_norm/global": norm, "update_ratio/global": moved,
           "curvature_ratio/ratio": np.where(k == 30, 3.0, 0.3)}  # fmt: skip
    assert gradtx.diagnose(run).challenges == challenges


def test_a_leap_of_a_minibatch_whose_gradient_is_mostly_noise_is_no_cliff():
    k = np.arange(60)
    norm = np.where(k == 30, 40.0, 1.0)
    run = {"loss": 2 - k / 60, "gradient_norm/global": norm, "update_ratio/global": 0.01 * norm,
           "curvature_ratio/ratio": np.full(60, 0.3)}  # fmt: skip
    assert "cliff" in gradtx.diagnose(run).challenges
    assert "cliff" not in gradtx.diagnose(run | {"gradient_tests/norm": np.full(60, 0.9)}).challenges


@pytest.mark.parametrize(("cosine", "challenges"), [(0.9, {"batch_too_large"}), (-0.4, set())])
def test_a_gradient_that_turns_has_no_signal_that_a_smaller_batch_could_keep(cosine, challenges):
    run = {"loss": noisy_fall(), "gradient_norm/global": np.ones(200), "gradient_tests/norm": np.full(200, 0.3),
           "gradient_noise_scale/noise_scale": np.full(200, 6.0), "batch_size": 64,
           "gradient_alignment/cosine": np.full(200, cosine), "curvature_ratio/ratio": np.full(200, 0.4)}  # fmt: skip
    assert gradtx.diagnose(run).challenges == challenges


@pytest.mark.parametrize(
    ("slope", "challenge"), [(0.2, "vanishing_gradients"), (-0.2, "exploding_gradients"), (0.05, None)]
)
def test_the_slope_alone_is_taken_over_fifty_steps(slope, challenge):
    run = {
        "loss": noisy_fall(100),
        "gradient_norm/global": np.ones(100),
        "temporal_gradients/slope": np.full(100, slope),
    }
    assert gradtx.diagnose(run).challenges == ({challenge} if challenge else set())


def test_ratios_that_overflow_do_not_keep_the_finite_ones_from_setting_the_remedy():
    ratio = np.where(np.arange(30) == 0, 2.0, np.inf)
    (found,) = gradtx.diagnose({"loss": 1.3 ** np.arange(30.0), "curvature_ratio/ratio": ratio}).findings
    assert (found.challenge, found.numbers["factor"]) == ("learning_rate_too_high", pytest.approx(0.2 / 2))


def test_a_run_is_judged_alike_if_numpy_is_set_to_raise():
    norm = np.where(np.arange(60) < 30, 1.0, 0.0)
    run = {"loss": np.exp(-norm.cumsum()), "gradient_norm/global": norm, "curvature_ratio/gHg": norm**2,
           "curvature_ratio/ratio": 0.1 * norm, "gradient_tests/standard_error": 1e-200 * norm}  # fmt: skip
    with np.errstate(all="raise"):
        found = gradtx.diagnose(run)
    assert found.to_json() == gradtx.diagnose(run).to_json()


def test_if_the_loss_hovers_while_half_of_the_steps_overshoot_the_rate_is_too_high():
    loss = 1 + 0.1 * np.random.default_rng(0).normal(size=200)
    for ratio, challenges in ((0.9, set()), (1.5, {"learning_rate_too_high"})):
        run = {"loss": loss, "curvature_ratio/ratio": np.full(200, ratio)}
        assert gradtx.diagnose(run).challenges == challenges


def test_a_rise_at_the_start_that_the_run_recovers_from_does_not_mean_too_high_a_rate():
    k = np.arange(200)
    loss = np.where(k < 3, 1.0 + 3 * k, 7.0 * np.exp(-k / 30))
    run = {"loss": loss, "curvature_ratio/ratio": np.where(k < 3, 2.0, 0.3)}
    assert not gradtx.diagnose(run).challenges


def test_a_gradient_that_is_mostly_noise_does_not_show_ill_conditioning():
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
    assert "no problem" in str(gradtx.diagnose({"loss": noisy_fall()}))


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


def test_the_remedy_for_ill_conditioning_is_stable_at_every_rate_at_which_plain_descent_is():
    sick = landscapes.quadratic(1000.0)
    rate = 1.95 / 1000  # Nesterov's momentum stands 1.36 / 1000, the heavy ball 3.8 / 1000
    names = {"gradtx": gradtx, "optax": optax, "tx": gradtx.sgd(rate)}
    exec(CHALLENGES["ill_conditioning"].remedy.format(momentum=0.9), names)
    history = lab.run(sick, names["tx"], steps=300, key=jax.random.key(0))
    assert history.loss[-1] < 1e-3 * history.loss[0]


def test_every_remedy_is_code_that_compiles_and_every_challenge_has_its_section():
    for word, challenge in CHALLENGES.items():
        numbers = {"factor": 0.1, "limit": 1.0, "times": 4.0, "steps": 100, "momentum": 0.9}
        compile(challenge.remedy.format(**numbers), word, "exec")
        compile(challenge.next_look, word, "exec")
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


# Logs as people keep them.


def falls(steps=200):
    return 2.0 * np.exp(-np.arange(steps) / 40) + 0.02 * np.random.default_rng(0).normal(size=steps)


def diverges(steps=200, at=100):
    return np.concatenate([falls(at), 3.0 * 1.3 ** np.arange(steps - at)])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_loss_every_tenth_step_has_gaps_and_no_nan(missing):
    loss = [float(x) if k % 10 == 0 else missing for k, x in enumerate(falls())]
    diagnosis = gradtx.diagnose({"loss": loss, "gradient_norm/global": np.ones(200)})
    assert not diagnosis.challenges
    assert "nonfinite" in diagnosis.ruled_out
    loss = [float(x) if k % 10 == 0 else missing for k, x in enumerate(diverges())]
    assert gradtx.diagnose({"loss": loss}).challenges == {"learning_rate_too_high"}


def test_a_loss_logged_at_random_steps_has_gaps():
    is_logged = np.random.default_rng(0).random(400) < 0.3
    assert not gradtx.diagnose({"loss": np.where(is_logged, falls(400), np.nan)}).challenges


def test_the_step_of_a_single_nan_is_named_and_the_later_steps_are_judged():
    loss = falls()
    loss[50] = np.nan
    (found,) = gradtx.diagnose({"loss": loss}).findings
    assert (found.challenge, found.steps, found.remedy) == ("nonfinite", (50, 50), "")
    assert "leaves such steps out already" in found.advice
    loss = diverges()
    loss[50] = np.nan
    assert gradtx.diagnose({"loss": loss}).challenges == {"learning_rate_too_high", "nonfinite"}


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_an_inf_is_never_a_gap(bad):
    loss = np.where(np.arange(200) % 10 == 0, falls(), np.nan)
    loss[105] = bad
    (found,) = gradtx.diagnose({"loss": loss}).findings
    assert (found.challenge, found.steps) == ("nonfinite", (105, 105))


def test_scalars_of_any_kind_are_numbers():
    lists = [
        [jnp.bfloat16(x) for x in diverges()], [np.float16(x) for x in diverges(at=180)],
        [np.float32(x) for x in diverges()], diverges().tolist(),
        jnp.asarray(diverges(), jnp.bfloat16),
    ]  # fmt: skip
    for loss in lists:
        assert gradtx.diagnose({"loss": loss}).challenges == {"learning_rate_too_high"}


def test_data_frames_and_lists_of_dicts_are_read_like_dicts():
    import pandas

    rows = {"loss": diverges(), "grad_norm": np.ones(200), "lr": np.full(200, 0.1)}
    expected = gradtx.diagnose({"loss": rows["loss"], "gradient_norm/global": rows["grad_norm"], "learning_rate": 0.1})
    assert expected.challenges == {"learning_rate_too_high"}
    for log in (
        rows,
        pandas.DataFrame(rows),
        [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)],
    ):
        assert gradtx.diagnose(log).to_json() == expected.to_json()


def test_rows_of_one_step_are_one_row_and_findings_name_the_steps_of_the_log():
    rows = [row for k, x in enumerate(diverges()) for row in ({"step": 10 * k, "loss": x}, {"step": 10 * k, "lr": 0.1})]
    (found,) = gradtx.diagnose(rows).findings
    assert found.steps[1] == 1990


@pytest.mark.parametrize("name", ["train_loss", "train/loss", "Training Loss"])
def test_common_names_are_known(name):
    assert gradtx.diagnose({name: diverges(), "Grad Norm": np.ones(200)}).challenges == {"learning_rate_too_high"}


def test_a_loss_once_per_epoch_is_put_at_the_end_of_its_part_of_the_readings():
    norm = np.ones(200)
    norm[100] = np.inf
    diagnosis = gradtx.diagnose({"loss": falls(20), "gradient_norm/global": norm})
    (found,) = diagnosis.findings
    assert (found.challenge, found.steps[0], diagnosis.steps) == ("nonfinite", 100, 200)


def test_ignored_curves_are_named_with_the_reason():
    log = {"loss": falls(), "val_loss": falls(), "note": ["a"] * 200, "grad_norm": ["x"] * 200,
           "curvature_ratio/ratio": np.full(200, np.nan)}  # fmt: skip
    unjudged = gradtx.diagnose(log).unjudged
    assert "not a reading" in unjudged["val_loss"]
    assert "not made of numbers" in unjudged["grad_norm"]
    assert "none of its values is finite" in unjudged["curvature_ratio/ratio"]


def test_a_constant_loss_with_a_gradient_of_zero_is_a_flat_region():
    run = {"loss": np.full(100, 0.7), "gradient_norm/global": np.zeros(100)}
    assert "plateau" in gradtx.diagnose(run).challenges
    arrived = {"loss": np.maximum(0.0, 1 - np.arange(100) / 30), "gradient_norm/global": np.arange(100) < 30.0}
    assert not gradtx.diagnose(arrived).challenges


# Challenges that no labelled run has.


def test_training_at_the_edge_of_stability_is_named_from_the_sharpness():
    k = np.arange(200)
    run = {"loss": 2 * np.exp(-k / 100), "sharpness/stability": np.minimum(1.0, 0.3 + k / 100)}
    assert gradtx.diagnose(run).challenges == {"edge_of_stability"}


def test_equilibrium_is_found_if_fluctuation_and_dissipation_balance():
    rng, n = np.random.default_rng(0), 400
    hovers = 1 + 4 * np.exp(-np.arange(n) / 10) + 0.1 * rng.normal(size=n)
    run = {"loss": hovers, "learning_rate": 0.5, "gradient_tests/standard_error": np.full(n, 2.5),
           "gradient_norm/global": np.full(n, 2.6), "stationarity/ratio": np.full(n, 1.02)}  # fmt: skip
    assert gradtx.diagnose(run).challenges == {"gradient_noise", "stationary"}
    assert "stationary" in gradtx.diagnose(run | {"stationarity/ratio": np.full(n, 5.0)}).ruled_out


def test_effects_are_listed_as_consequences_of_their_cause():
    k = np.arange(200)
    run = {"loss": 2 * 1.05**k, "gradient_norm/global": 1.03**k, "curvature_ratio/ratio": np.full(200, 1.05),
           "gradient_alignment/cosine": np.full(200, -0.99)}  # fmt: skip
    (found,) = gradtx.diagnose(run).findings
    assert found.challenge == "learning_rate_too_high"
    assert "oscillation" in found.consequences
    assert "It explains" in str(gradtx.diagnose(run))


def test_no_sentence_has_a_number_of_many_digits(runs_of):
    import re

    for case, curves in runs_of(next(s for s in SUBJECTS if s.name == "bowl")):
        for finding in gradtx.diagnose(log_of(case, curves)).findings:
            assert not re.search(r"\d{7,}", finding.evidence + finding.advice + finding.remedy), finding
