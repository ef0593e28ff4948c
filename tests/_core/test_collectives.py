"""Reductions over mesh axes count a sharded array on every device and a replicated array once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx._core.collectives import largest_over_shards, shard_axes, summed, total_over_shards

GRID = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
P = jax.P


def test_a_sum_without_an_axis_is_the_array_itself():
    x = jnp.arange(3.0)
    assert summed(x, None) is x


@pytest.mark.parametrize(("axis_name", "expected"), [("a", 2.0), ("b", 4.0), (("a", "b"), 8.0)])
def test_a_sum_is_over_all_devices_of_the_axes(axis_name, expected):
    mapped = jax.shard_map(
        lambda: summed(jnp.ones(()), axis_name), mesh=GRID, in_specs=(), out_specs=P(), check_vma=False
    )
    assert float(jax.jit(mapped)()) == expected


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_axes_are_the_axes_along_which_an_array_differs_if_jax_tracks_them(check_vma):
    seen = {}

    def local(x):
        for axis_name in ("a", "b", ("a", "b"), None):
            seen[axis_name] = shard_axes(x, axis_name)
        return x

    jax.jit(jax.shard_map(local, mesh=GRID, in_specs=P("a"), out_specs=P("a"), check_vma=check_vma))(jnp.ones(2))
    untracked = {"a": ("a",), "b": ("b",), ("a", "b"): ("a", "b"), None: ()}
    assert seen == (untracked | {"b": (), ("a", "b"): ("a",)} if check_vma else untracked)


def test_totals_and_maxima_over_shards_equal_those_of_the_whole_arrays():
    x, y = jnp.arange(8.0), jnp.arange(4.0)

    def local(x, y):
        parts = [jnp.sum(x), jnp.sum(y), jnp.ones(())]
        largest = jnp.maximum(jnp.max(x), jnp.max(y))
        return total_over_shards(parts, ("a", "b"), jnp.float32), largest_over_shards(largest, ("a", "b"))

    mapped = jax.shard_map(local, mesh=GRID, in_specs=(P(("a", "b")), P("b")), out_specs=P())
    np.testing.assert_array_equal(jax.jit(mapped)(x, y), (28 + 6 + 1, 7))


def test_totals_over_shards_work_under_a_vmap_with_a_named_axis():
    totals = jax.vmap(lambda x: total_over_shards([x, 2 * x], "i", jnp.float32), axis_name="i")(jnp.arange(3.0))
    np.testing.assert_array_equal(totals, 9.0)
