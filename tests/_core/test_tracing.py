from collections import Counter

import jax
import jax.numpy as jnp
import pytest

from gradtx._core.tracing import either
from tests.contract.programs import advance, tree
from tests.zoo import ROWS

COMPILED = Counter()


def count(event, seconds, **kwargs):
    COMPILED[event.rsplit("/")[-1]] += 1


jax.monitoring.register_event_duration_secs_listener(count)

DECIDING = ["clip_by_norm", "clip_by_global_norm", "skip_spikes", "gradient_norm", "observed", "sharpness", "panel"]


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in DECIDING], ids=str)
def test_a_loop_without_jit_compiles_nothing_after_its_first_steps(row):
    tx, params = row.make(), tree()
    state, grads = tx.init(params), tree(seed=1)
    for _ in range(2):
        params, state, _ = advance(row, tx, params, state, grads)
    before = COMPILED["backend_compile_duration"]
    advance(row, tx, params, state, grads)
    assert before > 0
    assert COMPILED["backend_compile_duration"] == before


@pytest.mark.parametrize("value", [True, False])
def test_either_gives_the_result_of_cond_and_runs_one_branch_outside_jit(value):
    ran = []

    def branch(number):
        return lambda: ran.append(number) or jnp.float32(number)

    def choice(is_true):
        return either(is_true, branch(1), branch(2))

    assert choice(jnp.array(value)) == (1 if value else 2)
    assert ran == [1 if value else 2]
    assert jax.jit(choice)(value) == (1 if value else 2)
