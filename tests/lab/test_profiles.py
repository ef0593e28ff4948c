"""Performance profiles and their scores are right for numbers that can be checked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from gradtx import lab


def comparison(steps):
    """Makes a comparison with target 0.5 from {problem: {method: steps of each seed}}."""
    results = [
        SimpleNamespace(problem=problem, method=method, steps_to=lambda target, s=seeds: np.array(s, float))
        for problem, methods in steps.items()
        for method, seeds in methods.items()
    ]
    names = tuple(dict.fromkeys(result.method for result in results))
    return SimpleNamespace(results=results, methods=names, target=lambda problem: 0.5)


@pytest.fixture(scope="module")
def profile():
    steps = {
        "p": {"fast": [10, 10, 30], "slow": [20, 20, 20], "lost": [np.inf, np.inf, 10]},
        "q": {"fast": [30, 30, 30], "slow": [10, 10, 10], "lost": [10, 5, 10]},
    }
    return lab.performance_profile(comparison(steps))


def test_ratios_are_median_steps_over_those_of_the_quickest_method(profile):
    np.testing.assert_array_equal(profile.ratios["fast"], [1, 3])
    np.testing.assert_array_equal(profile.ratios["slow"], [2, 1])
    np.testing.assert_array_equal(profile.ratios["lost"], [np.inf, 1])


def test_the_profile_is_the_fraction_of_problems_within_a_factor(profile):
    np.testing.assert_array_equal(profile.fraction("fast", np.array([1, 2.9, 3, 4])), [0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(profile.fraction("lost", np.array([1, 4])), [0.5, 0.5])
    assert profile.fraction("slow", 2.0) == 1


def test_the_score_is_the_area_under_the_profile(profile):
    assert profile.scores["fast"] == pytest.approx((1 + 1 / 3) / 2)
    assert profile.scores["slow"] == pytest.approx((2 / 3 + 1) / 2)
    assert profile.scores["lost"] == pytest.approx(0.5)
    taus = np.linspace(1, profile.max_ratio, 30_001)
    for method, score in profile.scores.items():
        assert np.trapezoid(profile.fraction(method, taus), taus) / 3 == pytest.approx(score, abs=1e-3)


def test_a_problem_that_no_method_solves_lowers_every_score():
    never = lab.performance_profile(comparison({"p": {"a": [np.inf], "b": [np.inf]}, "q": {"a": [1], "b": [2]}}))
    assert never.scores == {"a": pytest.approx(0.5), "b": pytest.approx(1 / 3)}


@pytest.mark.parametrize("bad", [1.0, 0.5, np.inf, np.nan])
def test_a_max_ratio_that_is_not_above_1_and_finite_is_refused(bad):
    with pytest.raises(ValueError, match=r"max_ratio must be in \(1, inf\)"):
        lab.performance_profile(comparison({"p": {"a": [1]}}), bad)
