"""A run that was broken off goes on from its checkpoint as if nothing had happened, bit for bit."""

import sys

import jax
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes


def break_at(when):
    def callback(step, params, evaluation):
        if step == when:
            raise KeyboardInterrupt

    return callback


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)  # the plain values are part of it
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def settings(digits, key, watch):
    tx = optax.chain(watch, gradtx.clip_by_global_norm(1.0), gradtx.adam(0.01))
    return {"problem": digits, "tx": tx, "key": key, "eval_every": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def whole(settings):
    return lab.run(**settings, steps=18)


def test_resuming_is_bit_exact_readings_and_evaluations_included(settings, whole, tmp_path):
    broken = lab.run(**settings, steps=18, checkpoint=tmp_path / "run", callbacks=[break_at(8)])
    assert (broken.ended, broken.steps) == ("interrupted", 8)
    resumed = lab.run(**settings, steps=18, checkpoint=tmp_path / "run")
    assert_same(resumed, whole)
    again = lab.run(**settings, steps=18, checkpoint=str(tmp_path / "run"))  # nothing is left to do
    assert_same(again, whole)


def test_a_finished_run_may_be_lengthened(settings, whole, tmp_path):
    lab.run(**settings, steps=8, checkpoint=tmp_path)
    assert_same(lab.run(**settings, steps=18, checkpoint=tmp_path), whole)


def test_a_walk_without_instruments_resumes_too(key, tmp_path):
    f, tx = landscapes.noisy(landscapes.rosenbrock, 0.1), gradtx.sgd(0.001, momentum=0.9, nesterov=True)
    lab.run(f, tx, steps=30, key=key, eval_every=10, checkpoint=tmp_path, callbacks=[break_at(20)])
    resumed = lab.run(f, tx, steps=30, key=key, eval_every=10, checkpoint=tmp_path)
    assert_same(resumed, lab.run(f, tx, steps=30, key=key, eval_every=10))


def test_early_stopping_remembers_what_it_saw(key, tmp_path):
    f, stopping = landscapes.quadratic(100.0), gradtx.early_stopping(patience=4)
    settings = {"key": key, "eval_every": 1, "stopping": stopping, "steps": 50}
    tx = gradtx.sgd(0.0201)  # beyond 2/κ: the steepest coordinate grows, after a while faster than the rest falls
    whole = lab.run(f, tx, **settings)
    assert whole.ended == "stopped early"
    lab.run(f, tx, **settings, checkpoint=tmp_path, callbacks=[break_at(whole.steps - 2)])
    resumed = lab.run(f, tx, **settings, checkpoint=tmp_path)
    assert_same(resumed, whole)
    assert_same(lab.run(f, tx, **settings, checkpoint=tmp_path), whole)  # it stays stopped


def test_a_checkpoint_of_another_run_is_refused(settings, whole, tmp_path):
    lab.run(**settings, steps=4, checkpoint=tmp_path)
    other = settings | {"key": jax.random.key(9)}
    with pytest.raises(ValueError, match="is of a run with another key"):
        lab.run(**other, steps=18, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="with other batch sizes, or a longer one"):
        lab.run(**(settings | {"batch_size": 8}), steps=18, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="is of another problem or transformation"):
        lab.run(**(settings | {"tx": gradtx.sgd(0.1)}), steps=18, checkpoint=tmp_path)


def test_without_orbax_the_error_names_the_extra(key, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gradtx\[checkpoints\]'"):
        lab.run(landscapes.saddle, gradtx.sgd(0.1), steps=1, key=key, checkpoint=tmp_path)
