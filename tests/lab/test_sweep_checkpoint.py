"""A sweep that was interrupted resumes from its checkpoint, and gives the numbers of an uninterrupted one."""

import os
import signal
import sys
from contextlib import contextmanager

import jax
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from tests.comparing import assert_same_sweep

BOWL = landscapes.noisy(landscapes.quadratic(10.0), 0.1)
KEYS = jax.random.split(jax.random.key(5), 2)
GRID = {"learning_rate": np.geomspace(0.01, 0.1, 12)}  # 24 members, which 8 devices train in three portions
SETTINGS = {"steps": 6, "keys": KEYS, "eval_every": 4, "memory_budget": 1}


def watched(learning_rate):
    return optax.chain(gradtx.gradient_norm(), gradtx.sgd(learning_rate, momentum=0.9))


@pytest.fixture(scope="module")
def whole():
    return lab.sweep(BOWL, watched, GRID, **SETTINGS)


@contextmanager
def portions(monkeypatch, before=None, then=lambda: None):
    """Counts the trained portions, and calls `then` before the one with that number."""
    module, trained = sys.modules["gradtx.lab.member_parallel"], []
    real = module._train_members

    def train(*arguments):
        if len(trained) == before:
            then()
        trained.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_train_members", train)
        yield trained


def ctrl_c():
    raise KeyboardInterrupt


def test_an_interrupted_sweep_trains_only_the_missing_members_when_it_is_resumed(whole, tmp_path, monkeypatch):
    with portions(monkeypatch, 2, ctrl_c):
        part = lab.sweep(BOWL, watched, GRID, **SETTINGS, checkpoint=tmp_path)
    assert part.finished.sum() == 8
    with portions(monkeypatch) as trained:
        assert_same_sweep(lab.sweep(BOWL, watched, GRID, **SETTINGS, checkpoint=str(tmp_path)), whole)
        assert len(trained) == 2
        assert_same_sweep(lab.sweep(BOWL, watched, GRID, **SETTINGS, checkpoint=tmp_path), whole)
        assert len(trained) == 2  # nothing is left


def test_the_best_point_of_a_random_grid_is_the_same_after_an_interrupt(tmp_path, monkeypatch):
    grid = lab.random_grid({"learning_rate": (0.01, 0.1)}, 12, jax.random.key(0))
    with portions(monkeypatch, 2, ctrl_c):
        lab.sweep(BOWL, gradtx.sgd, grid, **SETTINGS, checkpoint=tmp_path)
    resumed = lab.sweep(BOWL, gradtx.sgd, grid, **SETTINGS, checkpoint=tmp_path)
    assert_same_sweep(resumed, lab.sweep(BOWL, gradtx.sgd, grid, **SETTINGS))


def test_sigterm_saves_the_finished_members_and_ends_the_program(whole, tmp_path, monkeypatch, capsys):
    with portions(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit) as stop:
        lab.sweep(BOWL, watched, GRID, **SETTINGS, checkpoint=tmp_path)
    assert stop.value.code == 143
    said = f"sweep: ended by SIGTERM; the checkpoint in {tmp_path} goes on from step 8."
    assert said in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert_same_sweep(lab.sweep(BOWL, watched, GRID, **SETTINGS, checkpoint=tmp_path), whole)


def test_a_checkpoint_of_another_sweep_is_refused_with_the_difference(tmp_path, key):
    lab.sweep(BOWL, gradtx.rmsprop, GRID, **SETTINGS, checkpoint=tmp_path)
    mesh = jax.make_mesh((8,), ("data",))
    for changes, difference in (
        ({"steps": 7}, "its steps is 6, here 7"),
        ({"keys": KEYS[::-1]}, "its keys is"),
        ({"batch_size": 2}, "its batch size is 1, here 2"),
        ({"grid": {"learning_rate": [0.1]}}, r"its grid is .*, here {'learning_rate': \[0.1\]}"),
        ({"make_tx": gradtx.adagrad}, "its transformation differ: .*ScaleByRmsState.mean.*ScaleByAdagradState.sum"),
        ({"problem": landscapes.noisy(landscapes.quadratic(20.0), 0.1)}, "another loss at the same first parameters"),
        ({"problem": landscapes.saddle}, "it is of a problem whose name"),
        ({"mesh": mesh}, "its mesh is 'none', here 'given'"),
    ):
        given = {"problem": BOWL, "make_tx": gradtx.rmsprop, "grid": GRID} | SETTINGS | changes
        with pytest.raises(ValueError, match=f"sweep: the checkpoint in .* is of another run: .*{difference}"):
            lab.sweep(**given, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"run: the checkpoint in .* is of another run: lab\.sweep made it"):
        lab.run(BOWL, gradtx.rmsprop(0.1), steps=6, key=key, checkpoint=tmp_path)


def test_a_folder_that_cannot_hold_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"sweep: checkpoint must be a folder, {tmp_path / 'file'} is a file"):
        lab.sweep(BOWL, gradtx.sgd, GRID, **SETTINGS, checkpoint=tmp_path / "file")
    (tmp_path / "description.json").write_text("{}")
    with pytest.raises(ValueError, match="an older gradtx wrote it"):
        lab.sweep(BOWL, gradtx.sgd, GRID, **SETTINGS, checkpoint=tmp_path)


def test_the_error_for_a_missing_orbax_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ModuleNotFoundError, match=r"sweep: checkpoint needs Orbax: pip install .*\[checkpoints\]'"):
        lab.sweep(BOWL, gradtx.sgd, GRID, **SETTINGS, checkpoint=tmp_path)
