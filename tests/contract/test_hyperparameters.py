"""Part D of the contract is hyper-parameters: promises 22 to 25. Promise 25, vmap, is tested in test_update.py."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.comparing import assert_same, is_finite
from tests.contract.programs import SHAPES, loop, stacked, step, tree
from tests.contract.test_update import SMALL, changes_updates, only
from tests.zoo import ROWS

with_hyperparameters = only(lambda row: row.hyperparameters)

KINDS = (np.float64, np.asarray, jnp.float32)


@with_hyperparameters
def test_hyperparameters_accept_every_kind_of_number(row, made):
    """Gives each hyper-parameter another kind of number. One function converts them all, so one kind each is enough.

    `made.path` covers Python numbers, and `made.run` covers tracers.
    """
    kinds = itertools.islice(itertools.cycle(KINDS), ROWS.index(row) % len(KINDS), None)
    tx = row.make(
        **{name: kind(value) for (name, value), kind in zip(row.hyperparameters.items(), kinds, strict=False)}
    )
    path = loop(row, tx, made.params, made.gradients[:2])
    assert_same([u for _, _, u in path], [u for _, _, u in made.path[:2]], rtol=1e-6, atol=1e-7)


@with_hyperparameters
def test_a_schedule_is_called_with_count_0_first_and_then_with_each_step(row, made):
    seen = {name: [] for name in row.hyperparameters}

    def schedule(name):
        def at(count):
            seen[name].append(int(count))
            return row.hyperparameters[name]

        return at

    tx = row.make(**{name: schedule(name) for name in seen})
    start = tx.init(made.params)
    at_init = {name: list(counts) for name, counts in seen.items()}
    path = loop(row, tx, made.params, made.gradients[:3], start)
    assert_same([u for _, _, u in path], [u for _, _, u in made.path[:3]], rtol=1e-6, atol=1e-7)
    for name, counts in seen.items():
        assert counts, name
        assert counts[0] == 0, name
        assert {0, 1, 2} <= set(counts) or counts == at_init[name], name  # an initial value is read once


# A change of 1e-12 in one of these has no effect, because they are only compared with other numbers.
THRESHOLDS = {"threshold", "burn_in"}


@with_hyperparameters
def test_hyperparameters_are_float64_under_x64(row, made, x64):
    """1 + 1e-12 is 1 in float32, so the change has no effect if a hyper-parameter passes through float32."""
    params, gradients = tree(jnp.float64), stacked(*(tree(jnp.float64, seed=1 + k) for k in range(3)))
    values = {name: np.float64(0.3 if name in SMALL else value) for name, value in row.hyperparameters.items()}
    near = made.run(values, params, gradients)
    *end, updates = near
    like_params = [x for x in jax.tree.leaves(end) if x.shape in SHAPES.values()]
    assert all(x.dtype != jnp.float32 for x in (*like_params, *jax.tree.leaves(updates)))
    for name, value in values.items():
        if name not in THRESHOLDS:
            far = made.run({**values, name: value * (1 + 1e-12)}, params, gradients)
            changed = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (near, far)), strict=True)]
            assert any(changed), name


def test_float32_gradients_stay_float32_under_x64(row, made, x64):
    updates = jax.eval_shape(lambda g, p: step(row, made.tx, g, made.tx.init(p), p)[0], tree(), tree())
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(updates))


def test_a_value_out_of_range_or_of_a_wrong_type_raises_an_error_that_names_its_argument(row):
    name = row.checked_by or row.factory.__name__
    for argument, values in row.out_of_range.items():
        for bad in values:
            for kind in (float, np.float32, jnp.float32):
                with pytest.raises(
                    ValueError, match=rf"^{name}: {argument} must be in [\[(][01.]+, (1|inf)[\])], got "
                ):
                    row.make(**{argument: kind(bad)})
        for wrong in ("0.1", [0.1], np.ones(2), True, 1j, object()):
            with pytest.raises(TypeError, match=rf"^{name}: {argument} must be a number, a 0-d array or a function"):
                row.make(**{argument: wrong})


def test_signatures_have_no_variadic_arguments(row):
    kinds = {p.kind for p in inspect.signature(row.factory).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


def test_inject_hyperparams_gives_the_same_numbers(row, made):
    tx = optax.inject_hyperparams(row.factory, static_args=row.static)(**row.hyperparameters, **row.fixed)
    path = loop(row, tx, made.params, made.gradients[:2])
    assert set(row.hyperparameters) <= set(path[-1][1].hyperparams)
    assert_same([u for _, _, u in path], [u for _, _, u in made.path[:2]], rtol=1e-5, atol=1e-6)


@only(lambda row: row.hyperparameters and changes_updates(row))
def test_inject_hyperparams_stays_finite_for_bfloat16(row):
    """Optax rounds the injected numbers to bfloat16, in which 0.999 becomes 1."""
    factory = optax.inject_hyperparams(row.factory, static_args=row.static)
    tx, params = factory(**row.hyperparameters, **row.fixed), tree(jnp.bfloat16)

    @jax.jit
    def updates_of(gradients):
        def body(state, grads):
            updates, state = step(row, tx, grads, state, params)
            return state, updates

        return jax.lax.scan(body, tx.init(params), gradients)[1]

    assert is_finite(updates_of(stacked(*(tree(jnp.bfloat16, seed=k) for k in range(3)))))
