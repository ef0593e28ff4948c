"""On eight devices the state is sharded like the parameters, and the numbers are those of one device.

The compiled programs contain exactly the collectives that `tests/benchmarks/README.md` states.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding

import gradtx

P = jax.P
SPECS = {"w": P("x", None), "b": P("x"), "s": P()}  # FSDP splits arrays and replicates scalars


def tree(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "w": jax.random.normal(keys[0], (16, 4)),
        "b": jax.random.normal(keys[1], (8,)),
        "s": jax.random.normal(keys[2], ()),
    }


def mesh_of(kind):
    return jax.make_mesh((8,), ("x",), axis_types=(kind,))


def shardings(mesh):
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def layout_of_state(tx, state, mesh):
    """Returns the expected sharding of each leaf of a state: that of its parameter, or else replicated."""
    replicated = NamedSharding(mesh, P())
    return optax.tree.map_params(
        tx, lambda _, like: like, state, shardings(mesh), transform_non_params=lambda _: replicated
    )


TRANSFORMATIONS = {
    "clip, rmsprop, nesterov": lambda: optax.chain(
        gradtx.clip_by_global_norm(0.5), gradtx.rmsprop(0.1, momentum=0.9, nesterov=True)
    ),
    "adam": lambda: gradtx.adam(0.1),
    "adadelta": lambda: gradtx.adadelta(),
    "delta_bar_delta": lambda: gradtx.delta_bar_delta(0.1),
    "skip_nonfinite": lambda: gradtx.skip_nonfinite(gradtx.sgd(0.1, momentum=0.9)),
    "accumulate": lambda: gradtx.accumulate(gradtx.adam(0.1), every=2),
    "stale": lambda: gradtx.stale(gradtx.adagrad(0.1), delay=2),
}


def trained(tx, params, gradients, update):
    state = tx.init(params)
    for g in gradients:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_the_state_is_sharded_like_the_parameters_and_gives_the_numbers_of_one_device(name, kind):
    tx, mesh = TRANSFORMATIONS[name](), mesh_of(kind)
    gradients = [tree(k) for k in range(1, 5)]
    expected = trained(tx, tree(0), gradients, jax.jit(tx.update))
    with jax.set_mesh(mesh):
        params, *sharded = (jax.device_put(x, shardings(mesh)) for x in (tree(0), *gradients))
        first = tx.init(params)
        params, state = trained(tx, params, sharded, jax.jit(tx.update))
    for tree_of_arrays, layout in (
        (first, layout_of_state(tx, first, mesh)),
        (state, layout_of_state(tx, state, mesh)),
    ):
        for leaf, wanted in zip(jax.tree.leaves(tree_of_arrays), jax.tree.leaves(layout), strict=True):
            if leaf.ndim and leaf.size > 2:
                assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), (leaf.shape, leaf.sharding)
                if kind is AxisType.Explicit:
                    assert jax.typeof(leaf).sharding.spec == wanted.spec
    if kind is AxisType.Explicit:
        assert [jax.typeof(x) for x in jax.tree.leaves(first)] == [jax.typeof(x) for x in jax.tree.leaves(state)]
    for leaf, wanted in zip(jax.tree.leaves((params, state)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-6)


def test_fully_sharded_training_inside_shard_map_gives_the_numbers_of_one_device():
    """Each device has an eighth of parameters, state and minibatch. It gathers parameters and scatters gradients."""
    x, y = jax.random.normal(jax.random.key(1), (32, 16)), jax.random.normal(jax.random.key(2), (32, 4))

    def loss(w, x, y):
        return jnp.mean((x @ w - y) ** 2)

    def train(tx, gradient, w, x, y):
        def step(carry, _):
            w, state = carry
            updates, state = tx.update(gradient(w, x, y), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, tx.init(w)), length=4)[0][0]

    def sharded_gradient(part, x, y):
        whole = jax.lax.all_gather(part, "x", tiled=True)
        return jax.lax.psum_scatter(jax.grad(loss)(whole, x, y), "x", tiled=True) / 8

    def method(axis_name):
        return optax.chain(gradtx.clip_by_global_norm(0.3, axis_name=axis_name), gradtx.adam(0.1))

    w = tree(0)["w"]
    alone = jax.jit(lambda w: train(method(None), jax.grad(loss), w, x, y))(w)
    mapped = jax.shard_map(
        lambda w, x, y: train(method("x"), sharded_gradient, w, x, y),
        mesh=mesh_of(AxisType.Auto),
        in_specs=P("x"),
        out_specs=P("x"),
    )
    np.testing.assert_allclose(jax.jit(mapped)(w, x, y), alone, rtol=1e-5, atol=1e-6)


# The table in "Estimated cost at scale" of tests/benchmarks/README.md: bytes per parameter, collectives per step

BYTES = {
    "sgd": 0, "sgd, momentum": 4, "sgd, nesterov": 4, "delta_bar_delta": 8, "adagrad": 4, "rmsprop": 4,
    "rmsprop, nesterov": 8, "adadelta": 8, "adam": 8, "clip_by_value": 0, "clip_by_norm": 0, "clip_by_global_norm": 0,
    "clip_by_global_norm, adam": 8, "skip_nonfinite": 8, "accumulate": 12, "stale": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_the_state_takes_the_stated_bytes_per_bfloat16_parameter(name):
    n = 10_000
    state = jax.eval_shape(CHECKED[name][0]().init, jax.ShapeDtypeStruct((n,), jnp.bfloat16))
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) // n == BYTES[name]


CHECKED = {  # all-reduces at every step, and in the branch for squares that over- or underflow
    "sgd": (lambda: gradtx.sgd(0.1), 0, 0),
    "sgd, momentum": (lambda: gradtx.sgd(0.1, momentum=0.9), 0, 0),
    "sgd, nesterov": (lambda: gradtx.sgd(0.1, momentum=0.9, nesterov=True), 0, 0),
    "delta_bar_delta": (lambda: gradtx.delta_bar_delta(0.1), 0, 0),
    "adagrad": (lambda: gradtx.adagrad(0.1), 0, 0),
    "rmsprop": (lambda: gradtx.rmsprop(0.1), 0, 0),
    "rmsprop, nesterov": (lambda: gradtx.rmsprop(0.1, momentum=0.9, nesterov=True), 0, 0),
    "adadelta": (lambda: gradtx.adadelta(), 0, 0),
    "adam": (lambda: gradtx.adam(0.1), 0, 0),
    "clip_by_value": (lambda: gradtx.clip_by_value(1.0), 1, 0),
    "clip_by_norm": (lambda: gradtx.clip_by_norm(1.0), 1, 1),
    "clip_by_global_norm": (lambda: gradtx.clip_by_global_norm(1.0), 1, 1),
    "clip_by_global_norm, adam": (lambda: optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), 1, 1),
    "skip_nonfinite": (lambda: gradtx.skip_nonfinite(gradtx.adam(0.1)), 1, 0),
    "accumulate": (lambda: gradtx.accumulate(gradtx.adam(0.1), every=4), 0, 0),
    "stale": (lambda: gradtx.stale(gradtx.sgd(0.1), delay=2), 0, 0),
}


def collectives(compiled):
    """Counts collective operations in the entry computation, which runs at every step, and in the rest."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    entry, _, _ = compiled.as_text().partition("\nENTRY")[2].partition("\n}")
    everywhere = Counter(re.findall(rf"\s({kinds})(?:-start)?\(", compiled.as_text()))
    always = Counter(re.findall(rf"\s({kinds})(?:-start)?\(", entry))
    return always, everywhere - always


@pytest.mark.parametrize("name", CHECKED)
def test_an_update_of_sharded_arrays_has_exactly_the_stated_collectives(name):
    make_tx, always, rarely = CHECKED[name]
    tx, mesh = make_tx(), mesh_of(AxisType.Auto)
    params = jax.device_put(tree(0), shardings(mesh))
    state = tx.init(params)
    state = jax.device_put(state, layout_of_state(tx, state, mesh))
    update = jax.jit(lambda g, s, p: tx.update(g, s, p))
    at_each_step, in_branches = collectives(update.lower(params, state, params).compile())
    assert at_each_step == Counter({"all-reduce": always} if always else {})
    assert in_branches == Counter({"all-reduce": rarely} if rarely else {})


def test_a_data_parallel_step_with_clipping_has_one_all_reduce():
    tx, mesh = optax.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)), mesh_of(AxisType.Auto)
    replicated, cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("x"))
    params = jax.device_put({"w": jnp.ones((16, 4)), "b": jnp.ones(4)}, replicated)
    state = jax.device_put(tx.init(params), replicated)
    batch = jax.device_put((jnp.ones((32, 16)), jnp.ones((32, 4))), cut)

    def step(params, state, x, y):
        grads = jax.grad(lambda p: jnp.mean((x @ p["w"] + p["b"] - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    at_each_step, in_branches = collectives(jax.jit(step).lower(params, state, *batch).compile())
    assert at_each_step == Counter({"all-reduce": 1})
    assert not in_branches


def test_clipping_inside_shard_map_has_one_all_reduce_and_one_more_in_a_branch():
    tx, mesh = gradtx.clip_by_global_norm(1.0, axis_name="x"), mesh_of(AxisType.Auto)
    params = jax.device_put(tree(0), shardings(mesh))
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=mesh, in_specs=(SPECS,), out_specs=SPECS)
    at_each_step, in_branches = collectives(jax.jit(mapped).lower(params).compile())
    assert at_each_step == Counter({"all-reduce": 1})
    assert in_branches == Counter({"all-reduce": 1})
