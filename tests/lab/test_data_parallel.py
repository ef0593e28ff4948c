"""Minibatches split over the devices of a mesh train like whole ones. A sweep resumes on any number of devices."""

from contextlib import contextmanager

import jax
import numpy as np
import optax
import pytest

import gradtx
from gradtx import lab, landscapes
from gradtx.lab import data_parallel
from gradtx.lab.distributed import put, whole_mesh
from gradtx.lab.members import Outcome
from gradtx.lab.sweep_checkpoint import Progress, SweepCheckpoint
from gradtx.lab.training import Carry, Evaluation
from tests.comparing import assert_same, assert_same_sweep

pytestmark = pytest.mark.slow

GRID = {"learning_rate": np.array([0.1, 0.3])}
SETTINGS = {"steps": 19, "keys": jax.random.split(jax.random.key(0), 2), "batch_size": 16, "eval_every": 4}
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
BOWL = landscapes.noisy(landscapes.quadratic(10.0), 0.1)


def momentum(learning_rate):
    return gradtx.sgd(learning_rate, momentum=0.9)


def mesh_of(devices):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


@pytest.fixture(scope="module")
def uninterrupted(digits):
    return lab.sweep(digits, momentum, GRID, mesh=whole_mesh(), **SETTINGS)


def test_minibatches_split_over_eight_devices_train_like_whole_ones(digits, uninterrupted):
    alone = lab.sweep(digits, momentum, GRID, progress=False, **SETTINGS)
    assert_same_sweep(uninterrupted, alone, **CLOSE)


def test_only_the_devices_of_a_mesh_matter(digits, uninterrupted):
    explicit = jax.make_mesh((2, 4), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    assert_same_sweep(lab.sweep(digits, momentum, GRID, mesh=explicit, **SETTINGS), uninterrupted)


def test_a_minibatch_that_the_devices_do_not_divide_trains_like_a_whole_one():
    grid = lab.random_grid({"learning_rate": (0.01, 0.1)}, 3, jax.random.key(0))
    settings = {"steps": 4, "keys": jax.random.split(jax.random.key(0), 2), "batch_size": 5}
    alone = lab.sweep(BOWL, gradtx.sgd, grid, **settings)
    assert_same_sweep(lab.sweep(BOWL, gradtx.sgd, grid, mesh=whole_mesh(), **settings), alone, **CLOSE)


class DiedError(Exception):
    pass


@contextmanager
def dies_after(saves, monkeypatch, error=DiedError):
    """Makes the process die after this many checkpoints."""
    real, made = SweepCheckpoint.save, []

    def save(self, *args):
        real(self, *args)
        made.append(1)
        if len(made) == saves:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(SweepCheckpoint, "save", save)
        yield


def test_a_sweep_resumed_from_a_checkpoint_is_bit_equal(digits, uninterrupted, tmp_path, monkeypatch):
    on_mesh = {"mesh": whole_mesh(), "checkpoint": tmp_path}
    with dies_after(2, monkeypatch), pytest.raises(DiedError):
        lab.sweep(digits, momentum, GRID, **on_mesh, **SETTINGS)
    assert_same_sweep(lab.sweep(digits, momentum, GRID, **on_mesh, **SETTINGS), uninterrupted)
    with dies_after(1, monkeypatch):  # no training is left
        assert_same_sweep(lab.sweep(digits, momentum, GRID, **on_mesh, **SETTINGS), uninterrupted)


def test_a_sweep_can_be_resumed_with_another_number_of_devices(digits, uninterrupted, tmp_path, monkeypatch):
    with dies_after(3, monkeypatch), pytest.raises(DiedError):
        lab.sweep(digits, momentum, GRID, mesh=whole_mesh(), checkpoint=tmp_path, **SETTINGS)
    resumed = lab.sweep(digits, momentum, GRID, mesh=mesh_of(2), checkpoint=tmp_path, **SETTINGS)
    np.testing.assert_array_equal(resumed.loss[..., :12], uninterrupted.loss[..., :12])
    assert_same_sweep(resumed, uninterrupted, **CLOSE)


def test_ctrl_c_saves_the_steps_done_and_the_noise_of_a_method_goes_on_after_them(tmp_path, monkeypatch):
    def noisy(learning_rate):
        return optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(1)), gradtx.sgd(learning_rate))

    settings = {"steps": 10, "keys": SETTINGS["keys"], "eval_every": 1, "mesh": mesh_of(2)}
    whole = lab.sweep(BOWL, noisy, GRID, **settings)
    chunks = []

    def is_end_wanted():
        chunks.append(1)
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(data_parallel, "is_end_wanted", is_end_wanted)
    with pytest.raises(KeyboardInterrupt):
        lab.sweep(BOWL, noisy, GRID, **settings, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]  # the schedule saves even steps
    assert_same_sweep(lab.sweep(BOWL, noisy, GRID, **settings, checkpoint=tmp_path), whole)


def test_two_devices_read_a_checkpoint_of_eight_devices_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    cut = [jax.sharding.NamedSharding(mesh, jax.P("data")) for mesh in (whole_mesh(), mesh_of(2))]
    described = {"problem": {}, "parameters": [], "transformation": [], "instruments": [], "evaluations": []}
    outcome = Outcome(values, {"a/b": values}, Evaluation(values, values, values), np.arange(16))

    def carry(sharding, values):
        return Carry(put(sharding, values), (), put(sharding, np.arange(16)), put(sharding, np.arange(16)))

    SweepCheckpoint(tmp_path, described).save(Progress(1, outcome, carry(cut[0], values)))
    done, found, at_end = SweepCheckpoint(tmp_path, described).load(carry(cut[1], 0 * values))
    assert done == 1
    assert at_end.params.sharding == cut[1]
    np.testing.assert_array_equal(at_end.params, values)
    assert_same(found, outcome)


def test_a_checkpoint_of_another_method_is_refused_by_name(digits, tmp_path, monkeypatch):
    on_mesh = {"mesh": whole_mesh(), "checkpoint": tmp_path}
    with dies_after(1, monkeypatch), pytest.raises(DiedError):
        lab.sweep(digits, gradtx.rmsprop, GRID, **on_mesh, **SETTINGS)
    with pytest.raises(ValueError, match=r"its transformation differ: .*ScaleByRmsState.mean.*ScaleByAdagradState.su"):
        lab.sweep(digits, gradtx.adagrad, GRID, **on_mesh, **SETTINGS)


def test_arguments_that_do_not_say_how_devices_share_the_work_are_refused():
    settings = {"steps": 2, "keys": SETTINGS["keys"]}
    with pytest.raises(TypeError, match=r"sweep: mesh must be a jax.sharding.Mesh, such as jax.make_mesh.* got 8"):
        lab.sweep(BOWL, gradtx.sgd, GRID, mesh=8, **settings)
    with pytest.raises(ValueError, match="all members are trained side by side: omit at_once, got 1"):
        lab.sweep(BOWL, gradtx.sgd, GRID, mesh=whole_mesh(), at_once=1, **settings)
