"""Processes read disjoint parts of each minibatch, for any number of processes and any first step."""

import jax
import numpy as np
import pytest

import gradtx

DATA = {"x": np.arange(40.0).reshape(20, 2), "y": np.arange(20)}
BATCHES = np.asarray(gradtx.shuffled_epochs(jax.random.key(0), 20, 6, 4))


@pytest.mark.parametrize("processes", [1, 2, 4, 6])
def test_the_parts_of_the_processes_make_up_each_minibatch(processes):
    feeds = [gradtx.minibatch_feed(DATA, BATCHES, process=i, processes=processes) for i in range(processes)]
    for indices, *parts in zip(BATCHES, *feeds, strict=True):
        np.testing.assert_array_equal(np.concatenate([part["y"] for part in parts]), indices)
        np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts]), DATA["x"][indices])


def test_a_feed_can_start_at_any_step_with_another_number_of_processes():
    whole = [minibatch["y"] for minibatch in gradtx.minibatch_feed(DATA, BATCHES)]
    for start in range(len(BATCHES) + 1):
        rest = [gradtx.minibatch_feed(DATA, BATCHES, start=start, process=i, processes=3) for i in range(3)]
        joined = [np.concatenate([part["y"] for part in parts]) for parts in zip(*rest, strict=True)]
        assert len(joined) == len(whole) - start
        for got, expected in zip(joined, whole[start:], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_the_minibatches_of_a_feed_may_differ_in_size():
    growing = [np.arange(2), np.arange(5), np.arange(9)]
    assert [len(x["y"]) for x in gradtx.minibatch_feed(DATA, growing)] == [2, 5, 9]


def test_each_device_of_a_sharding_holds_its_part_of_the_minibatch():
    mesh = jax.make_mesh((2, 4), ("rows", "columns"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    sharding = jax.sharding.NamedSharding(mesh, jax.P("rows"))
    for indices, minibatch in zip(BATCHES, gradtx.minibatch_feed(DATA, BATCHES, sharding=sharding), strict=True):
        assert minibatch["x"].sharding == sharding
        assert {shard.data.shape for shard in minibatch["x"].addressable_shards} == {(3, 2)}
        np.testing.assert_array_equal(minibatch["x"], DATA["x"][indices])


def test_bad_arguments_are_refused_by_name():
    for arguments, message in (
        ({"start": 13}, "start must be from 0 to 12, the number of steps, got 13"),
        ({"process": 2, "processes": 2}, "process must be from 0 to 1, got 2"),
        ({"process": 0, "sharding": jax.sharding.SingleDeviceSharding(jax.devices()[0])}, "omit process"),
    ):
        with pytest.raises(ValueError, match=f"^minibatch_feed: .*{message}"):
            gradtx.minibatch_feed(DATA, BATCHES, **arguments)
    with pytest.raises(TypeError, match=r"^minibatch_feed: start must be an integer, got 0\.5"):
        gradtx.minibatch_feed(DATA, BATCHES, start=0.5)
