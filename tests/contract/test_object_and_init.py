"""Parts A and B of the contract are the transformation and its `init`. The numbers are those of the promises."""

import copy
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx._core.packing import Packed
from tests.comparing import assert_same, is_finite, types
from tests.contract.programs import SHAPES, step, tree
from tests.zoo import ROWS

# A. The object: 1 to 4


def test_every_row_is_a_transformation_with_extra_args(row):
    assert isinstance(row.make(), optax.GradientTransformationExtraArgs)


def test_update_takes_params_by_position_or_keyword_and_ignores_unknown_arguments(row, made):
    start, grads = made.tx.init(made.params), made.gradients[0]
    with jax.disable_jit():
        by_keyword = made.tx.update(grads, start, params=made.params, unheard_of=1, **row.extra())
    assert_same(by_keyword, (made.path[0][2], made.path[0][1]))


def test_update_works_without_params_or_says_that_params_are_needed(row, made):
    grads, state = made.gradients[0], made.tx.init(made.params)
    if row.needs_params:
        name = row.factory.__name__
        with pytest.raises(ValueError, match=rf"{name}.*needs the .*: call update\(grads, state, params"):
            made.tx.update(grads, state, **row.extra())
    else:
        with jax.disable_jit():
            updates, _ = step(row, made.tx, grads, state, None)
        assert_same(updates, made.path[0][2])


def test_only_the_learning_rate_stage_flips_the_sign(row, made):
    _, _, updates = made.path[0]
    for g, u in zip(jax.tree.leaves(made.gradients[0]), jax.tree.leaves(updates), strict=True):
        assert np.array_equal(np.sign(u), -np.sign(g) if row.flips_sign else np.sign(g))


# B. init: 5 to 9


def test_init_gives_the_same_state_eager_jitted_and_abstract(made):
    eager, jitted = made.tx.init(made.params), jax.jit(made.tx.init)(made.params)
    assert_same(jitted, eager)
    assert types(jitted) == types(eager) == types(made.abstract_state)
    assert_same(made.tx.init(made.params), eager)


def ones(*shape):
    return jnp.asarray(np.ones(shape, np.float32))


ODD_TREES = {
    "empty": {},
    "scalar": ones(),
    "zero-size": {"a": ones(0, 3), "b": ones(3)},
    "None": {"a": None, "b": ones(3)},
    "masked": {"a": optax.MaskedNode(), "b": ones(3)},
    "nested": [(ones(3), {"x": ones()}), []],
}


def test_odd_trees_can_be_updated(row, made):
    """One program updates empty trees and leaves, scalars, missing and masked leaves, and nested lists."""

    def both(trees):
        states = {kind: made.tx.init(params) for kind, params in trees.items()}
        return states, {kind: step(row, made.tx, params, states[kind], params) for kind, params in trees.items()}

    states, results = jax.jit(both)(ODD_TREES)
    for kind, params in ODD_TREES.items():
        updates, new_state = results[kind]
        assert jax.tree.structure(updates) == jax.tree.structure(params), kind
        assert types(new_state) == types(states[kind]), kind
        assert is_finite(updates), kind


def test_init_takes_shapes_python_numbers_and_numpy_arrays(row, made):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made.params)
    assert types(made.tx.init(shapes)) == types(made.tx.init(made.params))
    for leaf in (0.5, np.ones(3, np.float32)):

        def update(params, leaf=leaf):
            return step(row, made.tx, {"a": leaf}, made.tx.init({"a": leaf}), params)[0]

        assert jax.eval_shape(update, {"a": jnp.asarray(leaf)})["a"].shape == np.shape(leaf)


def states_of(state):
    """Returns all named tuples of a state, nested ones included. Packed trees and masks are not states."""
    if isinstance(state, optax.MaskedNode | Packed):
        return []
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    found = [s for part in inner for s in states_of(part)]
    return [state, *found] if hasattr(state, "_fields") else found


def test_states_are_importable_named_tuples_with_names_that_do_not_collide(made):
    state = made.tx.init(made.params)
    names = []
    for s in states_of(state):
        assert getattr(inspect.getmodule(type(s)), type(s).__name__) is type(s)
        names += s._fields
        for field in s._fields:
            optax.tree.get(state, field)  # raises if two fields have one name
    assert len(names) == len(set(names))


def test_field_names_do_not_collide_between_the_recipes_of_one_pipeline():
    blocks = {
        row.factory: row.make()
        for row in ROWS
        if row.factory.__module__.startswith(("gradtx.methods", "gradtx.clipping")) and not row.flips_sign
    }
    del blocks[gradtx.nesterov]  # a pipeline has `heavy_ball` or `nesterov`, and both have a velocity
    tx = optax.chain(*blocks.values(), gradtx.skip_nonfinite(optax.sgd(0.1)))
    names = [name for s in tx.init(tree()) for name in s._fields]
    assert len(names) == len(set(names))


def test_map_params_sees_every_param_shaped_field(row, made):
    tx, state = made.tx, made.state
    assert_same(optax.tree.map_params(tx, lambda v: v, state), state)
    if row.keeps_another_form:
        # A vector that many leaves share has no single spec. The state restored to the user's tree has specs.
        assert_same(state.replaced(state.restored()), state)
        tx, state = getattr(gradtx, row.checked_by)(**row.hyperparameters), state.restored()
    specs = {name: f"spec {name}" for name in SHAPES}
    mapped = optax.tree.map_params(tx, lambda v, spec: (v.shape, spec), state, specs, transform_non_params=lambda v: v)

    def is_pair(x):
        return isinstance(x, tuple) and bool(x) and isinstance(x[-1], str)

    seen = jax.tree.leaves(mapped, is_leaf=is_pair)
    assert all(SHAPES[spec[-1]] == shape for shape, spec in filter(is_pair, seen))
    assert all(x.ndim <= 1 for x in seen if not is_pair(x)), "a param-shaped field was not recognised"


def test_state_leaves_are_strongly_typed_and_share_no_buffers_and_counts_are_int32(made):
    state = made.tx.init(made.params)
    leaves = jax.tree.leaves(state)
    assert [x for x in leaves if not isinstance(x, jax.Array) or x.weak_type] == [], "give these an explicit dtype"
    pointers = [x.unsafe_buffer_pointer() for x in leaves]
    assert len(pointers) == len(set(pointers))
    for s in states_of(state):
        counts = [getattr(s, field) for field in s._fields if "count" in field]
        assert all(x.dtype == jnp.int32 for count in counts for x in jax.tree.leaves(count))


def test_counts_saturate_at_the_largest_int32(made):
    last = np.iinfo(np.int32).max
    state = jax.tree.map(lambda x: jnp.full_like(x, last) if x.dtype == jnp.int32 else x, made.tx.init(made.params))
    _, state = made.step(made.gradients[0], state, made.params)
    assert all(bool(np.all(x >= 0)) for x in jax.tree.leaves(state) if x.dtype == jnp.int32)


def test_update_does_not_change_its_arguments(row, made):
    given = (made.gradients[0], made.tx.init(made.params), made.params)
    before = copy.deepcopy(given)
    with jax.disable_jit():
        step(row, made.tx, *given)
    assert_same(given, before)
