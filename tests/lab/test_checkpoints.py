"""An interrupted run that is resumed from its checkpoint is bit-equal to an uninterrupted one."""

import os
import resource
import signal
import sys
import warnings
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from tests.comparing import assert_same


def break_at(when):
    def callback(step, params, evaluation):
        if step == when:
            raise KeyboardInterrupt

    return callback


@pytest.fixture(scope="module")
def settings(digits, key, watch):
    tx = optax.chain(watch, gradtx.clip_by_global_norm(1.0), gradtx.adam(0.01))
    return {"problem": digits, "tx": tx, "key": key, "eval_every": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def whole(settings):
    return lab.run(**settings, steps=18)


def test_a_resumed_run_is_bit_equal_including_readings_and_evaluations(settings, whole, tmp_path):
    broken = lab.run(**settings, steps=18, checkpoint=tmp_path / "run", callbacks=[break_at(8)])
    assert (broken.ended, broken.steps) == ("interrupted", 8)
    resumed = lab.run(**settings, steps=18, checkpoint=tmp_path / "run")
    assert_same(resumed, whole)
    again = lab.run(**settings, steps=18, checkpoint=str(tmp_path / "run"))  # no step is left
    assert_same(again, whole)


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_and_ends_the_program_and_the_run_can_be_resumed(settings, whole, tmp_path, capsys):
    def told_to_end(step, params, evaluation):
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        lab.run(**settings, steps=18, checkpoint=tmp_path, callbacks=[told_to_end])
    assert stop.value.code == 143
    said = f"run: ended by SIGTERM; the checkpoint in {tmp_path} goes on from step 8."
    assert said in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_same(lab.run(**settings, steps=18, checkpoint=tmp_path), whole)


def test_a_finished_run_can_be_continued_for_more_steps(settings, whole, tmp_path):
    lab.run(**settings, steps=8, checkpoint=tmp_path)
    assert_same(lab.run(**settings, steps=18, checkpoint=tmp_path), whole)


def test_a_run_on_a_landscape_without_instruments_can_be_resumed(key, tmp_path):
    f, tx = landscapes.noisy(landscapes.rosenbrock, 0.1), gradtx.sgd(0.001, momentum=0.9, nesterov=True)
    lab.run(f, tx, steps=30, key=key, eval_every=10, checkpoint=tmp_path, callbacks=[break_at(20)])
    resumed = lab.run(f, tx, steps=30, key=key, eval_every=10, checkpoint=tmp_path)
    assert_same(resumed, lab.run(f, tx, steps=30, key=key, eval_every=10))


def test_early_stopping_keeps_its_state_when_a_run_is_resumed(key, tmp_path):
    f, stopping = landscapes.quadratic(100.0), gradtx.early_stopping(patience=4)
    settings = {"key": key, "eval_every": 1, "stopping": stopping, "steps": 50}
    tx = gradtx.sgd(0.0201)  # above 2/κ the steepest coordinate grows, and soon so does the loss
    whole = lab.run(f, tx, **settings)
    assert whole.ended == "stopped early"
    lab.run(f, tx, **settings, checkpoint=tmp_path, callbacks=[break_at(whole.steps - 2)])
    resumed = lab.run(f, tx, **settings, checkpoint=tmp_path)
    assert_same(resumed, whole)
    assert_same(lab.run(f, tx, **settings, checkpoint=tmp_path), whole)  # resuming a stopped run takes no step


def test_a_checkpoint_of_another_run_is_refused(settings, whole, tmp_path):
    lab.run(**settings, steps=4, checkpoint=tmp_path)
    other = settings | {"key": jax.random.key(9)}
    with pytest.raises(ValueError, match=r"is of another run: it was made with another key\. Resume it with the arg"):
        lab.run(**other, steps=18, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"it has other batch sizes, or more steps \(4\) than this run"):
        lab.run(**(settings | {"batch_size": 8}), steps=18, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="its transformation differ"):
        lab.run(**(settings | {"tx": gradtx.sgd(0.1)}), steps=18, checkpoint=tmp_path)


WALK = {"steps": 4, "eval_every": 2}
BOWL = landscapes.quadratic(10.0)


@pytest.mark.parametrize(
    ("made_by", "resumed_by", "first"),
    [
        (gradtx.rmsprop(0.01), gradtx.adagrad(0.01), r"ScaleByRmsState\.mean_square.*ScaleByAdagradState\.sum_of"),
        (optax.sgd(0.1, 0.9), optax.chain(optax.scale_by_rss(), optax.scale(-0.1)), r"TraceState\.trace.*ByRssState"),
        (gradtx.sgd(0.1, 0.9), gradtx.sgd(0.1, 0.9, nesterov=True), r"HeavyBallState.*NesterovState"),
        (optax.adam(0.1), optax.amsgrad(0.1), r"ScaleByAdamState\.count.*ScaleByAmsgradState\.count"),
        (gradtx.adam(0.1), gradtx.skip_nonfinite(gradtx.adam(0.1)), "ScaleByAdamState.*SkipNonfiniteState"),
        (optax.chain(optax.trace(0.9), gradtx.rmsprop(0.1)), gradtx.rmsprop(0.1), r"TraceState\.trace.*ScaleByRms"),
    ],
)
def test_a_checkpoint_of_another_method_with_equal_shapes_is_refused(made_by, resumed_by, first, key, tmp_path):
    lab.run(BOWL, made_by, key=key, checkpoint=tmp_path, **WALK)
    with pytest.raises(ValueError, match=f"its transformation differ: it has .*{first}"):
        lab.run(BOWL, resumed_by, key=key, checkpoint=tmp_path, **(WALK | {"steps": 8}))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (landscapes.rosenbrock, "it is of a problem whose name is 'quadratic', this run's is 'rosenbrock'"),
        (landscapes.quadratic(20.0), "has this name, but another loss at the same first parameters"),
        (landscapes.quadratic(10.0, dim=3), r"whose start is \[1.0, 1.0\], this run's is \[1.0, 1.0, 1.0\]"),
        (landscapes.noisy(BOWL, 0.1), "whose name is 'quadratic', this run's is 'noisy_quadratic'"),
    ],
)
def test_a_checkpoint_of_another_landscape_is_refused_with_the_difference(other, message, key, tmp_path):
    lab.run(BOWL, gradtx.sgd(0.1), key=key, checkpoint=tmp_path, **WALK)
    with pytest.raises(ValueError, match=message):
        lab.run(other, gradtx.sgd(0.1), key=key, checkpoint=tmp_path, **(WALK | {"steps": 8}))
    noisy = landscapes.noisy(BOWL, 0.1)
    lab.run(noisy, gradtx.sgd(0.1), key=key, checkpoint=tmp_path / "noisy", **WALK)
    with pytest.raises(ValueError, match=r"whose sigma is 0.1, this run's is 0.2"):
        lab.run(landscapes.noisy(BOWL, 0.2), gradtx.sgd(0.1), key=key, checkpoint=tmp_path / "noisy", **WALK)


def test_a_checkpoint_of_the_same_problem_with_other_data_is_refused(key, tmp_path):
    def mean_of(values):
        x = jnp.asarray(values)
        return lab.Problem(
            name="mean", description="", init=lambda key: jnp.zeros(()), losses=lambda p, batch: (batch - p) ** 2,
            metric=lambda p, batch: abs(p - batch.mean()), train=x, validation=x, higher_is_better=False,
        )  # fmt: skip

    lab.run(mean_of([1.0, 2.0]), gradtx.sgd(0.1), key=key, checkpoint=tmp_path, **WALK)
    with pytest.raises(ValueError, match="another loss at the same first parameters"):
        lab.run(mean_of([1.0, 3.0]), gradtx.sgd(0.1), key=key, checkpoint=tmp_path, **WALK)


@pytest.mark.parametrize("wrap", [optax.chain, lambda *stages: gradtx.skip_nonfinite(optax.chain(*stages))])
def test_instruments_may_be_added_and_removed_at_a_checkpoint_with_a_warning(wrap, key, tmp_path):
    method = gradtx.sgd(0.1, momentum=0.9)
    plain, watched = wrap(method), wrap(gradtx.gradient_norm(), method, gradtx.trajectory())
    other = wrap(gradtx.panel(0.1), method)
    lab.run(BOWL, plain, steps=4, eval_every=2, key=key, checkpoint=tmp_path)
    with pytest.warns(UserWarning, match=r"instruments were added or removed since the checkpoint of step 4 .* anew"):
        longer = lab.run(BOWL, watched, steps=8, eval_every=2, key=key, checkpoint=tmp_path)
    with pytest.warns(UserWarning, match="checkpoint of step 8"):
        last = lab.run(BOWL, other, steps=10, eval_every=2, key=key, checkpoint=tmp_path)
    whole = lab.run(BOWL, plain, steps=10, eval_every=2, key=key)
    for name in ("loss", "iterates", "metric"):
        np.testing.assert_allclose(getattr(last, name), getattr(whole, name), rtol=1e-5)
    norm = longer.readings["gradient_norm/global"]
    assert np.isnan(norm[:4]).all()
    assert np.isfinite(norm[4:]).all()
    norms = last.readings["gradient_norm/global"]
    np.testing.assert_array_equal(norms[:8], norm)
    assert np.isfinite(norms[8:]).all()
    assert np.isnan(last.readings["trajectory/straightness"][8:]).all()


def test_a_custom_instrument_may_be_removed_at_a_checkpoint(watch, key, tmp_path):
    lab.run(BOWL, optax.chain(watch, gradtx.adam(0.1)), key=key, checkpoint=tmp_path, **WALK)
    with pytest.warns(UserWarning, match="start anew"):
        lab.run(BOWL, gradtx.adam(0.1), key=key, checkpoint=tmp_path, **(WALK | {"steps": 8}))


def test_parameters_in_named_tuples_are_not_taken_for_states(key, tmp_path):
    class Weights(NamedTuple):
        w: jax.Array
        b: jax.Array

    x = jnp.arange(4.0)
    problem = lab.Problem(
        name="line", description="", init=lambda key: Weights(jnp.zeros(()), jnp.zeros(())),
        losses=lambda p, batch: (batch * p.w + p.b - batch) ** 2, metric=lambda p, batch: jnp.abs(p.w - 1),
        train=x, validation=x, higher_is_better=False,
    )  # fmt: skip
    watched = optax.chain(gradtx.panel(0.01), gradtx.adam(0.01))
    lab.run(problem, watched, key=key, checkpoint=tmp_path, **WALK)
    with pytest.warns(UserWarning, match="start anew"):
        lab.run(problem, gradtx.adam(0.01), key=key, checkpoint=tmp_path, **(WALK | {"steps": 8}))


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_training(key, tmp_path):
    trained = []
    tx = optax.GradientTransformation(lambda p: trained.append(1) or (), lambda g, s, p=None: (g, s))
    (tmp_path / "file").write_text("mine")
    for path, rule in (
        (tmp_path / "file", f"run: checkpoint must be a folder, {tmp_path / 'file'} is a file"),
        (tmp_path / "file" / "below", "run: checkpoint must be a folder that can be written to"),
        ("/proc/nothing", "run: checkpoint must be a folder that can be written to, /proc/nothing"),
    ):
        with pytest.raises(ValueError, match=rule):
            lab.run(BOWL, tx, key=key, checkpoint=path, **WALK)
    assert not trained
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_folder_with_other_contents_is_refused(key, tmp_path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave({"weights": np.ones(3)}))
    with pytest.raises(ValueError, match="holds no checkpoint that this gradtx can read: give another folder"):
        lab.run(BOWL, gradtx.sgd(0.1), key=key, checkpoint=tmp_path, **WALK)


@contextmanager
def full_disk():
    """Makes writes fail as they do on a full disk, because no file may grow any more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_at_a_checkpoint_does_not_end_the_run_and_keeps_the_older_checkpoint(key, tmp_path):
    settings = {"problem": BOWL, "tx": gradtx.adam(0.1), "eval_every": 2, "key": key}
    whole = lab.run(**settings, steps=20)  # runs first, so that nothing is compiled on the full disk
    lab.run(**settings, steps=8, checkpoint=tmp_path)
    with full_disk(), pytest.warns(UserWarning, match=r"run: the checkpoint of step \d+ .* could not be written"):
        assert_same(lab.run(**settings, steps=20, checkpoint=tmp_path), whole)
    with full_disk(), warnings.catch_warnings():  # also if warnings are errors
        warnings.simplefilter("error", UserWarning)
        assert_same(lab.run(**settings, steps=20, checkpoint=tmp_path), whole)
    assert_same(lab.run(**settings, steps=20, checkpoint=tmp_path), whole)  # resumes from step 8


def test_a_resumed_run_keeps_its_best_parameters(digits, key, tmp_path):
    settings = {"steps": 12, "key": key, "eval_every": 2, "batch_size": 16}
    tx = gradtx.sgd(3.0, momentum=0.9)
    whole = lab.run(digits, tx, **settings)
    assert 0 < whole.best_step < 10
    lab.run(digits, tx, **settings, checkpoint=tmp_path, callbacks=[break_at(10)])
    assert_same(lab.run(digits, tx, **settings, checkpoint=tmp_path), whole)


def test_a_run_is_saved_before_its_first_step_and_may_have_empty_parameters_and_random_keys(key, tmp_path):
    x = jnp.arange(4.0)
    problem = lab.Problem(
        name="point", description="", init=lambda key: {"w": jnp.zeros(()), "none": jnp.zeros((0, 2))},
        losses=lambda p, batch: (batch - p["w"]) ** 2, metric=lambda p, batch: jnp.abs(p["w"]),
        train=x, validation=x, higher_is_better=False,
    )  # fmt: skip
    tx = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(1, impl="rbg")), gradtx.sgd(0.1))
    whole = lab.run(problem, tx, key=key, **WALK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["gradtx.lab.run"], "_train_chunk", lambda *_: break_at(0)(0, None, None))
        assert lab.run(problem, tx, key=key, checkpoint=tmp_path, **WALK).steps == 0
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    lab.run(problem, tx, key=key, checkpoint=tmp_path, callbacks=[break_at(2)], **WALK)
    assert_same(lab.run(problem, tx, key=key, checkpoint=tmp_path, **WALK), whole)


def test_the_error_for_a_missing_orbax_names_the_extra(key, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[checkpoints\]'"):
        lab.run(landscapes.saddle, gradtx.sgd(0.1), steps=1, key=key, checkpoint=tmp_path)
