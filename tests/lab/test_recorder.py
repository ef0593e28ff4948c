"""A recorder turns a hand-written training loop into a run that can be diagnosed, drawn and saved."""

import io
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import gradtx
from gradtx import lab, landscapes
from gradtx.lab import live, recorder

CURVATURES = jnp.array([1.0, 20.0])


def loss(w):
    return 0.5 * jnp.sum(CURVATURES * w**2)


def step_of(tx):
    def step(w, state):
        value, g = jax.value_and_grad(loss)(w)
        updates, state = tx.update(g, state, w, value=value, value_fn=loss, losses_fn=lambda w: loss(w)[None])
        return optax.apply_updates(w, updates), state, value

    return step


def recorded(rate, steps, **settings):
    """Records a run step by step with a donated state. The run diverges if the rate is above 0.1."""
    tx = optax.chain(gradtx.panel(rate), gradtx.sgd(rate))
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    w = jnp.ones(2)
    state, log = tx.init(w), lab.Recorder(**settings)
    for _ in range(steps):
        w, state, value = step(w, state)
        log(loss=value, **gradtx.readings(state), learning_rate=rate, batch_size=1)
    return log


@pytest.fixture(scope="module")
def diverging():
    return recorded(0.11, 40, name="mine")


def test_a_recorded_loop_can_be_diagnosed_and_drawn(diverging):
    assert "learning_rate_too_high" in gradtx.diagnose(diverging).challenges
    page = lab.plot_diagnosis(diverging)
    assert page.get_suptitle().startswith("mine: ")
    assert "Step against curvature" in [a.get_title(loc="left") for f in page.subfigs for a in f.axes]
    assert lab.plot_readings(diverging).get_suptitle().startswith("mine: ")


def test_the_recorder_keeps_every_value_of_every_step(diverging):
    w = np.ones(2)
    for k in range(40):
        np.testing.assert_allclose(diverging["loss"][k], 0.5 * (w @ (np.array([1.0, 20.0]) * w)), rtol=1e-4)
        w = w - 0.11 * np.array([1.0, 20.0]) * w
    assert (diverging["learning_rate"] == 0.11).all()
    np.testing.assert_array_equal(diverging["step"], np.arange(40))
    assert set(gradtx.readings(optax.chain(gradtx.panel(0.1)).init(jnp.ones(2)))) < set(diverging)


def test_the_stacked_output_of_a_scan_is_recorded_as_the_same_run(diverging):
    tx = optax.chain(gradtx.panel(0.11), gradtx.sgd(0.11))
    step = step_of(tx)

    def one(carry, _):
        w, state, value = step(*carry)
        return (w, state), {"loss": value, **gradtx.readings(state)}

    log, carry = lab.Recorder(), (jnp.ones(2), tx.init(jnp.ones(2)))
    for _ in range(2):
        carry, seen = jax.lax.scan(one, carry, length=20)
        log(seen, learning_rate=0.11, batch_size=1)
    assert log.steps == 40
    for name in log:
        np.testing.assert_allclose(log[name], diverging[name], rtol=1e-5, err_msg=name)


def test_recorded_steps_may_have_gaps():
    log = lab.Recorder(every=10)
    for k in range(3):
        log(loss=3.0 - k)
    np.testing.assert_array_equal(log["step"], [0, 10, 20])
    log(loss=jnp.arange(2.0))
    np.testing.assert_array_equal(log["step"], [0, 10, 20, 30, 40])
    log(loss=7.0, step=45)
    log(loss=[8.0, 9.0], step=[100, 200])
    np.testing.assert_array_equal(log["step"], [0, 10, 20, 30, 40, 45, 100, 200])
    np.testing.assert_array_equal(log["loss"], [3, 2, 1, 0, 1, 7, 8, 9])
    assert lab.plot_diagnosis(log).subfigs[0].axes[0].lines[0].get_xdata()[-1] == 200
    with pytest.raises(ValueError, match="step must not be before the last one, 200, got 5"):
        log(loss=1.0, step=5)


def test_a_loss_given_once_per_epoch_belongs_to_the_last_step_and_other_steps_are_nan():
    log = lab.Recorder()
    for epoch in range(2):
        for k in range(3):
            log({"gradient_norm/global": 1.0 + k})
        log(loss=0.5 / (epoch + 1), epoch=epoch, step=log["step"][-1])
        log(validation_loss=0.7)
    np.testing.assert_array_equal(log["gradient_norm/global"], [1, 2, 3, 1, 2, 3])
    np.testing.assert_array_equal(log["loss"], [np.nan, np.nan, 0.5, np.nan, np.nan, 0.25])
    np.testing.assert_array_equal(log["epoch"], [np.nan, np.nan, 0, np.nan, np.nan, 1])
    np.testing.assert_array_equal(log["validation_loss"], [np.nan, np.nan, 0.7] * 2)


def test_many_steps_are_fetched_together_and_stay_in_order(monkeypatch):
    monkeypatch.setattr(recorder, "FETCH_EVERY", 4)
    log = lab.Recorder()
    for k in range(100):
        log(loss=jnp.float32(k), norms=jnp.array([k, -k]), note=k / 7, **({"rare": k} if k % 10 == 0 else {}))
    assert len(log._entries) < 80  # of 210
    np.testing.assert_array_equal(log["loss"], np.arange(100))
    np.testing.assert_array_equal(log["norms"], np.stack([np.arange(100), -np.arange(100)], axis=1))
    np.testing.assert_array_equal(log["note"], np.arange(100) / 7)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(log["rare"])), np.arange(0, 100, 10))


def test_a_recorder_can_be_turned_into_a_table_saved_loaded_and_continued(tmp_path):
    log = lab.Recorder(every=5, name="mine")
    log(loss=jnp.float32(2.0), norms=[1.0, 2.0])
    log(loss=1.0)
    frame = log.to_dataframe()
    assert list(frame.index) == [0, 5]
    assert list(frame.columns) == ["loss", "norms[0]", "norms[1]"]
    log.save(tmp_path / "log.npz")
    again = lab.Recorder.load(tmp_path / "log.npz")
    assert (again.name, again.every) == ("mine", 5)
    for run in (log, again):
        run(loss=0.5)
    assert set(again) == set(log)
    for name in log.to_dict():
        np.testing.assert_array_equal(again[name], log[name])
    with pytest.raises(ValueError, match=r"holds a Recorder\. Read it with lab\.Recorder\.load"):
        lab.History.load(tmp_path / "log.npz")
    empty = lab.Recorder()
    empty.save(tmp_path / "empty")
    assert lab.Recorder.load(tmp_path / "empty").steps == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "low"}, TypeError, "Recorder: loss must be a real number or an array of them, got 'low'"),
        ({"loss": 1j}, TypeError, "Recorder: loss must be a real number"),
        ({"loss": np.ones((2, 2))}, ValueError, r"loss must be a number, or \[steps\] of a scan, got shape \(2, 2\)"),
        ({"loss": np.ones(3), "a/b": np.ones(2)}, ValueError, "a/b must be a number or have 3 values, as the loss has"),
        ({"loss": 1.0, "norms": np.ones(3)}, ValueError, r"norms must have shape \(2,\) at each step, as before"),
        ({"loss": 1.0, "step": 1.5}, ValueError, "step must be 1 integer"),
    ],
)
def test_values_that_cannot_be_recorded_are_refused_by_name(arguments, error, message):
    log = lab.Recorder()
    log(loss=1.0, norms=np.ones(2))
    with pytest.raises(error, match=message):
        log(**arguments)
    assert log.steps == 1


def test_a_call_inside_jit_and_bad_arguments_are_refused_with_advice():
    log = lab.Recorder()
    with pytest.raises(TypeError, match=r"loss is traced\. Call the recorder outside jit and scan"):
        jax.jit(lambda x: log(loss=x))(1.0)
    with pytest.raises(ValueError, match="every must be at least 1"):
        lab.Recorder(every=0)
    with pytest.raises(TypeError, match="live must be True or False"):
        lab.Recorder(live="yes")


def test_the_terminal_shows_curves_and_the_diagnosis_while_the_loop_runs(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(live, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    monkeypatch.setattr(live, "in_a_notebook", lambda: False)
    monkeypatch.setattr(live, "PAUSE", 0.01)
    with recorded(0.11, 30, live=True) as log:
        deadline = time.monotonic() + 30
        while "learning rate too high" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "learning rate too high" in screen.getvalue()  # before the loop ends
        assert "▁" in screen.getvalue()
    assert f"{log['loss'][-1]:.4g}" in screen.getvalue()


def test_a_notebook_shows_a_picture_that_is_updated(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown = []

    class Handle:
        def display(self, what):
            shown.append(what)

        update = display

    monkeypatch.setattr(display, "DisplayHandle", Handle)
    monkeypatch.setattr(live, "in_a_notebook", lambda: True)
    monkeypatch.setattr(live, "PAUSE", 0.01)
    with recorded(0.11, 30, live=True):
        pass
    assert "learning rate too high" in shown[-1].get_suptitle()
    assert [axes.get_title(loc="left") for axes in shown[-1].axes][:2] == ["Loss", "Gradient norm"]
    assert len(shown) >= 2


def test_the_live_view_prints_nothing_outside_terminals_and_notebooks(capsys):
    with recorded(0.05, 3, live=True):
        pass
    assert capsys.readouterr() == ("", "")


def falling(rates=(0.9,), name="", evaluated=()):
    logs = []
    for rate in rates:
        log = lab.Recorder(every=2, name=name)
        for k in range(40):
            log(loss=rate**k, norms=[1.0, 2.0])
            if k in evaluated:
                log(metric=k / 40)
        logs.append(log)
    return logs


def lines_of(figure):
    return [np.asarray(line.get_xydata()) for line in figure.axes[0].lines]


def test_its_curves_are_drawn_over_its_steps():
    (log,) = falling()
    (drawn,) = lines_of(lab.plot_curves(log))
    np.testing.assert_allclose(drawn[:, 0], 2 * np.arange(40))
    np.testing.assert_allclose(drawn[:, 1], 0.9 ** np.arange(40))
    (part,) = lines_of(lab.plot_curves({"mine": log}, "norms[1]"))
    np.testing.assert_allclose(part[:, 1], 2.0)


def test_several_are_a_band_and_stand_beside_a_history():
    logs = falling((0.8, 0.9))
    figure = lab.plot_curves(logs)
    (drawn,) = lines_of(figure)
    np.testing.assert_allclose(drawn[:, 1], (0.8 ** np.arange(40) + 0.9 ** np.arange(40)) / 2)
    assert len(figure.axes[0].collections) == 1
    history = lab.run(landscapes.quadratic(10.0), gradtx.sgd(0.1), steps=20, key=jax.random.key(0))
    assert len(lines_of(lab.plot_curves({"mine": logs[0], "the lab's": history}))) == 2


def test_a_curve_with_gaps_is_drawn_where_it_has_values():
    (log,) = falling(evaluated=(9, 19, 39))
    figure = lab.plot_curves(log, "metric")
    np.testing.assert_allclose(lines_of(figure)[0], [[18, 0.225], [38, 0.475], [78, 0.975]])
    assert figure.get_suptitle() == "The validation metric ends at 0.975."


def test_its_order_of_convergence_is_drawn():
    log = lab.Recorder()
    log(loss=np.arange(1.0, 1000) ** -2, step=np.arange(1, 1000))
    assert "falls as k^-2" in lab.plot_convergence(log, what="loss").get_suptitle()


def test_an_empty_recorder_is_not_drawn():
    with pytest.raises(ValueError, match=r"plot_curves: runs must have recorded a step.* log\(loss=value\)"):
        lab.plot_curves(lab.Recorder())
