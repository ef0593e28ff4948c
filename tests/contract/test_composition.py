"""Part E of the contract is composition with Optax and JAX: promises 26 to 28."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import assert_same, is_finite, types
from tests.contract.programs import loop, step, tree
from tests.contract.test_update import CLOSE, only, zeros_like
from tests.zoo import ROWS


def as_partition(tx):
    return optax.partition({"a": tx, "unused": optax.adam(1.0)}, lambda p: jax.tree.map(lambda _: "a", p))


COMPOSITIONS = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "named_chain": lambda tx: optax.named_chain(("tx", tx)),
    "masked callable": lambda tx: optax.masked(tx, lambda p: jax.tree.map(lambda _: True, p)),
    "masked prefix": lambda tx: optax.masked(tx, True),
    "masked nested": lambda tx: optax.masked(optax.masked(tx, True), True),
    "partition": as_partition,
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
    "skip_nonfinite": gradtx.skip_nonfinite,
}


# A composition may keep a state or pass on arguments wrongly. That depends on the kind of transformation. So in the
# first tier one row of each kind meets all compositions, and each other row meets two. The second tier has the rest.
ONE_OF_EACH_KIND = (
    "adam", "newton", "clip_by_global_norm", "accumulate", "stale", "packed", "skip_nonfinite", "stored_as", "chain"
)  # fmt: skip
# An instrument does not change its updates, so fewer of the compositions can fail for it.
FOR_INSTRUMENTS = ("named_chain", "masked nested", "partition", "MultiSteps")


def pairs():
    for number, row in enumerate(ROWS):
        names = FOR_INSTRUMENTS if row.is_instrument else tuple(COMPOSITIONS)
        first = {names[number % len(names)], names[(number + 3) % len(names)]}
        for name in names:
            is_first = name in first or row.name in ONE_OF_EACH_KIND or row.name == "observed"
            yield pytest.param(row, name, marks=() if is_first else pytest.mark.slow)


@pytest.mark.parametrize(("row", "composition"), list(pairs()), ids=str, indirect=["row"], scope="session")
def test_a_composition_gives_the_numbers_of_the_transformation_alone(row, made, composition):
    """Takes two steps. The types are checked by tracing, because `loop` turns a `cond` into a Python `if`."""
    tx = COMPOSITIONS[composition](made.tx)
    path = loop(row, tx, made.params, made.gradients[:2])
    assert_same([u for _, _, u in path], [u for _, _, u in made.path[:2]], **CLOSE)
    state = jax.eval_shape(tx.init, made.params)
    new = jax.eval_shape(lambda g, s, p: step(row, tx, g, s, p)[1], made.gradients[0], state, made.params)
    assert types(new) == types(state) == types(path[-1][1])


def test_a_mask_does_not_change_the_other_leaves(row, made):
    tx, grads = optax.masked(made.tx, {"w": True, "b": False, "s": True}), made.gradients[0]
    [(_, _, updates)] = loop(row, tx, made.params, [grads])
    assert_same(updates["b"], grads["b"])
    others = [{k: x[k] for k in ("w", "s")} for x in (made.params, grads)]
    [(_, _, expected)] = loop(row, made.tx, others[0], others[1:])
    assert_same({k: updates[k] for k in ("w", "s")}, expected, rtol=1e-6, atol=1e-7)


def test_a_frozen_leaf_gets_zero_updates(row, made):
    frozen = optax.transforms.selective_transform(made.tx, freeze_mask={"w": False, "b": True, "s": False})
    [(_, _, updates)] = loop(row, frozen, made.params, made.gradients[:1])
    assert_same(updates["b"], zeros_like(made.params["b"]))


# Both pass params that are not arguments of the loss.
@only(lambda row: not (row.needs_params or row.needs))
def test_parameters_stay_finite_under_lookahead_and_schedule_free(row, made):
    slow_and_fast = optax.LookaheadParams.init_synced(made.params)
    lookahead = optax.lookahead(made.tx, sync_period=2, slow_step_size=0.5)
    assert is_finite(loop(row, lookahead, slow_and_fast, made.gradients[:3])[-1][0])
    free = optax.contrib.schedule_free(made.tx, learning_rate=0.1, b1=0.9)
    assert is_finite(loop(row, free, made.params, made.gradients[:3])[-1][0])


# Other rows use norms or Hessians, which are those of one shard, as their docstrings say.
@only(lambda row: row.is_elementwise or row.skips)
def test_shard_map_gives_the_same_numbers(row, made):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32)}
    grads = jax.tree.map(lambda x: jnp.sin(3 * x), params)

    def local(p, g):
        updates, _ = made.tx.update(g, made.tx.init(p), p, **row.extra())
        return updates

    expected = jax.jit(local)(params, grads)
    with jax.set_mesh(mesh):
        spec = jax.P("x", None)
        sharded = jax.device_put((params, grads), jax.sharding.NamedSharding(mesh, spec))
        got = jax.jit(jax.shard_map(local, in_specs=spec, out_specs=spec))(*sharded)
    assert_same(got, expected, rtol=1e-6, atol=1e-7)


def test_parameters_stay_finite_on_the_partial_means_of_multisteps(row, made):
    """Promise 28: every other micro-batch has a zero gradient."""
    gradients = [zeros_like(made.params) if k % 2 else tree(seed=k) for k in range(5)]
    params, state, _ = loop(row, optax.MultiSteps(made.tx, every_k_schedule=2), made.params, gradients)[-1]
    assert is_finite(params)
    assert row.is_instrument or is_finite(state)  # a cosine with a zero gradient is undefined
