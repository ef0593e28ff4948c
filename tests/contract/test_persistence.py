"""Part F of the contract is saving, copying and restoring states: promises 29 and 30."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from tests.comparing import assert_same
from tests.contract.programs import loop, tree
from tests.zoo import ROWS


def test_states_survive_pickle_copy_and_flattening(made):
    leaves, treedef = jax.tree.flatten(made.state)
    for restored in (pickle.loads(pickle.dumps(made.state)), copy.deepcopy(made.state), treedef.unflatten(leaves)):
        assert_same(restored, made.state)
        assert jax.tree.structure(restored) == treedef


def test_a_run_resumed_from_a_file_is_bit_equal_to_an_uninterrupted_run(made, tmp_path):
    def train(params, state, gradients):
        for grads in gradients:
            updates, state = made.step(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    start, middle = (made.params, made.tx.init(made.params)), len(made.gradients) // 2
    whole, half = (train(*start, gradients) for gradients in (made.gradients, made.gradients[:middle]))
    np.savez(tmp_path / "half.npz", *(np.asarray(x) for x in jax.tree.leaves(half)))
    with np.load(tmp_path / "half.npz") as file:
        restored = jax.tree.structure(half).unflatten([jnp.asarray(file[name]) for name in file.files])
    assert_same(train(*restored, made.gradients[middle:]), whole)


def test_the_states_of_all_rows_round_trip_through_orbax(tmp_path):
    """One checkpoint holds all states, because opening a checkpoint takes most of the time."""
    states = {row.name: loop(row, row.make(), tree(), [tree(seed=1)])[-1][1] for row in ROWS}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", jax.eval_shape(lambda: states))
    for row in ROWS:
        assert_same(restored[row.name], states[row.name])
