"""The promises that every public transformation keeps, each a test over every row of the zoo.

The numbers in the section lines are those of the promises.
"""

import copy
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

from .zoo import ROWS, Row

every_row = pytest.mark.parametrize("row", ROWS, ids=str)
elementwise = pytest.mark.parametrize("row", [r for r in ROWS if r.is_elementwise], ids=str)
every_hyperparameter = pytest.mark.parametrize(
    ("row", "argument"), [(r, a) for r in ROWS for a in r.hyperparameters], ids=lambda x: str(x)
)


def tree(dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"w": (2, 3), "b": (3,), "s": ()}
    return {
        name: jax.random.normal(k, shape).astype(dtype) for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def step(row: Row, tx, grads, state, params):
    return tx.update(grads, state, params, **row.extra())


def trained(row: Row, tx, params, steps=3, seed=1):
    state = tx.init(params)
    for k in range(steps):
        updates, state = step(row, tx, tree_like(params, seed + k), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def tree_like(params, seed):
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), max(len(leaves), 1))
    return treedef.unflatten(
        [jax.random.normal(k, jnp.shape(x)).astype(x.dtype) for k, x in zip(keys, leaves, strict=False)]
    )


def avals(x):
    """Shapes, dtypes and weak types."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf), x)


def assert_same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        if tolerance and np.issubdtype(x.dtype, np.inexact):
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


def is_finite(x):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(x))


# A. The object: 1 to 4


@every_row
def test_is_a_transformation_with_extra_args(row):
    assert isinstance(row.make(), optax.GradientTransformationExtraArgs)


@every_row
def test_takes_params_by_position_or_keyword_and_ignores_unknown_arguments(row):
    tx, params, grads = row.make(), tree(), tree(seed=1)
    by_position = tx.update(grads, tx.init(params), params, **row.extra())
    by_keyword = tx.update(grads, tx.init(params), params=params, unheard_of=1, **row.extra())
    assert_same(by_position, by_keyword)


@every_row
def test_works_without_params_or_says_that_it_needs_them(row):
    tx, params = row.make(), tree()
    if row.needs_params:
        name = row.factory.__name__
        with pytest.raises(ValueError, match=rf"{name}.*needs the .*: call update\(grads, state, params"):
            tx.update(params, tx.init(params), **row.extra())
    else:
        assert is_finite(step(row, tx, params, tx.init(params), None)[0])


@every_row
def test_only_the_learning_rate_stage_flips_the_sign(row):
    tx, params = row.make(), tree()
    grads = jax.grad(lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p)))(params)
    updates, _ = step(row, tx, grads, tx.init(params), params)
    for g, u in zip(jax.tree.leaves(grads), jax.tree.leaves(updates), strict=True):
        assert np.array_equal(np.sign(u), -np.sign(g) if row.flips_sign else np.sign(g))


# B. init: 5 to 9


@every_row
def test_init_is_the_same_eager_jitted_and_abstract(row):
    tx, params = row.make(), tree()
    eager, jitted, abstract = tx.init(params), jax.jit(tx.init)(params), jax.eval_shape(tx.init, params)
    assert_same(eager, jitted)
    assert avals(eager) == avals(jitted)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), eager) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    assert_same(eager, tx.init(params))


ODD_TREES = {
    "empty": {},
    "scalar": jnp.float32(2.0),
    "zero-size": {"a": jnp.zeros((0, 3)), "b": jnp.ones(2)},
    "None": {"a": None, "b": jnp.ones(2)},
    "masked": {"a": optax.MaskedNode(), "b": jnp.ones(2)},
    "nested": [(jnp.ones(2), {"x": jnp.ones(())}), []],
}


@every_row
@pytest.mark.parametrize("kind", ODD_TREES)
def test_trains_odd_trees(row, kind):
    params = ODD_TREES[kind]
    tx = row.make()
    state = tx.init(params)
    updates, new_state = step(row, tx, params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert avals(state) == avals(new_state)
    assert is_finite(updates)


@every_row
def test_init_takes_shapes_python_numbers_and_numpy_arrays(row):
    tx, params = row.make(), tree()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    assert avals(tx.init(shapes)) == avals(tx.init(params))
    for leaf in (0.5, np.ones(2, np.float32)):
        updates, _ = step(row, tx, {"a": leaf}, tx.init({"a": leaf}), {"a": jnp.asarray(leaf)})
        assert np.shape(updates["a"]) == np.shape(leaf)


def states_of(state):
    return [
        s
        for s in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "_fields") and not isinstance(x, optax.MaskedNode))
        if hasattr(s, "_fields")
    ]


@every_row
def test_states_are_importable_named_tuples_with_names_that_do_not_collide(row):
    tx, params = row.make(), tree()
    state = tx.init(params)
    names = []
    for s in states_of(state):
        assert getattr(inspect.getmodule(type(s)), type(s).__name__) is type(s)
        names += s._fields
        for field in s._fields:
            optax.tree.get(state, field)  # raises where two fields have one name
    assert len(names) == len(set(names))


def test_field_names_do_not_collide_between_the_recipes_of_one_pipeline():
    blocks = [gradtx.clip_by_value(1.0), gradtx.clip_by_norm(1.0), gradtx.clip_by_global_norm(1.0)]
    blocks += [gradtx.scale_by_adam(), gradtx.scale_by_rms(), gradtx.scale_by_adagrad(), gradtx.scale_by_adadelta()]
    blocks += [gradtx.scale_by_delta_bar_delta(0.1), gradtx.heavy_ball(0.9), gradtx.scale_by_learning_rate(0.1)]
    tx = optax.chain(*blocks, gradtx.skip_nonfinite(optax.sgd(0.1)))
    names = [name for s in tx.init(tree()) for name in s._fields]
    assert len(names) == len(set(names))


@every_row
def test_map_params_sees_every_param_shaped_field(row):
    tx, params = row.make(), tree()
    _, state = trained(row, tx, params)
    assert_same(optax.tree.map_params(tx, lambda v: v, state), state)
    if row.keeps_another_form:
        # A vector that many leaves share has no one spec: the state over the user's tree does, and it goes back.
        assert_same(state.replaced(state.restored()), state)
        tx, state = getattr(gradtx, row.checked_by)(**row.hyperparameters), state.restored()
    specs = {"w": "spec w", "b": "spec b", "s": "spec s"}
    mapped = optax.tree.map_params(tx, lambda v, spec: (v.shape, spec), state, specs, transform_non_params=lambda v: v)

    def is_pair(x):
        return isinstance(x, tuple) and bool(x) and isinstance(x[-1], str)

    seen = jax.tree.leaves(mapped, is_leaf=is_pair)
    param_like = [x for x in seen if isinstance(x, tuple)]
    assert all(params[spec[-1]].shape == shape for shape, spec in param_like)
    others = [x for x in seen if not isinstance(x, tuple)]
    assert all(x.ndim <= 1 for x in others), "a param-shaped field was not recognised"


@every_row
def test_state_leaves_are_strong_own_their_buffers_and_count_in_int32(row):
    state = row.make().init(tree())
    leaves = jax.tree.leaves(state)
    assert all(isinstance(x, jax.Array) and not x.weak_type for x in leaves)
    pointers = [x.unsafe_buffer_pointer() for x in leaves]
    assert len(pointers) == len(set(pointers))
    for s in states_of(state):
        counts = [getattr(s, f) for f in s._fields if "count" in f]
        assert all(x is None or x.dtype == jnp.int32 for x in counts)  # None: no hyper-parameter is scheduled


@every_row
def test_counts_saturate(row):
    tx, params = row.make(), tree()
    last = jnp.iinfo(jnp.int32).max
    state = jax.tree.map(lambda x: jnp.full_like(x, last) if x.dtype == jnp.int32 else x, tx.init(params))
    _, state = step(row, tx, params, state, params)
    assert all(bool(jnp.all(x >= 0)) for x in jax.tree.leaves(state) if x.dtype == jnp.int32)


# C. update: 10 to 21


@every_row
def test_update_is_pure_and_keeps_structure_shapes_and_dtypes(row):
    tx, params = row.make(), tree()
    grads = {"w": tree(jnp.bfloat16)["w"], "b": tree(jnp.float16)["b"], "s": tree()["s"]}
    state = tx.init(params)
    before = copy.deepcopy((grads, state, params))
    updates, _ = step(row, tx, grads, state, params)
    assert_same(before, (grads, state, params))
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(updates)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(grads)
    ]


@every_row
@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("grad_dtype", [jnp.float32, jnp.bfloat16])
def test_state_keeps_its_types_also_in_a_branch(row, param_dtype, grad_dtype):
    tx, params, grads = row.make(), tree(param_dtype), tree(grad_dtype)
    state = tx.init(params)

    @jax.jit
    def maybe(pred, state):
        return jax.lax.cond(pred, lambda s: step(row, tx, grads, s, params)[1], lambda s: s, state)

    assert avals(maybe(True, state)) == avals(state)


@every_row
def test_accumulators_are_float32_for_half_precision_parameters(row):
    state = row.make().init(tree(jnp.bfloat16))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))


@pytest.mark.parametrize(
    "row", [r for r in ROWS if "accumulator_dtype" in inspect.signature(r.factory).parameters], ids=str
)
def test_accumulators_follow_the_parameters_where_asked(row):
    params = tree(jnp.bfloat16)
    state = row.make(accumulator_dtype=None).init(params)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(state) if x.ndim > 0)
    assert all(
        x.dtype == jnp.float32 for x in jax.tree.leaves(row.make(accumulator_dtype=jnp.float32).init(params)) if x.ndim
    )


@every_row
def test_the_second_call_does_not_compile(row):
    tx, params = row.make(), tree()
    update = jax.jit(lambda g, s, p: step(row, tx, g, s, p))
    _, state = update(tree(seed=1), tx.init(params), params)
    update(tree(seed=2), state, params)
    assert update._cache_size() == 1


@every_row
def test_jit_scan_and_vmap_agree_with_a_plain_loop(row):
    tx, params = row.make(), tree()
    close = {"rtol": 2e-4, "atol": 1e-5}  # cg stops by its residual
    gradients = jax.tree.map(lambda *x: jnp.stack(x), *(tree(seed=k) for k in range(4)))

    def one(carry, g):
        params, state = carry
        updates, state = step(row, tx, g, state, params)
        return (optax.apply_updates(params, updates), state), None

    loop = (params, tx.init(params))
    for k in range(4):
        loop, _ = one(loop, jax.tree.map(lambda x, k=k: x[k], gradients))
    scanned, _ = jax.jit(lambda p: jax.lax.scan(one, (p, tx.init(p)), gradients))(params)
    assert avals(scanned) == avals(loop)
    assert_same(scanned, loop, **close)

    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), params)
    mapped, _ = jax.vmap(lambda p: jax.lax.scan(one, (p, tx.init(p)), gradients))(many)
    alone, _ = jax.lax.scan(one, (jax.tree.map(lambda x: 2 * x, params), tx.init(params)), gradients)
    assert_same(jax.tree.map(lambda x: x[1], mapped), alone, **close)


@pytest.mark.parametrize("row", [r for r in ROWS if r.allows_sharding], ids=str)
def test_keeps_explicit_shardings_and_gives_the_same_numbers(row):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    alone = {"w": jax.random.normal(jax.random.key(0), (16, 2)), "b": jnp.ones(3)}
    tx = row.make()
    expected_params, expected_state = trained(row, tx, alone)
    with jax.set_mesh(mesh):
        specs = {"w": jax.P("x", None), "b": jax.P(None)}
        shardings = {k: jax.sharding.NamedSharding(mesh, spec) for k, spec in specs.items()}
        params = jax.device_put(alone, shardings)
        state = jax.jit(tx.init)(params)
        assert avals(state) == avals(tx.init(params))
        for k in range(3):
            grads = jax.device_put(tree_like(alone, 1 + k), shardings)
            updates, new_state = jax.jit(lambda g, s, p: step(row, tx, g, s, p))(grads, state, params)
            assert avals(updates) == avals(params)
            assert avals(new_state) == avals(state)
            params, state = optax.apply_updates(params, updates), new_state
    if row.keeps_another_form:  # which may depend on the sharding
        state, expected_state = state.restored(), expected_state.restored()
    assert_same((params, state), (expected_params, expected_state), rtol=2e-4, atol=1e-5)


@every_row
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_zero_gradients_give_zero_updates(row, dtype):
    tx, params = row.make(), tree(dtype)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    for _ in range(3):
        updates, state = step(row, tx, zeros, state, params)
        assert_same(jax.tree.map(jnp.abs, updates), zeros)
    assert row.is_instrument or is_finite(state)  # a reading may say that there is nothing to read


@every_row
@pytest.mark.usefixtures("x64")
def test_float64_is_float64_throughout(row):
    tx, params = row.make(), tree(jnp.float64)
    updates, state = step(row, tx, jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert is_finite(updates)
    assert all(
        x.dtype == jnp.float64 for x in jax.tree.leaves((updates, state)) if jnp.issubdtype(x.dtype, jnp.inexact)
    )
    beside = step(row, tx, tree(jnp.float32), tx.init(tree(jnp.float32)), tree(jnp.float32))[0]
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(beside))


@pytest.mark.parametrize("row", [r for r in ROWS if r.name in ("clip_by_norm", "clip_by_global_norm")], ids=str)
def test_norms_neither_overflow_nor_underflow_nor_stall(row):
    for entries, dtype, norm in (
        (1e30, jnp.float32, 2e30),
        (1e-25, jnp.float32, 2e-25),
        (1.0, jnp.bfloat16, 1000**0.5),
    ):
        grads = [jnp.full(4 if norm != 1000**0.5 else 1000, entries, dtype)]
        tx = row.make(max_norm=norm / 10)
        updates, state = tx.update(grads, tx.init(grads))
        assert np.linalg.norm(np.asarray(updates[0], np.float64)) == pytest.approx(norm / 10, rel=1e-2)
        assert float(jax.tree.leaves(state)[0].ravel()[0]) == pytest.approx(norm, rel=1e-3)
    tx = row.make(max_norm=0.0)
    assert_same(tx.update([jnp.zeros(3)], tx.init([jnp.zeros(3)]))[0], [jnp.zeros(3)])


@elementwise
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_entry_shows_and_does_not_spread(row, bad):
    tx, params = row.make(), tree()
    grads = tree(seed=1)
    spoiled = {**grads, "w": grads["w"].at[0, 1].set(bad)}
    clean, state = step(row, tx, grads, tx.init(params), params)
    updates, state = step(row, tx, spoiled, tx.init(params), params)
    again, _ = step(row, tx, grads, state, params)
    shown = row.name == "clip_by_value" and bad == float("inf")
    assert bool(jnp.isfinite(updates["w"][0, 1])) == shown
    for u in (updates, again):
        rest = [u["b"], u["s"], u["w"].at[0, 1].set(0.0)]
        assert is_finite(rest)
    assert_same({**updates, "w": updates["w"].at[0, 1].set(0)}, {**clean, "w": clean["w"].at[0, 1].set(0)})


@every_row
def test_squares_that_overflow_are_right_or_show(row):
    for dtype, size in ((jnp.float32, 1e25), (jnp.float16, 400.0)):
        params = [jnp.full(2, 0.5, dtype)]
        tx = row.make()
        state = tx.init(params)
        updates, _ = step(row, tx, [jnp.full(2, size, dtype)], state, params)
        assert not bool(jnp.any(updates[0] == 0)) or row.name == "skip_nonfinite"


@every_row
def test_derivatives_are_finite_also_at_a_zero_gradient(row):
    params = tree()
    if row.name == "newton_saddle_free_cg":
        pytest.skip(
            "at g = 0 the Krylov space is empty, and eigenvectors have no derivative where eigenvalues coincide"
        )

    def summed(hyperparameters, g):
        tx = row.make(**hyperparameters)
        state = tx.init(params)
        total = jnp.zeros(())
        for _ in range(2):
            updates, state = step(row, tx, g, state, params)
            total = total + sum(jnp.sum(u**2 + u) for u in jax.tree.leaves(updates))
        return total

    hyper = {k: jnp.float32(v) for k, v in row.hyperparameters.items()}
    for grads in (tree(seed=1), jax.tree.map(jnp.zeros_like, params), {**tree(seed=1), "b": jnp.zeros(3)}):
        assert is_finite(jax.grad(summed, argnums=(0, 1))(hyper, grads))


@every_row
def test_the_derivative_to_a_hyperparameter_is_the_difference_quotient(row):
    params = tree()
    if row.name == "newton_cg":
        pytest.skip("conjugate gradients stop by their residual: their derivative is that of the exact solve")

    def summed(value, argument):
        tx = row.make(**{argument: value})
        state = tx.init(params)
        for k in range(3):
            updates, state = step(row, tx, tree(seed=k), state, params)
        return sum(jnp.sum(jnp.sin(u)) for u in jax.tree.leaves(updates))

    for argument, value in row.hyperparameters.items():
        if argument in ("eps", "initial_accumulator"):
            value = 0.3
        h = 3e-3
        quotient = (summed(value + h, argument) - summed(value - h, argument)) / (2 * h)
        assert jax.grad(summed)(jnp.float32(value), argument) == pytest.approx(float(quotient), rel=3e-2, abs=3e-3)


@every_row
def test_is_clean_under_strict_promotion_and_debugging(row):
    tx = row.make()
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(not row.is_instrument),  # a reading is NaN until it is measured
        jax.checking_leaks(),
    ):
        for dtype in (jnp.float32, jnp.bfloat16):
            params = tree(dtype)
            extra = row.extra()
            for grads in (tree(dtype, 1), jax.tree.map(jnp.zeros_like, params)):
                updates, _ = jax.jit(lambda g, p, extra=extra: tx.update(g, tx.init(p), p, **extra))(grads, params)
                assert is_finite(updates)


@every_row
def test_complex_leaves_are_right_or_refused(row):
    params = [jnp.array([1 + 2j, -3j, 0.5])]
    tx = row.make()
    if not row.allows_complex:
        with pytest.raises(ValueError, match=rf"{row.name.split('_cg')[0].split('_saddle')[0]}.*complex"):
            tx.init(params)
        return
    phase = jnp.complex64(jnp.exp(0.7j))
    state, turned = tx.init(params), tx.init(params)
    for _ in range(3):  # turning all gradients by one phase turns all updates by it
        updates, state = tx.update(params, state, params, **row.extra())
        rotated, turned = tx.update([params[0] * phase], turned, params, **row.extra())
        assert updates[0].dtype == jnp.complex64
        np.testing.assert_allclose(rotated[0], updates[0] * phase, rtol=1e-5, atol=1e-6)
    assert avals(state) == avals(tx.init(params))


@every_row
def test_integer_leaves_are_refused_at_init_by_name(row):
    for dtype in (jnp.int32, jnp.bool_):
        with pytest.raises(TypeError, match=r"params\['steps'\] must be of a floating dtype"):
            row.make().init({"w": jnp.ones(2), "steps": jnp.zeros(2, dtype)})


@every_row
def test_integer_and_float0_gradients_are_refused_by_name(row):
    tx, params = row.make(), {"w": jnp.ones(2), "a": jnp.ones(2)}
    for bad in (np.zeros(2, jax.dtypes.float0), jnp.ones(2, jnp.int32)):
        with pytest.raises(TypeError, match=r"\['a'\].*floating dtype"):
            step(row, tx, {"w": jnp.ones(2), "a": bad}, tx.init(params), params)


@every_row
def test_a_missing_gradient_leaves_that_leaf_alone(row):
    tx, params = row.make(), tree()
    _, state = trained(row, tx, params)
    updates, new_state = step(row, tx, {**tree(seed=1), "b": None}, state, params)
    assert updates["b"] is None
    assert avals(new_state) == avals(state)
    for old, new in zip(states_of(state), states_of(new_state), strict=True):
        for field in old._fields:
            looks_at_gradients = field not in ("sharpness_vector", "panel_last_params")
            if isinstance(getattr(old, field), dict) and looks_at_gradients:
                assert_same(getattr(old, field)["b"], getattr(new, field)["b"])


@every_row
@pytest.mark.parametrize("shape", [(1,), (), (2, 3), (3, 1)])
def test_shapes_that_only_broadcast_are_refused(row, shape):
    tx, params = row.make(), {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"\['w'\].*shape"):
        step(row, tx, {"w": jnp.ones(shape)}, tx.init(params), params)


@every_row
@pytest.mark.parametrize("grads", [{"w": jnp.ones(3), "extra": jnp.ones(3)}, {}, [jnp.ones(3)], {"w": [jnp.ones(3)]}])
def test_another_tree_than_init_saw_is_refused(row, grads):
    tx, params = row.make(), {"w": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"init"):
        step(row, tx, grads, tx.init(params), params)


# D. Hyper-parameters: 22 to 25


@every_hyperparameter
def test_takes_every_kind_of_number_and_a_schedule(row, argument):
    params, value = tree(), row.hyperparameters[argument]
    expected, _ = trained(row, row.make(), params)
    kinds = [np.float32(value), np.float64(value), np.asarray(value), jnp.float32(value), lambda count: value]
    for kind in kinds:
        got, _ = trained(row, row.make(**{argument: kind}), params)
        assert_same(got, expected, rtol=1e-6, atol=1e-7)
    traced = jax.jit(lambda v: trained(row, row.make(**{argument: v}), params)[0])(value)
    assert_same(traced, expected, rtol=2e-4, atol=1e-5)


@every_hyperparameter
def test_a_schedule_sees_count_0_first_and_then_one_step_after_the_other(row, argument):
    seen = []

    def schedule(count):
        seen.append(int(count))
        return row.hyperparameters[argument]

    tx, params = row.make(**{argument: schedule}), tree()
    state = tx.init(params)
    at_init = list(seen)
    for _ in range(3):
        _, state = step(row, tx, params, state, params)
    assert seen
    assert seen[0] == 0
    assert {0, 1, 2} <= set(seen) or seen == at_init  # an initial value is asked for once


@every_hyperparameter
@pytest.mark.usefixtures("x64")
def test_hyperparameters_are_float64_under_x64(row, argument):
    """1 + 1e-12 is 1 in float32: a hyper-parameter that passed through it would make no difference."""
    value = row.hyperparameters[argument] or 0.1

    def run(v):
        return trained(row, row.make(**{argument: v}), tree(jnp.float64), steps=2)[0]

    near, far = (run(lambda count, f=f: jnp.asarray(value * f, jnp.float64)) for f in (1.0, 1 + 1e-12))
    assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(near))
    if argument in ("max_norm", "learning_rate", "momentum", "damping", "max_abs") and not row.is_instrument:
        assert any(bool(jnp.any(x != y)) for x, y in zip(jax.tree.leaves(near), jax.tree.leaves(far), strict=True))


@every_hyperparameter
def test_out_of_range_is_refused_by_name_and_value(row, argument):
    name = row.checked_by or row.factory.__name__
    for bad in row.out_of_range[argument]:
        for kind in (float, np.float32, jnp.float32):
            with pytest.raises(ValueError, match=rf"^{name}: {argument} must be in [\[(][01.]+, (1|inf)[\])], got "):
                row.make(**{argument: kind(bad)})
    for wrong in ("0.1", [0.1], jnp.ones(2), True, 1j, object()):
        with pytest.raises(TypeError, match=rf"^{name}: {argument} must be a number, a 0-d array or a function"):
            row.make(**{argument: wrong})


@every_row
def test_signatures_are_plain(row):
    kinds = {p.kind for p in inspect.signature(row.factory).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@every_row
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_inject_hyperparams_works(row, dtype):
    factory = optax.inject_hyperparams(row.factory, static_args=row.static)
    tx, params = factory(**row.hyperparameters, **row.fixed), tree(dtype)
    got, state = trained(row, tx, params)
    assert set(row.hyperparameters) <= set(state.hyperparams)
    assert is_finite(got)
    if dtype == jnp.float32:
        assert_same(got, trained(row, row.make(), params)[0], rtol=1e-5, atol=1e-6)


@every_hyperparameter
def test_vmap_over_a_hyperparameter_is_a_loop_over_it(row, argument):
    params, value = tree(), row.hyperparameters[argument] or 0.1
    values = jnp.array([value, value / 2, value / 4])

    def run(v):
        return trained(row, row.make(**{argument: v}), params)[0]

    mapped = jax.jit(jax.vmap(run))(values)
    for i, v in enumerate(values):
        assert_same(jax.tree.map(lambda x, i=i: x[i], mapped), run(float(v)), rtol=2e-4, atol=1e-5)


# E. Composition: 26 to 28


def as_chain(tx):
    return optax.chain(optax.identity(), tx)


def as_partition(tx):
    return optax.partition({"a": tx, "unused": optax.adam(1.0)}, lambda p: jax.tree.map(lambda _: "a", p))


COMPOSITIONS = {
    "chain": as_chain,
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


@every_row
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_composes_without_changing_the_numbers(row, composition):
    params = tree()
    expected, _ = trained(row, row.make(), params)
    tx = COMPOSITIONS[composition](row.make())
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **row.extra()))
    for k in range(3):
        updates, new_state = update(tree_like(params, 1 + k), state, params)
        assert avals(new_state) == avals(state)
        params, state = optax.apply_updates(params, updates), new_state
    assert_same(params, expected, rtol=2e-4, atol=1e-5)


@every_row
def test_a_mask_leaves_the_rest_alone(row):
    params = tree()
    tx = optax.masked(row.make(), {"w": True, "b": False, "s": True})
    updates, _ = step(row, tx, tree(seed=1), tx.init(params), params)
    assert_same(updates["b"], tree(seed=1)["b"])
    others = {"w": params["w"], "s": params["s"]}
    alone = row.make()
    expected, _ = step(row, alone, {k: tree(seed=1)[k] for k in others}, alone.init(others), others)
    assert_same({k: updates[k] for k in others}, expected, rtol=1e-6, atol=1e-7)


@every_row
def test_works_under_freeze_lookahead_and_schedule_free(row):
    params = tree()
    frozen = optax.transforms.selective_transform(row.make(), freeze_mask={"w": False, "b": True, "s": False})
    updates, _ = step(row, frozen, tree(seed=1), frozen.init(params), params)
    assert_same(updates["b"], jnp.zeros(3))
    if row.needs_params or row.needs:
        return  # the other two show the inner transformation points that are not the loss's arguments

    slow_and_fast = optax.LookaheadParams.init_synced(params)
    lookahead = optax.lookahead(row.make(), sync_period=2, slow_step_size=0.5)
    state = lookahead.init(slow_and_fast)
    for k in range(3):
        updates, state = lookahead.update(tree(seed=k), state, slow_and_fast)
        slow_and_fast = optax.apply_updates(slow_and_fast, updates)
    assert is_finite(slow_and_fast)

    free = optax.contrib.schedule_free(row.make(), learning_rate=0.1, b1=0.9)
    assert is_finite(trained(row, free, params)[0])


@every_row
def test_runs_under_shard_map(row):
    if not row.is_elementwise and row.name != "skip_nonfinite":
        pytest.skip("a norm or a Hessian inside shard_map is that of the shard, as the docstrings say")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    params = {"w": jax.random.normal(jax.random.key(0), (16, 2))}
    tx = row.make()

    def local(p, g):
        updates, _ = tx.update(g, tx.init(p), p, **row.extra())
        return updates

    grads = tree_like(params, 1)
    with jax.set_mesh(mesh):
        spec = jax.P("x", None)
        sharded = jax.device_put((params, grads), jax.sharding.NamedSharding(mesh, spec))
        got = jax.jit(jax.shard_map(local, in_specs=spec, out_specs=spec))(*sharded)
    assert_same(got, local(params, grads), rtol=1e-6, atol=1e-7)


@every_row
def test_stays_finite_on_the_partial_means_of_multisteps(row):
    params = tree()
    tx = optax.MultiSteps(row.make(), every_k_schedule=3)
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **row.extra()))
    for k in range(7):
        grads = jax.tree.map(jnp.zeros_like, params) if k % 2 else tree(seed=k)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert is_finite(params)
    assert row.is_instrument or is_finite(state)  # a cosine with a zero gradient is none


# F. Persistence: 29, 30


@every_row
def test_states_survive_pickle_copy_and_flattening(row):
    _, state = trained(row, row.make(), tree())
    leaves, treedef = jax.tree.flatten(state)
    for restored in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state), treedef.unflatten(leaves)):
        assert_same(restored, state)
        assert jax.tree.structure(restored) == jax.tree.structure(state)


@every_row
def test_a_run_resumed_from_a_file_is_bit_equal(row, tmp_path):
    tx = row.make()
    update = jax.jit(lambda g, s, p: step(row, tx, g, s, p))

    def run(params, state, seeds):
        for k in seeds:
            updates, state = update(tree(seed=k), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params = tree()
    whole = run(params, tx.init(params), range(6))
    half = run(params, tx.init(params), range(3))
    np.savez(tmp_path / "half.npz", *(np.asarray(x) for x in jax.tree.leaves(half)))
    with np.load(tmp_path / "half.npz") as file:
        restored = jax.tree.structure(half).unflatten([jnp.asarray(file[name]) for name in file.files])
    assert_same(run(*restored, range(3, 6)), whole)


@every_row
def test_states_round_trip_through_orbax(row, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint", reason="Orbax comes with the test extra")
    _, state = trained(row, row.make(), tree())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    assert_same(restored, state)
