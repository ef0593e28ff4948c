"""The comparison trains what it says, in one compilation a method, and judges it as a reader would."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab
from gradtx.lab.compare import first_step_reaching


@pytest.fixture(scope="module")
def digits():
    return lab.digits(hidden=8)


@pytest.fixture(scope="module")
def small(digits):
    methods = [lab.METHODS[name] for name in ("momentum", "rmsprop_nesterov", "delta_bar_delta")]
    return lab.compare(digits, methods, steps=60, seeds=2, learning_rates=3, evaluations=6, patience=2)


def test_digits_are_real_and_split_once(digits):
    again = lab.digits()
    assert (len(digits.train[0]), len(digits.validation[0])) == (1437, 360)
    np.testing.assert_array_equal(digits.train[0], again.train[0])
    assert set(np.asarray(digits.validation[1]).tolist()) == set(range(10))
    assert float(digits.train[0].max()) == 1.0


@pytest.mark.parametrize("name", ["momentum", "rmsprop_nesterov"])
def test_a_member_is_a_plain_loop_of_optimizer_steps(digits, name):
    make_tx, keys = lab.METHODS[name].make_tx, jax.random.split(jax.random.key(0), 2)
    rates = np.array([0.003, 0.01])
    curves = lab.train_grid(digits, make_tx, rates, keys, steps=20, batch_size=32, evaluate_every=10)
    key_init, key_batches = jax.random.split(keys[1])
    params = digits.init(key_init)
    tx = make_tx(rates[0])
    state = tx.init(params)
    for indices in gradtx.shuffled_epochs(key_batches, 1437, 32, 1)[:20]:
        batch = digits.train[0][indices], digits.train[1][indices]
        updates, state = tx.update(jax.grad(digits.loss)(params, batch), state, params)
        params = optax.apply_updates(params, updates)
    if "nesterov" in name:
        params = gradtx.nesterov_eval_params(params, state)
    assert curves.train_loss[0, 1, -1] == pytest.approx(float(digits.loss(params, digits.train)), rel=1e-4)
    assert curves.validation_metric[0, 1, -1] == pytest.approx(
        float(digits.metric(params, digits.validation)), abs=1e-6
    )


def test_a_grid_is_one_compilation(digits):
    traces = []

    def make_tx(learning_rate):
        traces.append(learning_rate)
        return gradtx.sgd(learning_rate)

    keys = jax.random.split(jax.random.key(0), 3)
    lab.train_grid(digits, make_tx, np.array([0.1, 0.2, 0.3, 0.4]), keys, steps=4, batch_size=8, evaluate_every=2)
    assert len(traces) == 1


def test_a_diverging_member_freezes_and_does_not_poison_its_neighbours(digits):
    keys = jax.random.split(jax.random.key(0), 2)

    def exploding(learning_rate):
        growth = optax.scale_by_schedule(lambda k: jnp.where(learning_rate > 0.5, 4.0**k, 1.0))
        return optax.chain(gradtx.sgd(learning_rate), growth)

    def grid(rates):
        return lab.train_grid(digits, exploding, rates, keys, steps=100, batch_size=32, evaluate_every=50)

    both, alone = grid(np.array([0.1, 1.0])), grid(np.array([0.1]))
    assert (both.diverged_at[0] == -1).all()
    assert (both.diverged_at[1] >= 0).all()
    assert np.isfinite(both.validation_metric).all()
    np.testing.assert_allclose(both.train_loss[0], alone.train_loss[0], rtol=1e-5)


def test_the_same_call_gives_the_same_numbers(digits, small):
    again = lab.compare(
        digits, [lab.METHODS["momentum"]], steps=60, seeds=2, learning_rates=3, evaluations=6, patience=2
    )
    np.testing.assert_array_equal(again.results[0].curves.train_loss, small.results[0].curves.train_loss)


def test_every_method_has_the_same_budget_and_a_choice_that_follows_the_rule(small):
    for result in small.results:
        assert result.curves.train_loss.shape == (3, 2, 7)
        final = result.curves.validation_metric[..., -1].mean(axis=1)
        assert final[result.best] == final.max()
        np.testing.assert_allclose(np.diff(np.log10(result.curves.learning_rates)), 0.5)
    assert [r.batch_size for r in small.results] == [64, 64, None]


def test_early_stopping_is_what_a_reader_of_the_curve_would_do(small):
    for result in small.results:
        for seed, curve in enumerate(result.curves.validation_metric[result.best]):
            best, at, stopped = -np.inf, -1, -1
            for k, metric in enumerate(curve):
                if metric > best:
                    best, at = metric, k
                if k - at >= 2:
                    stopped = result.curves.steps[k]
                    break
            assert result.stopped_at[seed] == stopped
            assert result.stopped_metric[seed] == pytest.approx(best)


def test_steps_to_a_target_on_hand_made_curves():
    steps = np.array([0, 5, 10])
    metric = np.array([[0.1, 0.9, 0.8], [0.1, 0.2, 0.3], [0.95, 0.1, 0.1]])
    np.testing.assert_array_equal(first_step_reaching(steps, metric, 0.9), [5, np.inf, 0])


def test_every_method_learns_digits():
    comparison = lab.compare(lab.digits(), lab.METHODS.values(), steps=200, seeds=2, learning_rates=3, evaluations=4)
    for result in comparison.results:
        assert result.curves.validation_metric[result.best, :, -1].mean() > 0.93, result.method


def test_the_report_holds_everything(small, tmp_path):
    lab.save_comparison(small, tmp_path / "c.json")
    loaded = json.loads((tmp_path / "c.json").read_text())
    assert loaded["settings"]["seeds"] == 2
    for entry, result in zip(loaded["results"], small.results, strict=True):
        np.testing.assert_allclose(entry["curves"]["train_loss"], result.curves.train_loss)
        assert entry["best_learning_rate"] == result.learning_rate
    table = lab.comparison_table(small)
    assert table.row_count == 3
    assert "same budget: 3 learning rates" in table.caption


def test_the_figure_has_a_panel_for_each_method_and_a_conclusion(small, tmp_path):
    figure = lab.plot_comparison(small)
    figure.savefig(tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 10_000
    titles = [axes.get_title() for sub in figure.subfigs for axes in sub.axes]
    assert all(any(title.startswith(r.method) for title in titles) for r in small.results)
    assert "ends highest" in figure.get_suptitle()


def test_bad_settings_are_refused(digits):
    for setting in ("steps", "seeds", "learning_rates", "batch_size", "evaluations", "patience"):
        with pytest.raises(ValueError, match=f"compare: {setting} must be at least 1, got 0"):
            lab.compare(digits, [lab.METHODS["sgd"]], **{setting: 0})
    with pytest.raises(ValueError, match="batch_size must be at most 1437"):
        lab.compare(digits, [lab.METHODS["sgd"]], batch_size=2000)
    with pytest.raises(ValueError, match="at least one method"):
        lab.compare(digits, [])
    with pytest.raises(ValueError, match="must divide steps"):
        lab.train_grid(
            digits,
            gradtx.sgd,
            jnp.ones(1),
            jax.random.split(jax.random.key(0), 1),
            steps=5,
            batch_size=1,
            evaluate_every=2,
        )
