"""A run equals a plain loop of optimizer steps. It is compiled in chunks, and its user can end it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from tests.comparing import assert_same

PIPELINE = optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9, nesterov=True))


@pytest.fixture(scope="module")
def short(digits, key):
    return lab.run(digits, PIPELINE, steps=23, key=key, batch_size=32, eval_every=5)


def test_a_run_equals_a_plain_loop_of_optimizer_steps(digits, key, short):
    key_init, key_batches = jax.random.split(key)
    params = digits.init(key_init)
    state = PIPELINE.init(params)
    losses = []
    for indices in gradtx.shuffled_epochs(key_batches, 1437, 32, 1)[:23]:
        batch = digits.train[0][indices], digits.train[1][indices]
        loss, grads = jax.value_and_grad(digits.loss)(params, batch)
        updates, state = PIPELINE.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    np.testing.assert_allclose(short.loss, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), short.params, params)
    at = gradtx.nesterov_eval_params(params, state)  # evaluated at theta, trained at the look-ahead point
    assert short.train_loss[-1] == pytest.approx(float(digits.loss(at, digits.train)), rel=1e-4)
    assert short.metric[-1] == pytest.approx(float(digits.metric(at, digits.validation)), abs=1e-6)


def test_a_run_is_evaluated_after_every_chunk_and_at_both_ends(short):
    np.testing.assert_array_equal(short.eval_steps, [0, 5, 10, 15, 20, 23])
    assert short.train_loss.shape == short.validation_loss.shape == short.metric.shape == (6,)
    assert (short.steps, short.loss.shape, short.ended, short.diverged_at) == (23, (23,), "finished", -1)
    assert (short.problem, short.metric_name, short.higher_is_better) == ("digits", "accuracy", True)


def test_all_chunks_of_a_run_share_one_trace(digits, key, counted):
    tx, calls = counted(gradtx.sgd(0.1))
    lab.run(digits, tx, steps=23, key=key, batch_size=16, eval_every=5)
    assert len(calls) == 1


def test_the_length_of_the_chunks_does_not_change_the_numbers(digits, key, short):
    again = lab.run(digits, PIPELINE, steps=23, key=key, batch_size=32, eval_every=23)
    np.testing.assert_array_equal(short.loss, again.loss)


def test_a_run_of_sgd_on_a_landscape_is_gradient_descent(key):
    f = landscapes.quadratic(10.0)
    history = lab.run(f, gradtx.sgd(0.05), steps=30, key=key)
    rates = 1 - 0.05 * np.array([1.0, 10.0])
    np.testing.assert_allclose(history.iterates, rates ** np.arange(31)[:, None], rtol=1e-5)
    np.testing.assert_allclose(history.loss, [float(f(x)) for x in history.iterates[:-1]], rtol=1e-5)
    np.testing.assert_array_equal(history.params, history.iterates[-1])


def test_more_samples_per_step_average_the_noise_of_a_landscape(key):
    f = landscapes.noisy(landscapes.quadratic(1.0), 1.0)
    spread = {
        size: np.std(lab.run(f, gradtx.sgd(0.1), steps=2000, key=key, batch_size=size).iterates[500:])
        for size in (1, 16)
    }
    assert spread[1] / spread[16] == pytest.approx(4.0, rel=0.15)  # √16


def test_the_same_key_gives_the_same_run_and_another_key_another_run(digits, key, short):
    again = lab.run(digits, PIPELINE, steps=23, key=key, batch_size=32, eval_every=5)
    np.testing.assert_array_equal(again.loss, short.loss)
    assert_same(again.params, short.params)
    old = lab.run(digits, PIPELINE, steps=23, key=jax.random.PRNGKey(3), batch_size=32, eval_every=5)
    np.testing.assert_array_equal(old.loss, short.loss)
    other = lab.run(digits, PIPELINE, steps=23, key=jax.random.key(4), batch_size=32, eval_every=5)
    assert not np.isclose(other.loss[0], short.loss[0])


def test_scalar_and_vector_readings_are_recorded_at_each_step(digits, key, watch):
    history = lab.run(digits, optax.chain(watch, gradtx.sgd(0.1)), steps=12, key=key, eval_every=5)
    assert set(history.readings) == {"watch/norm", "watch/norms", "watch/first"}
    assert history.readings["watch/norms"].shape == (12, 4)
    np.testing.assert_allclose(
        history.readings["watch/norm"], np.linalg.norm(history.readings["watch/norms"], axis=1), rtol=1e-5
    )
    np.testing.assert_array_equal(history.readings["watch/first"], history.readings["watch/norms"][:, 0])


def test_batch_sizes_follow_their_schedule_and_each_size_compiles_once(digits, key, counted):
    tx, calls = counted(gradtx.sgd(0.1))
    history = lab.run(
        digits, tx, steps=20, key=key, batch_size_schedule=lambda k: 8 if k < 7 or k >= 15 else 32, eval_every=4
    )
    np.testing.assert_array_equal(history.batch_sizes, [8] * 7 + [32] * 8 + [8] * 5)
    assert len(calls) == 2
    np.testing.assert_array_equal(history.eval_steps, [0, 4, 7, 11, 15, 19, 20])
    constant = lab.run(digits, tx, steps=20, key=key, batch_size=8, eval_every=4)
    np.testing.assert_array_equal(history.loss[:7], constant.loss[:7])


def test_batch_size_all_uses_the_whole_training_set(key):
    problem = lab.problems.diabetes()
    history = lab.run(problem, gradtx.sgd(0.05), steps=5, key=key, batch_size="all", eval_every=1)
    np.testing.assert_allclose(history.loss, history.train_loss[:-1], rtol=1e-5)  # no example was left out
    assert (history.batch_sizes == 353).all()


def test_methods_that_need_the_loss_receive_it(key):
    problem = lab.problems.diabetes()
    newton = lab.run(problem, gradtx.newton(), steps=1, key=key, batch_size="all")
    assert newton.train_loss[-1] == pytest.approx(problem.optimum, rel=1e-5)
    search = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=8))
    searched = lab.run(problem, search, steps=30, key=key, batch_size="all")
    assert (np.diff(searched.loss) < 0).all()  # a line search does not raise the loss


def test_ctrl_c_returns_the_steps_that_are_done(digits, key, short):
    def breaks(step, params, evaluation):
        if step == 10:
            raise KeyboardInterrupt

    history = lab.run(digits, PIPELINE, steps=23, key=key, batch_size=32, eval_every=5, callbacks=[breaks])
    assert (history.ended, history.steps) == ("interrupted", 10)
    np.testing.assert_array_equal(history.loss, short.loss[:10])
    np.testing.assert_array_equal(history.metric, short.metric[:3])
    assert len(history.batch_sizes) == 10


def test_a_callback_receives_the_evaluation_and_may_end_the_run(key):
    seen = []

    def callback(step, params, evaluation):
        seen.append((step, params.shape, evaluation))
        return evaluation["metric"] < 0.1

    history = lab.run(landscapes.quadratic(2.0), gradtx.sgd(0.3), steps=50, key=key, eval_every=2, callbacks=[callback])
    assert history.ended == "stopped"
    assert history.metric[-1] < 0.1 < history.metric[-2]
    assert [step for step, _, _ in seen] == history.eval_steps[1:].tolist()
    assert set(seen[0][2]) == {"train_loss", "validation_loss", "metric"}


def test_early_stopping_ends_the_run_after_three_evaluations_without_improvement(digits, key):
    stopping = gradtx.early_stopping(patience=3, mode="max")
    history = lab.run(digits, gradtx.sgd(1.0), steps=400, key=key, eval_every=10, stopping=stopping)
    assert history.ended == "stopped early"
    best = np.maximum.accumulate(history.metric)
    assert best[-1] == best[-4] > best[-5]  # the last three were not better, and before that no three in a row
    assert all(best[i] > best[i - 3] for i in range(3, len(best) - 1))


@pytest.mark.parametrize("mode", [None, "max"])
def test_early_stopping_takes_its_direction_from_the_problem(digits, key, mode):
    stopping = gradtx.early_stopping(3) if mode is None else gradtx.early_stopping(3, mode=mode)
    history = lab.run(digits, gradtx.sgd(0.3), steps=30, key=key, eval_every=3, stopping=stopping)
    assert history.metric[-1] > history.metric[0] + 0.3  # the metric rises all the time
    assert history.ended == "finished"


def test_early_stopping_in_the_wrong_direction_is_refused(digits, key):
    for problem, mode, message in (
        (digits, "min", "mode 'min', but a higher accuracy of digits is better: leave mode out, or give mode='max'"),
        (landscapes.saddle, "max", "mode 'max', but a lower value of saddle is better: .* give mode='min'"),
    ):
        with pytest.raises(ValueError, match=f"run: stopping has {message}"):
            lab.run(problem, gradtx.sgd(0.1), steps=3, key=key, stopping=gradtx.early_stopping(3, mode=mode))


def test_the_best_parameters_are_those_of_the_best_metric(digits, key):
    stopping = gradtx.early_stopping(patience=3)
    tx = gradtx.sgd(1.0, momentum=0.9, nesterov=True)
    history = lab.run(digits, tx, steps=200, key=key, eval_every=5, stopping=stopping)
    assert history.ended == "stopped early"
    assert history.best_step == history.eval_steps[np.argmax(history.metric)] == history.eval_steps[-4]
    metric = float(digits.metric(history.best_params, digits.validation))
    assert metric == pytest.approx(history.metric.max(), abs=1e-6)
    assert metric > history.metric[-1]


def test_the_best_point_of_a_run_on_a_landscape_is_the_lowest(key):
    f = landscapes.quadratic(10.0)
    history = lab.run(f, gradtx.sgd(0.21), steps=20, key=key, eval_every=1)  # above 2/κ the loss falls, then grows
    lowest = np.argmin([float(f(x)) for x in history.iterates])
    assert history.best_step == lowest
    np.testing.assert_array_equal(history.best_params, history.iterates[lowest])


def test_a_run_that_diverges_keeps_its_last_finite_parameters(key):
    f = landscapes.quadratic(100.0)
    history = lab.run(f, gradtx.sgd(10.0), steps=40, key=key)
    k = history.diverged_at
    assert 0 < k < 39
    assert np.isfinite(history.loss[: k // 2]).all()  # the loss is a square and overflows about halfway
    assert np.isnan(history.loss[k + 1 :]).all()
    assert np.isfinite(history.params).all()
    np.testing.assert_array_equal(history.iterates[k:], np.broadcast_to(history.iterates[k], (41 - k, 2)))


def test_a_run_prints_nothing_unless_progress_is_true(key, capsys):
    for progress in (None, True):
        lab.run(landscapes.saddle, gradtx.sgd(0.1), steps=3, key=key, progress=progress)
        out, err = capsys.readouterr()
        assert (out, bool(err)) == ("", progress is True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "run: steps must be at least 1, got 0"),
        ({"steps": 2.0}, TypeError, r"run: steps must be an integer, got 2.0 \(float\)"),
        ({"eval_every": 0}, ValueError, "run: eval_every must be at least 1, got 0"),
        ({"key": 3}, TypeError, r"run: key must be a JAX random key, as jax.random.key\(0\), got 3"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, TypeError, "run: key must be a JAX random key"),
        ({"batch_size": 0}, ValueError, "run: batch_size must be at least 1 and at most 1437"),
        ({"batch_size": 2000}, ValueError, "at most 1437, the training set, or .all., got 2000"),
        ({"batch_size": "half"}, TypeError, "run: batch_size must be an integer or .all., got 'half'"),
        (
            {"batch_size": 8, "batch_size_schedule": lambda k: 8},
            ValueError,
            "batch_size or batch_size_schedule, not both",
        ),
        ({"batch_size_schedule": lambda k: 0}, ValueError, "run: batch_size must be at least 1"),
        ({"steps": 2**31}, ValueError, "run: steps must be at most 2147483647, got 2147483648"),
        ({"key": None}, TypeError, "run: key must be a JAX random key, .* got None"),
        ({"key": "0"}, TypeError, "run: key must be a JAX random key, .* got '0'"),
        ({"tx": gradtx.sgd}, TypeError, r"run: tx must be a gradient transformation, such as gradtx.sgd\(0.1\), got"),
        ({"tx": None}, TypeError, "run: tx must be a gradient transformation, .* got None"),
        ({"stopping": 3}, TypeError, r"run: stopping must be a gradtx.early_stopping\(...\) or None, got 3"),
        ({"callbacks": print}, TypeError, "run: callbacks must be a list of functions, got <built-in function print>"),
        ({"callbacks": ["print"]}, TypeError, r"run: callbacks must be a list of functions, got \['print'\]"),
        ({"batch_size_schedule": 8}, TypeError, r"batch_size_schedule must be a function of the step, got 8 \(int\)"),
        ({"problem": lab.digits}, TypeError, "run: the first argument must be a lab.Problem or"),
        ({"problem": "digits"}, TypeError, "must be a lab.Problem or a gradtx.landscapes.Landscape, got 'digits'"),
    ],
)
def test_bad_arguments_are_refused_with_name_and_rule(digits, key, arguments, error, message):
    given = {"problem": digits, "tx": gradtx.sgd(0.1), "steps": 5, "key": key} | arguments
    with pytest.raises(error, match=message):
        lab.run(given.pop("problem"), given.pop("tx"), **given)
    with pytest.raises(TypeError, match="got 'all'"):
        lab.run(landscapes.saddle, gradtx.sgd(0.1), steps=1, key=key, batch_size="all")
    with pytest.raises(ValueError, match="at least 1 and at most 2147483647, got 4294967296"):
        lab.run(landscapes.saddle, gradtx.sgd(0.1), steps=1, key=key, batch_size=2**32)


def test_parameters_may_be_half_precision_or_absent(key):
    def losses(params, x):
        return (x - params["w"].astype(jnp.float32)) ** 2

    x = jnp.arange(8.0)
    problem = lab.Problem(
        name="half", description="", init=lambda key: {"w": jnp.zeros((), jnp.bfloat16), "none": None}, losses=losses,
        metric=lambda params, x: losses(params, x).mean(), train=x, validation=x, higher_is_better=False,
    )  # fmt: skip
    history = lab.run(problem, gradtx.sgd(0.1, momentum=0.5), steps=40, key=key, batch_size="all")
    assert history.params["w"].dtype == jnp.bfloat16
    assert float(history.params["w"]) == pytest.approx(3.5, rel=0.02)
