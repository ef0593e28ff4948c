"""`readings` finds every instrument in any nesting, and numbers those of one kind by their order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.comparing import arrays_of


class LargestState(NamedTuple):
    """Holds the largest entry that was seen and the number of updates. `readings` makes it an instrument."""

    largest_seen: jax.Array  # []
    looks: jax.Array  # [] int32

    def readings(self):
        return {"largest/seen": self.largest_seen, "largest/looks": self.looks}


class SmallestState(NamedTuple):
    smallest_seen: jax.Array  # []

    def readings(self):
        return {"smallest/seen": self.smallest_seen}


class HoldingState(NamedTuple):
    """Holds another instrument and is an instrument itself."""

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
    "a chain without an instrument": (gradtx.adam(0.1), {}),
}


@pytest.mark.parametrize("name", NESTINGS)
def test_readings_finds_the_instruments_in_every_nesting(name):
    tx, expected = NESTINGS[name]
    found = after(tx)
    assert list(found) == list(expected)  # in the order of the chain
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_the_second_instrument_of_a_kind_is_numbered():
    found = after(optax.chain(largest(), smallest(), optax.scale(2.0), optax.masked(largest(), True), largest()))
    assert found == {
        "largest/seen": 4.0, "largest/looks": 1.0, "smallest/seen": -3.0,
        "largest@2/seen": 8.0, "largest@2/looks": 1.0, "largest@3/seen": 8.0, "largest@3/looks": 1.0,
    }  # fmt: skip


def test_instruments_in_a_partition_are_in_the_order_of_the_labels():
    found = after(optax.partition({"z": largest(), "a": largest()}, {"a": "z", "b": "a"}))
    assert found["largest/seen"] == 2.0  # of label a
    assert found["largest@2/seen"] == 4.0


def test_an_instrument_inside_multi_steps_measures_only_when_a_step_is_taken():
    tx = optax.MultiSteps(largest(), 3).gradient_transformation()
    state, looks = tx.init(PARAMS), []
    for _ in range(6):
        _, state = tx.update(GRADS, state, PARAMS)
        looks.append(int(gradtx.readings(state)["largest/looks"]))
    assert looks == [0, 0, 1, 1, 1, 2]


def test_readings_before_the_first_step_are_nan_with_the_final_name_shape_and_dtype():
    tx = optax.chain(largest(), optax.sgd(0.1))
    before = gradtx.readings(tx.init(PARAMS))
    later = gradtx.readings(tx.update(GRADS, tx.init(PARAMS))[1])
    assert jnp.isnan(before["largest/seen"])
    assert {n: jax.typeof(x) for n, x in before.items()} == {n: jax.typeof(x) for n, x in later.items()}


def test_readings_are_the_arrays_of_the_state_and_not_copies():
    state = (LargestState(jnp.ones(()), jnp.zeros((), jnp.int32)),)
    assert gradtx.readings(state)["largest/seen"] is state[0].largest_seen


def test_a_scan_records_the_readings_of_each_step():
    tx = optax.chain(largest(), gradtx.sgd(0.1), largest())

    def step(carry, g):
        _, state = tx.update({"a": g * GRADS["a"], "b": GRADS["b"]}, carry)
        return state, gradtx.readings(state)

    last, rows = jax.jit(lambda: jax.lax.scan(step, tx.init(PARAMS), jnp.array([1.0, 2.0, 0.0])))()
    np.testing.assert_allclose(rows["largest/seen"], [4.0, 8.0, 2.0])
    np.testing.assert_allclose(rows["largest@2/seen"], [0.3, 0.3, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(rows["largest/looks"], [1, 2, 3])
    assert gradtx.readings(last)["largest/looks"] == 3


def test_each_run_of_a_vmap_has_its_own_readings_inside_and_outside():
    tx = optax.chain(largest(), gradtx.sgd(0.1))
    grads = jnp.array([[1.0, 2.0], [5.0, 3.0]])

    def seen(g):
        _, state = tx.update(g, tx.init(g))
        return gradtx.readings(state), state

    inside, states = jax.jit(jax.vmap(seen))(grads)
    np.testing.assert_array_equal(inside["largest/seen"], [2.0, 5.0])
    np.testing.assert_array_equal(gradtx.readings(states)["largest/seen"], [2.0, 5.0])


def test_an_object_with_readings_that_is_not_a_named_tuple_is_ignored():
    class Other:
        def readings(self):
            raise AssertionError

    assert gradtx.readings((Other(), {"x": jnp.ones(2)}, None)) == {}


def test_readings_finds_the_instruments_of_a_flax_nnx_optimizer():
    """Every reading is the array that the same chain gives outside of Flax, even if it is computed from fields."""
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    params = arrays_of(nnx.state(model, nnx.Param))
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
    for at in (nnx.state(model, nnx.Param), arrays_of(nnx.state(model, nnx.Param))):
        theta = gradtx.nesterov_eval_params(at, optimizer.opt_state)
        assert jax.tree.structure(theta) == jax.tree.structure(at)
        for x, y in zip(jax.tree.leaves(theta), jax.tree.leaves(behind), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)
