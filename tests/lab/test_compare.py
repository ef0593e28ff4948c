"""A comparison gives every method the same budget and judges it by its curves."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

import gradtx
from gradtx import lab
from gradtx.lab.compare import first_step_reaching

METHODS = ("sgd", "delta_bar_delta")
SMALL = {"steps": 40, "seeds": 2, "learning_rates": 3, "evaluations": 8, "patience": 2}


@pytest.fixture(scope="module")
def three(digits):
    problems = [lab.problems.diabetes(), lab.problems.breast_cancer(), digits]
    return lab.compare(problems, METHODS, **SMALL)


@pytest.fixture(scope="module")
def one(digits):
    return lab.compare(digits, METHODS, **SMALL)


@pytest.mark.slow
def test_every_method_gets_the_same_budget_on_every_problem(three):
    assert [(r.problem, r.method) for r in three.results] == [
        (problem, method) for problem in ("diabetes", "breast_cancer", "digits") for method in METHODS
    ]
    for result in three.results:
        assert result.sweep.metric.shape == (3, 2, 9)
        assert result.sweep.loss.shape == (3, 2, 40)
        np.testing.assert_allclose(np.diff(np.log10(result.sweep.axes["learning_rate"])), 0.5)
        assert result.sweep.axes["learning_rate"][1] == pytest.approx(lab.METHODS[result.method].middle)
    assert [r.batch_size for r in three.of("digits")] == [64, None]


def test_the_best_learning_rate_has_the_best_mean_final_metric(three):
    for result in three.results:
        finals = result.sweep.final("metric").mean(axis=1)
        assert finals[result.best] == (finals.max() if result.sweep.higher_is_better else finals.min())
        assert result.learning_rate == result.sweep.axes["learning_rate"][result.best]


def test_a_member_of_a_comparison_equals_a_single_run(digits, one):
    result = one.results[0]
    alone = lab.run(
        digits, gradtx.sgd(result.learning_rate), steps=40, key=jax.random.split(jax.random.key(0), 2)[1], eval_every=5
    )
    np.testing.assert_array_equal(result.metric[1], alone.metric)
    np.testing.assert_array_equal(result.train_loss[1], alone.train_loss)


def test_results_on_a_problem_do_not_depend_on_the_other_problems(one, three):
    for alone, among in zip(one.results, three.of("digits"), strict=True):
        np.testing.assert_array_equal(alone.train_loss, among.train_loss)


def test_early_stopping_agrees_with_a_loop_over_the_curve(three):
    for result in three.results:
        sign = 1 if result.sweep.higher_is_better else -1
        for seed, curve in enumerate(sign * result.metric):
            best, at, stopped = -np.inf, -1, -1
            for k, metric in enumerate(curve):
                if metric > best:
                    best, at = metric, k
                if k - at >= 2:
                    stopped = result.sweep.eval_steps[k]
                    break
            assert result.stopped_at[seed] == stopped
            assert result.stopped_metric[seed] == pytest.approx(sign * best)


def test_the_area_is_the_mean_height_of_the_loss_curve(one):
    for result in one.results:
        expected = np.trapezoid(result.train_loss, result.sweep.eval_steps) / 40
        np.testing.assert_allclose(result.area, expected, rtol=1e-6)


def test_the_first_step_that_reaches_a_target_is_right_on_short_curves():
    steps = np.array([0, 5, 10])
    metric = np.array([[0.1, 0.9, 0.8], [0.1, 0.2, 0.3], [0.95, 0.1, 0.1]])
    np.testing.assert_array_equal(first_step_reaching(steps, metric, 0.9), [5, np.inf, 0])
    np.testing.assert_array_equal(first_step_reaching(steps, metric, 0.1, higher_is_better=False), [0, 0, 5])


def test_the_table_of_three_problems_has_scores(three):
    table = lab.comparison_table(three)
    assert table.row_count == 3 * (1 + 2) + 1 + 2  # per problem a heading and the methods, then the scores
    assert "same budget: 3 learning rates" in table.caption
    assert {"diabetes", "breast_cancer", "digits", "score"} <= {
        cell.replace("[bold]", "").replace("[/bold]", "") for cell in table.columns[0].cells
    }


def test_the_figure_of_three_problems_has_a_panel_each_and_a_conclusion(three):
    figure = lab.plot_comparison(three)
    titles = [axes.get_title(loc="left") for sub in figure.subfigs for axes in sub.axes]
    for problem in ("diabetes", "breast_cancer", "digits", "Performance profile", "Score"):
        assert any(title.startswith(problem) for title in titles), problem
    assert "scores highest" in figure.get_suptitle()


def test_the_figure_of_one_problem_has_a_panel_for_each_method(one):
    figure = lab.plot_comparison(one)
    titles = [axes.get_title(loc="left") for sub in figure.subfigs for axes in sub.axes]
    assert all(any(title.startswith(r.method) for title in titles) for r in one.results)
    assert "ends highest" in figure.get_suptitle()


def test_the_default_target_of_a_problem_is_the_metric_that_half_of_the_methods_reach(one):
    finals = [result.metric[:, -1].mean() for result in one.results]
    without = lab.Comparison(
        one.settings, {"digits": dataclasses.replace(one.problems["digits"], target=None)}, one.results
    )
    assert without.target("digits") == pytest.approx(np.median(finals))
    assert one.target("digits") == 0.95


def test_a_saved_comparison_is_json_with_settings_scores_and_curves(three, tmp_path):
    lab.save_comparison(three, tmp_path / "c.json")
    loaded = json.loads((tmp_path / "c.json").read_text())
    assert loaded["settings"]["seeds"] == 2
    assert set(loaded["scores"]) == set(METHODS)
    for entry, result in zip(loaded["results"], three.results, strict=True):
        finite = np.where(np.isfinite(result.sweep.train_loss), result.sweep.train_loss, np.nan)  # JSON has no inf
        np.testing.assert_allclose(np.array(entry["train_loss"], float), finite)
        assert entry["best_learning_rate"] == result.learning_rate
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_ctrl_c_returns_the_results_of_the_finished_methods(digits, one, monkeypatch):
    module = sys.modules["gradtx.lab.compare"]
    real, calls = module.sweep, []

    def breaks(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "sweep", breaks)
    broken = lab.compare(digits, METHODS, **SMALL)
    assert [result.method for result in broken.results] == ["sgd"]
    np.testing.assert_array_equal(broken.results[0].metric, one.results[0].metric)


def test_a_custom_method_can_be_compared(digits):
    mine = lab.Method("mine", lambda learning_rate: gradtx.adam(learning_rate, b1=0.5), 0.01)
    compared = lab.compare(digits, [mine], **SMALL)
    assert compared.methods == ("mine",)


def test_bad_settings_are_refused(digits):
    for setting in ("steps", "seeds", "learning_rates", "batch_size", "evaluations", "patience"):
        with pytest.raises(ValueError, match=f"compare: {setting} must be at least 1, got 0"):
            lab.compare(digits, ["sgd"], **{setting: 0})
    with pytest.raises(ValueError, match="no method is called 'sdg'; there are sgd, momentum"):
        lab.compare(digits, ["sdg"])
    with pytest.raises(ValueError, match="compare: learning_rates must be at most 101, got 102"):
        lab.compare(digits, ["sgd"], learning_rates=102)
    for what in ("digits", ["digits"], lab.digits, None):
        with pytest.raises(TypeError, match=r"compare: each problem must be a lab.Problem, such as lab.digits\(\)"):
            lab.compare(what, ["sgd"])
    with pytest.raises(ValueError, match="no method is called 'sdg'"):
        lab.compare(digits, "sdg")
    for problems, methods in ((digits, []), ([], ["sgd"])):
        with pytest.raises(ValueError, match="must each hold at least one"):
            lab.compare(problems, methods)
