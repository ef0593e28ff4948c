"""A sweep compiles once for many runs and gives the numbers of the single runs."""

import dataclasses
import sys
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes

KEYS = jax.random.split(jax.random.key(5), 2)
GRID = {"learning_rate": [0.05, 0.2, 0.8], "momentum": [0.0, 0.9]}
SHORT = {"steps": 12, "keys": KEYS, "batch_size": 16, "eval_every": 5}


def nesterov(learning_rate, momentum):
    return gradtx.sgd(learning_rate, momentum, nesterov=True)


@pytest.fixture(scope="module")
def swept(digits, watch):
    return lab.sweep(digits, lambda **h: optax.chain(watch, nesterov(**h)), GRID, **SHORT)


def test_the_axes_of_a_sweep_are_the_grid_then_keys_then_steps(swept):
    assert swept.loss.shape == (3, 2, 2, 12)
    assert swept.dims == ("learning_rate", "momentum", "key", "step")
    np.testing.assert_array_equal(swept.axes["momentum"], [0.0, 0.9])
    np.testing.assert_array_equal(swept.eval_steps, [0, 5, 10, 12])
    assert swept.metric.shape == swept.train_loss.shape == (3, 2, 2, 4)
    assert swept.readings["watch/norm"].shape == (3, 2, 2, 12)
    assert swept.readings["watch/norms"].shape == (3, 2, 2, 12, 4)
    assert swept.finished.all()


@pytest.mark.parametrize("member", [(0, 0, 0), (1, 1, 1), (2, 1, 0)])
@pytest.mark.sampled(1)
def test_every_member_is_bit_equal_to_a_single_run(digits, watch, swept, member):
    i, j, k = member
    tx = optax.chain(watch, nesterov(GRID["learning_rate"][i], GRID["momentum"][j]))
    alone = lab.run(digits, tx, steps=12, key=KEYS[k], batch_size=16, eval_every=5)
    np.testing.assert_array_equal(swept.loss[member], alone.loss)
    for name in ("train_loss", "validation_loss", "metric"):
        np.testing.assert_array_equal(getattr(swept, name)[member], getattr(alone, name))
    for name, reading in alone.readings.items():
        np.testing.assert_array_equal(swept.readings[name][member], reading)


def test_sixty_four_members_need_one_trace_and_one_compilation(digits):
    traces, compilations = [], []

    def make_tx(learning_rate):
        traces.append(isinstance(learning_rate, jax.core.Tracer))
        return gradtx.sgd(learning_rate)

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(event)

    grid = {"learning_rate": np.geomspace(1e-3, 1, 32)}
    lab.sweep(digits, gradtx.sgd, grid, **SHORT)  # compiles the programs for shuffling and stacking
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        result = lab.sweep(digits, make_tx, grid, **SHORT)
    finally:
        if hasattr(jax.monitoring, "unregister_event_duration_listener"):
            jax.monitoring.unregister_event_duration_listener(listen)
        else:  # JAX 0.7.2
            jax.monitoring.clear_event_listeners()
    assert result.loss.shape == (32, 2, 12)
    assert (sum(traces), len(compilations)) == (1, 1)
    assert len(traces) <= 3  # the ranges of the smallest and the largest value are checked


@pytest.mark.slow
def test_portions_under_a_memory_budget_give_the_same_numbers_with_one_trace(digits, swept, watch):
    traces = []

    def make_tx(**hyperparameters):
        traces.append(isinstance(hyperparameters["momentum"], jax.core.Tracer))
        return optax.chain(watch, nesterov(**hyperparameters))

    chunked = lab.sweep(digits, make_tx, GRID, **SHORT, memory_budget=1)
    assert sum(traces) == 1
    np.testing.assert_array_equal(chunked.loss, swept.loss)
    side_by_side = lab.sweep(digits, nesterov, GRID, **SHORT, at_once=2)
    np.testing.assert_allclose(side_by_side.loss, swept.loss, rtol=1e-3)


def test_a_diverging_member_is_frozen_and_does_not_affect_the_others(digits):
    def exploding(learning_rate):
        growth = optax.scale_by_schedule(lambda k: jnp.where(learning_rate > 0.5, 1e6**k, 1.0))
        return optax.chain(gradtx.sgd(learning_rate), growth)

    both, alone = (lab.sweep(digits, exploding, {"learning_rate": r}, **SHORT) for r in ([0.1, 1.0], [0.1]))
    k = both.diverged_at[1]
    assert (both.diverged_at[0] == -1).all()
    assert (k > 0).all()
    for seed in range(2):
        assert np.isnan(both.loss[1, seed, k[seed] + 1 :]).all()
    np.testing.assert_array_equal(both.loss[0], alone.loss[0])
    np.testing.assert_array_equal(both.metric[0], alone.metric[0])
    assert both.best() == {"learning_rate": pytest.approx(0.1)}
    assert (both.final()[1] == np.inf).all()
    assert (both.final("metric")[1] == -np.inf).all()


@pytest.mark.parametrize(
    ("make_tx", "grid"),
    [
        (lambda learning_rate, b1: optax.adam(learning_rate, b1), {"learning_rate": [0.01, 0.1], "b1": [0.5, 0.9]}),
        (lambda momentum: optax.chain(optax.clip(0.1), optax.sgd(0.1, momentum)), {"momentum": [0.0, 0.9]}),
        (lambda steps: optax.sgd(lambda k: 0.3 * jnp.maximum(0.0, 1 - k / steps)), {"steps": [3, 12]}),
    ],
    ids=["adam", "chain", "schedule of a traced integer"],
)
@pytest.mark.sampled(1)
def test_transformations_of_optax_can_be_swept(digits, make_tx, grid):
    result = lab.sweep(digits, make_tx, grid, **SHORT)
    last = {name: values[-1] for name, values in grid.items()}
    alone = lab.run(digits, make_tx(**last), steps=12, key=KEYS[0], batch_size=16, eval_every=5)
    np.testing.assert_allclose(result.loss.reshape(-1, 2, 12)[-1, 0], alone.loss, rtol=1e-4)


@pytest.mark.parametrize(
    "make_tx",
    [
        lambda learning_rate, width: optax.sgd(learning_rate if width > 2 else 0.1),
        lambda learning_rate, width: optax.adafactor(learning_rate, min_dim_size_to_factor=width),
        lambda learning_rate, width: gradtx.sgd(learning_rate, momentum=float(width) / 10),
    ],
    ids=["a Python branch", "a shape", "a Python number"],
)
def test_a_hyperparameter_that_cannot_be_traced_is_refused_with_advice(digits, make_tx):
    with pytest.raises(TypeError, match=r"cannot take a traced width .* close over it, and run one sweep per value"):
        lab.sweep(digits, make_tx, {"learning_rate": [0.1, 0.2], "width": [2, 3]}, **SHORT)


def test_other_errors_of_make_tx_are_not_changed(digits):
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        lab.sweep(digits, gradtx.sgd, {"rate": [0.1]}, **SHORT)


def test_the_best_rate_of_a_sweep_on_a_quadratic_is_that_of_the_theory():
    rates = [0.05, 2 / 11, 0.199, 0.3]  # 2 / (1 + κ) is best for κ = 10, and descent diverges from 2 / κ on
    result = lab.sweep(landscapes.quadratic(10.0), gradtx.sgd, {"learning_rate": rates}, steps=100, keys=KEYS[:1])
    assert result.best() == {"learning_rate": pytest.approx(2 / 11)}
    assert result.metric_name == "value"
    assert result.loss[3, 0, -1] > result.loss[3, 0, 0]


def test_points_of_a_random_grid_are_members_of_one_axis():
    grid = lab.random_grid({"learning_rate": (0.01, 0.1), "momentum": (0.1, 0.9)}, 5, jax.random.key(0))
    result = lab.sweep(landscapes.quadratic(5.0), nesterov, grid, steps=20, keys=KEYS)
    assert result.loss.shape == (5, 2, 20)
    assert result.dims == ("point", "key", "step")
    best = result.best()
    assert best["learning_rate"] in grid.columns["learning_rate"]
    tx = nesterov(**best)
    alone = lab.run(landscapes.quadratic(5.0), tx, steps=20, key=KEYS[0])
    np.testing.assert_array_equal(result.loss[result.order()[0], 0], alone.loss)


def interrupted_after(calls, monkeypatch):
    @contextmanager
    def bar(total, label, show=None):
        left = [calls]

        def advance(done, text):
            left[0] -= 1
            if left[0] <= 0:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(sys.modules["gradtx.lab.member_parallel"], "progress_bar", bar)


def test_ctrl_c_returns_the_finished_members(digits, monkeypatch):
    grid = {"learning_rate": np.geomspace(0.01, 1, 12)}
    interrupted_after(2, monkeypatch)
    result = lab.sweep(digits, gradtx.sgd, grid, **SHORT, memory_budget=1)  # 24 members, 8 devices
    assert result.finished.sum() == 16
    assert np.isfinite(result.loss[:8]).all()
    assert np.isnan(result.loss[8:]).all()
    assert result.best()["learning_rate"] in result.axes["learning_rate"][:8]


@pytest.mark.parametrize("fit", [1, 20, 10**6])
@pytest.mark.parametrize("steps", [1, 500, 10_000])
@pytest.mark.parametrize("members", [1, 9, 64, 1000])
def test_portions_fit_in_memory_and_are_small_enough_to_show_progress(members, steps, fit):
    mesh = jax.make_mesh((min(members, 8),), ("members",))
    _, per_call = sys.modules["gradtx.lab.member_parallel"]._portions(members, steps, mesh, fit, 1)
    calls = -(-members // per_call)
    assert per_call % mesh.size == 0
    assert calls == 1 or 2 * per_call <= max(fit, 2 * mesh.size)  # one portion runs and one waits
    assert calls * per_call - members < mesh.size * calls
    if steps * members > 16 * 8 * 4096 * 2:
        assert calls >= 14


def test_the_next_portion_starts_before_the_previous_one_is_fetched(digits, monkeypatch):
    module, events = sys.modules["gradtx.lab.member_parallel"], []
    train = module._train_members

    def watched(*args):
        events.append("call")
        return train(*args)

    @contextmanager
    def bar(total, label, show=None):
        yield lambda done, text: events.append(done)

    monkeypatch.setattr(module, "_train_members", watched)
    monkeypatch.setattr(module, "progress_bar", bar)
    grid = {"learning_rate": np.geomspace(0.01, 1, 10)}
    result = lab.sweep(digits, gradtx.sgd, grid, **SHORT, memory_budget=1)  # 20 members, 8 devices
    assert events == ["call", "call", 8, "call", 8, 4]
    assert result.finished.all()


def test_ctrl_c_before_any_member_is_finished_raises_keyboard_interrupt(digits, monkeypatch):
    def breaks(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["gradtx.lab.member_parallel"], "_train_members", breaks)
    with pytest.raises(KeyboardInterrupt):
        lab.sweep(digits, gradtx.sgd, {"learning_rate": [0.1]}, **SHORT)
    with pytest.raises(KeyboardInterrupt):
        lab.compare(digits, "sgd", steps=2, seeds=1, learning_rates=1)


def hand_made(loss, metric, higher_is_better=True, **changes):
    loss, metric = np.array(loss, float)[..., None], np.array(metric, float)[..., None]
    fields = {
        "axes": {"learning_rate": np.array([0.1, 1.0, 10.0])}, "is_random": False, "loss": loss, "readings": {},
        "eval_steps": np.array([7]), "train_loss": loss, "validation_loss": loss, "metric": metric,
        "diverged_at": np.full(loss.shape[:-1], -1), "finished": np.ones(loss.shape[:-1], bool), "problem": "made",
        "metric_name": "accuracy", "higher_is_better": higher_is_better,
    }  # fmt: skip
    return lab.Sweep(**(fields | changes))


def test_the_best_point_has_the_best_mean_over_the_keys():
    made = hand_made([[1, 9], [2, 3], [4, 4]], [[0.9, 0.8], [0.1, 0.2], [0.3, 1.0]])
    assert made.best() == {"learning_rate": 1.0}
    assert made.best("metric") == {"learning_rate": 0.1}
    assert hand_made([[1], [2], [3]], [[5], [4], [3]], higher_is_better=False).best("metric") == {"learning_rate": 10.0}
    nan = hand_made([[np.nan, 0], [7, 8], [9, 9]], np.zeros((3, 2)))
    assert nan.order().tolist() == [1, 2, 0]


def test_the_table_shows_the_best_points_with_their_spread():
    made = hand_made([[1, 9], [2, 3], [4, 4]], np.zeros((3, 2)), diverged_at=np.array([[-1, -1], [-1, -1], [3, -1]]))
    table = made.table(rows=2)
    assert table.row_count == 2
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["1", "0.1"]
    assert cells[1] == ["2.5 ± 0.5", "5 ± 4"]
    assert "2 keys" in table.caption


def test_best_raises_if_every_member_diverged():
    diverged = np.full((3, 2), 4)
    made = hand_made(np.full((3, 2), np.nan), np.full((3, 2), 0.1), diverged_at=diverged)
    for by in ("loss", "metric"):
        with pytest.raises(ValueError, match=rf"Sweep.best: no member has a finite {by} .* \(6 of 6 diverged\)"):
            made.best(by)
    assert made.table().row_count == 3


def test_points_with_fewer_diverged_keys_are_ranked_higher():
    diverged = np.array([[4, 4, 4], [4, -1, 4], [-1, 4, -1]])
    made = hand_made(np.arange(9.0).reshape(3, 3), np.zeros((3, 3)), diverged_at=diverged)
    assert made.best() == {"learning_rate": 10.0}
    assert made.order().tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("make_tx", "grid", "message"),
    [
        (
            nesterov,
            {"learning_rate": [0.1], "momentum": [0.5, 1.5]},
            r"sgd: momentum must be in \[0, 1\), got 1.5",
        ),
        (gradtx.sgd, {"learning_rate": [0.1, -0.1]}, r"sgd: learning_rate must be in .* got -0.1"),
        (gradtx.adam, {"learning_rate": [0.1], "b1": [1.5]}, r"adam: b1 must be in \[0, 1\), got 1.5"),
        (
            optax.sgd,
            {"learning_rate": [0.1, np.nan]},
            "the grid's learning_rate must be numbers of at most .*, got nan",
        ),
        (optax.sgd, {"learning_rate": [1e39]}, "the grid's learning_rate must be numbers of at most 3.4e"),
    ],
)
def test_values_that_the_method_refuses_are_refused_before_training(make_tx, grid, message):
    with pytest.raises(ValueError, match=f"sweep: .*{message}"):
        lab.sweep(landscapes.quadratic(10.0), make_tx, grid, steps=2, keys=KEYS)


def test_the_values_of_a_random_grid_are_checked():
    grid = lab.random_grid({"learning_rate": (0.01, 0.1), "momentum": (0.9, 1.5)}, 20, jax.random.key(0))
    with pytest.raises(ValueError, match="sweep: sgd: momentum must be in"):
        lab.sweep(landscapes.quadratic(10.0), nesterov, grid, steps=2, keys=KEYS)


def test_a_saved_sweep_is_loaded_unchanged(swept, tmp_path):
    swept.save(tmp_path / "s.npz")
    loaded = lab.Sweep.load(tmp_path / "s.npz")
    for name, value in swept.to_dict().items():
        np.testing.assert_equal(getattr(loaded, name), value, err_msg=name)


def test_a_saved_sweep_in_bfloat16_is_loaded_unchanged(tmp_path):
    loss = jnp.arange(6.0).reshape(3, 2, 1).astype(jnp.bfloat16)
    made = dataclasses.replace(hand_made(np.zeros((3, 2)), np.zeros((3, 2))), loss=loss, readings={"a/b": loss + 1})
    made.save(tmp_path / "s")
    loaded = lab.Sweep.load(tmp_path / "s")
    for array, before in ((loaded.loss, loss), (loaded.readings["a/b"], loss + 1)):
        assert array.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(array, float), np.asarray(before, float))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "sweep: steps must be at least 1, got 0"),
        ({"eval_every": -1}, ValueError, "sweep: eval_every must be at least 1, got -1"),
        (
            {"keys": jax.random.key(0)},
            TypeError,
            "keys must be an array of JAX random keys, as jax.random.split",
        ),
        ({"batch_size": 10_000}, ValueError, "sweep: batch_size must be at least 1 and at most 1437"),
        ({"grid": {"learning_rate": ["big"]}}, TypeError, "the grid's learning_rate must be a list of numbers"),
        ({"grid": {}}, TypeError, "sweep: grid must be a dict such as"),
        ({"keys": None}, TypeError, "sweep: keys must be an array of JAX random keys, .* got None"),
        (
            {"make_tx": gradtx.sgd(0.1)},
            TypeError,
            "make_tx must be a function of the grid.s arguments, got .*",
        ),
        ({"problem": lab.digits}, TypeError, "sweep: the first argument must be a lab.Problem or"),
        ({"at_once": 0}, ValueError, "sweep: at_once must be at least 1, got 0"),
        ({"memory_budget": 0}, ValueError, "sweep: memory_budget must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_with_name_and_rule(digits, arguments, error, message):
    given = {"problem": digits, "make_tx": gradtx.sgd, "grid": {"learning_rate": [0.1]}} | SHORT | arguments
    with pytest.raises(error, match=message):
        lab.sweep(given.pop("problem"), given.pop("make_tx"), given.pop("grid"), **given)
