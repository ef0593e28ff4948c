"""`readings` finds every instrument in any nesting, and tells those of one kind apart by their order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx


class LargestState(NamedTuple):
    """The largest entry that was seen, and how often it was looked: an instrument, because it has `readings`."""

    largest_seen: jax.Array  # []
    looks: jax.Array  # [] int32

    def readings(self):
        return {"largest/seen": self.largest_seen, "largest/looks": self.looks}


class SmallestState(NamedTuple):
    smallest_seen: jax.Array  # []

    def readings(self):
        return {"smallest/seen": self.smallest_seen}


class HoldingState(NamedTuple):
    """A wrapper that is an instrument too."""

    held_state: LargestState
    held_count: jax.Array  # []

    def readings(self):
        return {"holding/count": self.held_count}


def entries(updates):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(updates)])


def largest():
    def update(updates, state, params=None):
        del params
        return updates, LargestState(jnp.max(entries(updates)), state.looks + 1)

    return optax.GradientTransformation(
        lambda _: LargestState(jnp.full((), jnp.nan, jnp.float32), jnp.zeros((), jnp.int32)), update
    )


def smallest():
    def update(updates, state, params=None):
        del state, params
        return updates, SmallestState(jnp.min(entries(updates)))

    return optax.GradientTransformation(lambda _: SmallestState(jnp.full((), jnp.nan, jnp.float32)), update)


def holding(tx):
    def update(updates, state, params=None):
        updates, held = tx.update(updates, state.held_state, params)
        return updates, HoldingState(held, state.held_count + 1)

    return optax.GradientTransformation(lambda p: HoldingState(tx.init(p), jnp.zeros(())), update)


PARAMS = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
GRADS = {"a": jnp.array([1.0, 4.0]), "b": jnp.array([2.0, -3.0, 0.5])}


def after(tx, steps=1):
    tx = optax.with_extra_args_support(tx)
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(GRADS, state, PARAMS)
    return {name: float(x) for name, x in gradtx.readings(state).items()}


PLAIN = {"largest/seen": 4.0, "largest/looks": 1.0}
NESTINGS = {
    "alone": (largest(), PLAIN),
    "chain": (optax.chain(gradtx.adam(0.1), largest()), {"largest/seen": 0.1, "largest/looks": 1.0}),
    "chain in a chain": (
        optax.chain(optax.chain(largest(), smallest()), optax.scale(2.0)),
        PLAIN | {"smallest/seen": -3.0},
    ),
    "named_chain": (optax.named_chain(("z", smallest()), ("a", largest())), {"smallest/seen": -3.0} | PLAIN),
    "masked": (optax.masked(largest(), {"a": False, "b": True}), {"largest/seen": 2.0, "largest/looks": 1.0}),
    "partition": (
        optax.partition({"x": largest(), "y": smallest(), "unused": optax.sgd(0.1)}, {"a": "x", "b": "y"}),
        PLAIN | {"smallest/seen": -3.0},
    ),
    "MultiSteps": (optax.MultiSteps(largest(), 1).gradient_transformation(), PLAIN),
    "inject_hyperparams": (
        optax.inject_hyperparams(lambda rate: optax.chain(optax.scale(rate), largest()))(rate=2.0),
        {"largest/seen": 8.0, "largest/looks": 1.0},
    ),
    "skip_nonfinite": (gradtx.skip_nonfinite(largest()), PLAIN),
    "apply_if_finite": (optax.apply_if_finite(largest(), 3), PLAIN),
    "everything": (
        gradtx.skip_nonfinite(
            optax.MultiSteps(optax.chain(optax.masked(optax.named_chain(("in", largest())), True), gradtx.sgd(0.1)), 1)
        ),
        PLAIN,
    ),
    "an instrument that holds one": (holding(largest()), {"holding/count": 1.0} | PLAIN),
    "no instrument": (gradtx.adam(0.1), {}),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_finds_the_instruments_in(name):
    tx, expected = NESTINGS[name]
    found = after(tx)
    assert list(found) == list(expected)  # in the order of the chain
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_of_one_kind_the_second_is_numbered_and_another_kind_between_them_is_not():
    found = after(optax.chain(largest(), smallest(), optax.scale(2.0), optax.masked(largest(), True), largest()))
    assert found == {
        "largest/seen": 4.0, "largest/looks": 1.0, "smallest/seen": -3.0,
        "largest@2/seen": 8.0, "largest@2/looks": 1.0, "largest@3/seen": 8.0, "largest@3/looks": 1.0,
    }  # fmt: skip


def test_in_a_partition_the_order_is_that_of_the_labels():
    found = after(optax.partition({"z": largest(), "a": largest()}, {"a": "z", "b": "a"}))
    assert found["largest/seen"] == 2.0  # of label a
    assert found["largest@2/seen"] == 4.0


def test_multi_steps_measures_when_it_takes_a_step():
    tx = optax.MultiSteps(largest(), 3).gradient_transformation()
    state, looks = tx.init(PARAMS), []
    for _ in range(6):
        _, state = tx.update(GRADS, state, PARAMS)
        looks.append(int(gradtx.readings(state)["largest/looks"]))
    assert looks == [0, 0, 1, 1, 1, 2]


def test_what_was_not_measured_yet_is_nan_and_has_its_final_name_shape_and_dtype():
    tx = optax.chain(largest(), optax.sgd(0.1))
    before = gradtx.readings(tx.init(PARAMS))
    later = gradtx.readings(tx.update(GRADS, tx.init(PARAMS))[1])
    assert jnp.isnan(before["largest/seen"])
    assert {n: jax.typeof(x) for n, x in before.items()} == {n: jax.typeof(x) for n, x in later.items()}


def test_they_are_the_very_arrays_of_the_state():
    state = (LargestState(jnp.ones(()), jnp.zeros((), jnp.int32)),)
    assert gradtx.readings(state)["largest/seen"] is state[0].largest_seen


def test_a_scan_records_them_step_by_step():
    tx = optax.chain(largest(), gradtx.sgd(0.1), largest())

    def step(carry, g):
        _, state = tx.update({"a": g * GRADS["a"], "b": GRADS["b"]}, carry)
        return state, gradtx.readings(state)

    last, rows = jax.jit(lambda: jax.lax.scan(step, tx.init(PARAMS), jnp.array([1.0, 2.0, 0.0])))()
    np.testing.assert_allclose(rows["largest/seen"], [4.0, 8.0, 2.0])
    np.testing.assert_allclose(rows["largest@2/seen"], [0.3, 0.3, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(rows["largest/looks"], [1, 2, 3])
    assert gradtx.readings(last)["largest/looks"] == 3


def test_under_vmap_and_of_a_stack_of_states_each_run_has_its_own():
    tx = optax.chain(largest(), gradtx.sgd(0.1))
    grads = jnp.array([[1.0, 2.0], [5.0, 3.0]])

    def seen(g):
        _, state = tx.update(g, tx.init(g))
        return gradtx.readings(state), state

    inside, states = jax.jit(jax.vmap(seen))(grads)
    np.testing.assert_array_equal(inside["largest/seen"], [2.0, 5.0])
    np.testing.assert_array_equal(gradtx.readings(states)["largest/seen"], [2.0, 5.0])


def test_a_state_that_has_the_name_but_is_no_named_tuple_is_no_instrument():
    class Other:
        def readings(self):
            raise AssertionError

    assert gradtx.readings((Other(), {"x": jnp.ones(2)}, None)) == {}


def test_looks_through_the_variables_of_a_flax_nnx_optimizer():
    """Every reading is the array that the same chain gives outside of it, also one that is computed from fields."""
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    tx = optax.chain(gradtx.gradient_norm(per_leaf=True), gradtx.sgd(0.1, 0.9, nesterov=True), gradtx.trajectory())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    _, state = tx.update(params, tx.init(params), params)
    optimizer.update(model, nnx.state(model, nnx.Param))
    found, expected = gradtx.readings(optimizer.opt_state), gradtx.readings(state)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert isinstance(found[name], jax.Array)
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)

    behind = jax.tree.map(lambda p: 0.9 * p, params)  # θ = φ - α v after one step of 0.1 φ
    for at in (nnx.state(model, nnx.Param), nnx.as_pure(nnx.state(model, nnx.Param))):
        theta = gradtx.nesterov_eval_params(at, optimizer.opt_state)
        assert jax.tree.structure(theta) == jax.tree.structure(at)
        for x, y in zip(jax.tree.leaves(theta), jax.tree.leaves(behind), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)
