"""Inside shard_map eight devices compute the numbers of one device, with shards or with separate minibatches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same

AUTO = (jax.sharding.AxisType.Auto,)
LINE = jax.make_mesh((8,), ("x",), axis_types=AUTO)
GRID = jax.make_mesh((2, 4), ("data", "model"), axis_types=AUTO * 2)
P = jax.P


def tree(seed, scale=1.0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return {"w": scale * jax.random.normal(keys[0], (16, 4)), "b": scale * jax.random.normal(keys[1], (4,))}


assert_close = partial(assert_same, rtol=2e-6)


CLIPPING = {
    "by value": gradtx.clip_by_value,
    "by norm": gradtx.clip_by_norm,
    "by global norm": gradtx.clip_by_global_norm,
}


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize("name", CLIPPING)
def test_clipping_shards_equals_clipping_the_whole_and_counts_replicated_leaves_once(name, scale):
    params, grads = tree(0), tree(1, scale)
    specs = {"w": P("x"), "b": P()}
    for limit in (0.7 * scale, 100 * scale):
        alone = CLIPPING[name](limit)
        expected = alone.update(grads, alone.init(params), params)
        tx = CLIPPING[name](limit, axis_name="x")

        def local(g, p, tx=tx):
            return tx.update(g, tx.init(p), p)

        mapped = jax.shard_map(local, mesh=LINE, in_specs=(specs, specs), out_specs=(specs, P()))
        assert_close(jax.jit(mapped)(grads, params), expected)


def test_clipping_over_two_mesh_axes_counts_each_part_once():
    grads = tree(1)
    specs = {"w": P("data", "model"), "b": P("model")}
    alone, tx = gradtx.clip_by_global_norm(0.5), gradtx.clip_by_global_norm(0.5, axis_name=("data", "model"))
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=GRID, in_specs=(specs,), out_specs=specs)
    assert_close(jax.jit(mapped)(grads), alone.update(grads, alone.init(grads))[0])


def test_every_leaf_counts_as_a_shard_without_the_check_of_varying_axes():
    grads = {"w": tree(1)["w"]}
    alone, tx = gradtx.clip_by_global_norm(0.5), gradtx.clip_by_global_norm(0.5, axis_name="x")
    mapped = jax.shard_map(
        lambda g: tx.update(g, tx.init(g))[0], mesh=LINE, in_specs=P("x"), out_specs=P("x"), check_vma=False
    )
    assert_close(jax.jit(mapped)(grads), alone.update(grads, alone.init(grads))[0])


def test_a_nan_in_one_shard_makes_the_whole_tree_nan_on_every_device():
    grads = tree(1)
    grads["w"] = grads["w"].at[3, 1].set(jnp.nan)
    tx = gradtx.clip_by_global_norm(0.5, axis_name="x")
    specs = {"w": P("x"), "b": P()}
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=LINE, in_specs=(specs,), out_specs=specs)
    assert all(bool(jnp.all(jnp.isnan(u))) for u in jax.tree.leaves(jax.jit(mapped)(grads)))


def test_clipping_without_an_axis_name_uses_the_norm_of_the_shard():
    tx = gradtx.clip_by_norm(1.0)
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=LINE, in_specs=P("x"), out_specs=P("x"))
    updates = jax.jit(mapped)(3 * jnp.ones(16))
    np.testing.assert_allclose(updates, 1 / np.sqrt(2), rtol=1e-6)


# Data parallelism: each device has a separate minibatch

X, Y = jax.random.normal(jax.random.key(2), (32, 16)), jax.random.normal(jax.random.key(3), (32, 4))


def loss(params, x, y):
    return jnp.mean((x @ params["w"] + params["b"] - y) ** 2)


def train_alone(tx, steps=3):
    params = tree(0)
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.grad(loss)(params, X, Y), state, params)
        params = optax.apply_updates(params, updates)
    return params


def train_on_eight(tx, local_gradient, check_vma, steps=3):
    @jax.jit
    @jax.shard_map(mesh=LINE, in_specs=(P(), P("x"), P("x")), out_specs=P(), check_vma=check_vma)
    def train(params, x, y):
        state = tx.init(params)
        for _ in range(steps):
            updates, state = tx.update(local_gradient(params, x, y), state, params)
            params = optax.apply_updates(params, updates)
        return params

    return train(tree(0), X, Y)


def of_own_parameters(params, x, y):
    def own(p):
        return jax.lax.pcast(p, "x", to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(p, "x")

    return jax.grad(loss)(jax.tree.map(own, params), x, y)


def of_the_mean_loss(params, x, y):
    return jax.grad(lambda p: jax.lax.pmean(loss(p, x, y), "x"))(params)


WAYS = {
    "own parameters": (of_own_parameters, True),
    "no check": (jax.grad(loss), False),
    "mean loss": (of_the_mean_loss, True),
}


@pytest.mark.parametrize("way", WAYS)
def test_minibatches_of_eight_devices_train_like_their_union_on_one_device(way):
    tx = optax.chain(gradtx.mean_across("x"), gradtx.clip_by_global_norm(0.5), gradtx.adam(0.1))
    without = optax.chain(gradtx.clip_by_global_norm(0.5), gradtx.adam(0.1))
    assert_close(train_on_eight(tx, *WAYS[way]), train_alone(without), rtol=1e-4, atol=1e-6)


def test_minibatches_are_weighted_and_one_of_weight_0_has_no_effect():
    examples = jnp.array([3.0, 1.0, 0.0, 5.0, 2.0, 2.0, 0.0, 1.0])
    gradients = jnp.arange(8.0).at[jnp.array([2, 6])].set(jnp.array([jnp.nan, jnp.inf]))
    tx = gradtx.mean_across("x")

    def local(g, w):
        return tx.update(g, tx.init(g), weight=w[0])

    mapped = jax.shard_map(local, mesh=LINE, in_specs=P("x"), out_specs=(P(), P()))
    mean, state = jax.jit(mapped)(gradients, examples)
    present = np.array([0, 1, 3, 4, 5, 7])
    np.testing.assert_allclose(mean, np.average(present, weights=np.asarray(examples)[present]), rtol=1e-6)
    assert float(state.mean_weight) == 14


def test_half_precision_gradients_are_averaged_in_float32():
    gradients = jnp.array([256.0, *[1.0] * 7], jnp.bfloat16)  # 256 + 1 is 256 in bfloat16
    tx = gradtx.mean_across("x")
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=LINE, in_specs=P("x"), out_specs=P())
    mean = jax.jit(mapped)(gradients)
    assert mean.dtype == jnp.bfloat16
    assert float(mean[0]) == float(jnp.bfloat16(263 / 8))


def test_a_mean_of_three_in_half_precision_is_rounded_once():
    gradients = jax.random.normal(jax.random.key(0), (3, 1000), jnp.bfloat16)
    tx = gradtx.mean_across("x")
    mean = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name="x")(gradients)[0]
    exact = jnp.asarray(np.mean(np.asarray(gradients, np.float64), axis=0), jnp.bfloat16)
    assert np.mean(np.asarray(mean != exact)) < 0.05  # ties may round to either side; rounding twice changes a third


def test_the_mean_of_large_gradients_does_not_overflow():
    tx = gradtx.mean_across("x")
    mapped = jax.shard_map(lambda g: tx.update(g, tx.init(g))[0], mesh=LINE, in_specs=P("x"), out_specs=P())
    np.testing.assert_allclose(jax.jit(mapped)(jnp.full(8, 3e38)), 3e38, rtol=1e-6)


@pytest.mark.parametrize("way", ["own parameters", "no check"])
def test_accumulated_micro_batches_are_averaged_across_devices_once(way):
    """The mean over devices is inside, the one over micro-batches outside. The step is that of all 32 examples."""
    tx = gradtx.accumulate(optax.chain(gradtx.mean_across("x"), gradtx.sgd(0.1, momentum=0.9)), every=2)

    local_gradient, check_vma = WAYS[way]

    @jax.jit
    @jax.shard_map(mesh=LINE, in_specs=(P(), P("x"), P("x")), out_specs=P(), check_vma=check_vma)
    def train(params, x, y):
        state = tx.init(params)
        for _ in range(2):
            for half in (slice(0, 1), slice(1, 4)):
                grads = local_gradient(params, x[half], y[half])
                updates, state = tx.update(grads, state, params, weight=x[half].shape[0])
                params = optax.apply_updates(params, updates)
        return params

    assert_close(train(tree(0), X, Y), train_alone(gradtx.sgd(0.1, momentum=0.9), steps=2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "factory", [gradtx.mean_across, lambda axis_name: gradtx.clip_by_norm(1.0, axis_name=axis_name)]
)
def test_an_axis_name_of_the_wrong_type_is_refused(factory):
    for wrong in (1, ["x"], ("x", 2)):
        with pytest.raises(TypeError, match="axis_name must be a string, a tuple of strings or None"):
            factory(wrong)
