"""Part C of the contract is `update`. The numbers are those of the promises."""

import gc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.comparing import assert_same, enable_x64, is_finite, types
from tests.contract.programs import STEPS, advance, part, stacked, step, tree
from tests.contract.test_object_and_init import ones, states_of
from tests.zoo import ROWS

CLOSE = {"rtol": 2e-4, "atol": 1e-5}  # conjugate gradients stop by their residual
HALF = (jnp.bfloat16, jnp.float16)
SMALL = {"eps", "initial_accumulator"}  # their values in the zoo are so small that a change has no visible effect


def only(condition):
    """Runs a test only for the rows for which its promise can fail."""
    rows = [row for row in ROWS if condition(row)]
    return pytest.mark.parametrize("row", rows, ids=str, indirect=True, scope="session")


def changes_updates(row):
    """Instruments do not change updates, as `test_only_the_learning_rate_stage_flips_the_sign` shows."""
    return not row.is_instrument


def zeros_like(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape), x.dtype), tree)


# 10 to 12: structures, shapes, dtypes. Tracing shows them, so nothing is compiled.


def test_updates_keep_structure_shapes_and_dtypes_of_mixed_gradients(row, made):
    grads = {"w": tree(jnp.bfloat16)["w"], "b": tree(jnp.float16)["b"], "s": tree()["s"]}
    updates, _ = jax.eval_shape(lambda g, s, p: step(row, made.tx, g, s, p), grads, made.abstract_state, made.params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, grads)


def test_the_state_keeps_its_types_inside_and_outside_of_cond(row, made):
    for param_dtype in (jnp.float32, *HALF):
        params = tree(param_dtype)
        state = jax.eval_shape(made.tx.init, params)
        for grad_dtype in (jnp.float32, jnp.bfloat16):

            def maybe(pred, grads, state, params):
                new = step(row, made.tx, grads, state, params)[1]
                return new, jax.lax.cond(pred, lambda: new, lambda: state)

            alone, chosen = jax.eval_shape(maybe, True, tree(grad_dtype), state, params)
            assert types(alone) == types(chosen) == types(state), (param_dtype, grad_dtype)


def test_accumulators_are_float32_for_half_precision_parameters(made):
    state = jax.eval_shape(made.tx.init, tree(jnp.bfloat16))
    floating = {
        jax.tree_util.keystr(path): x.dtype
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if jnp.issubdtype(x.dtype, jnp.floating)
    }
    wrong = {name: dtype for name, dtype in floating.items() if dtype != jnp.float32}
    assert wrong == {}, "make these with `accumulators` of gradtx/_core/trees.py"


@only(lambda row: row.takes("accumulator_dtype"))
def test_accumulators_have_the_asked_dtype_or_with_none_that_of_the_parameters(row):
    params = tree(jnp.bfloat16)
    for dtype, expected in ((None, jnp.bfloat16), (jnp.float32, jnp.float32)):
        state = jax.eval_shape(row.make(accumulator_dtype=dtype).init, params)
        assert all(x.dtype == expected for x in jax.tree.leaves(state) if x.ndim > 0)


# 13 and 14: a step is compiled once, and every way of running it gives the same numbers


def test_a_compiled_scan_gives_the_numbers_of_the_plain_loop(made):
    """The scan has traced hyper-parameters. Its state may hold more, because a rate that can change is a reading."""
    params, _, updates = made.run(made.values, made.params, stacked(*made.gradients))
    assert_same(params, made.path[-1][0], **CLOSE)
    for k in range(STEPS):
        assert_same(part(updates, k), made.path[k][2], **CLOSE)


def test_compiled_steps_give_the_numbers_of_the_plain_loop_and_are_traced_once(made):
    """`made.step` raises if it is traced a second time, so a state that changes its types fails here."""
    params, state = made.params, made.tx.init(made.params)
    for grads, (_, expected_state, expected) in zip(made.gradients, made.path, strict=True):
        updates, state = made.step(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert_same((updates, state), (expected, expected_state), **CLOSE)


def test_vmap_over_parameters_and_hyperparameters_gives_the_numbers_of_single_runs(row, made):
    """Promises 14 and 25. The members are the parameters times 1, 2 and -1, and each hyper-parameter halved."""
    members = [(made.values, factor) for factor in (1, 2, -1)]
    members += [({**made.values, name: (value or 0.1) / 2}, 1) for name, value in made.values.items()]
    members = [(values, jax.tree.map(lambda x, f=factor: f * x, made.params)) for values, factor in members]
    gradients = stacked(*made.gradients)
    together = made.runs(*stacked(*members), gradients)
    for number, (values, params) in enumerate(members):
        assert_same(part(together, number), made.run(values, params, gradients), **CLOSE)


# 15: shardings


@only(lambda row: row.allows_sharding)
def test_explicit_shardings_are_kept_and_give_the_same_numbers(row, made):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32), "b": ones(3)}
    gradients = [jax.tree.map(lambda x, k=k: jnp.sin(k + 3 * x), params) for k in range(2)]

    def kinds(tree):
        kind = jax.tree.map(jax.typeof, tree)
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type, x.sharding.spec), kind)

    def train(params, gradients):
        state = made.tx.init(params)
        for grads in gradients:
            new_params, new_state, updates = advance(row, made.tx, params, state, grads)
            assert kinds(new_state) == kinds(state)
            assert kinds(updates) == kinds(new_params) == kinds(params)
            params, state = new_params, new_state
        return params, state.restored() if row.keeps_another_form else state  # the form may depend on the sharding

    expected = jax.jit(train)(params, gradients)
    with jax.set_mesh(mesh):
        shardings = {k: jax.sharding.NamedSharding(mesh, s) for k, s in (("w", jax.P("x", None)), ("b", jax.P(None)))}
        got = jax.jit(train)(*jax.device_put((params, gradients), (shardings, [shardings, shardings])))
        assert kinds(got[0]) == kinds(jax.device_put(params, shardings))
    assert_same(got, expected, **CLOSE)


# 16 to 19: zeros, overflow, NaN, derivatives


@only(changes_updates)
@pytest.mark.parametrize("dtype", [jnp.float32, *HALF], ids=lambda dtype: dtype.dtype.name)
def test_zero_gradients_give_zero_updates(made, dtype):
    params = tree(dtype)
    zeros, state = zeros_like(params), made.tx.init(params)
    for _ in range(3):
        updates, state = made.step_of(dtype)(zeros, state, params)
        assert_same(jax.tree.map(lambda u: jnp.asarray(np.abs(u)), updates), zeros)
    assert is_finite(state)


@only(changes_updates)
@pytest.mark.parametrize("size", [1e25, -400.0])
def test_updates_are_right_or_nan_if_squares_overflow(made, size):
    """The square of each gradient is inf in its dtype. The update is that of float64 arithmetic, or NaN."""
    dtype, rtol = (jnp.float32, 1e-5) if size > 1e20 else (jnp.float16, 2e-3)

    def once(dtype):
        params = tree(dtype)
        large = jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, size), dtype), params)
        return jax.tree.leaves(made.step_of(dtype)(large, made.tx.init(params), params)[0])

    narrow = once(dtype)
    with enable_x64():
        wide = once(jnp.float64)
    for got, expected in zip(narrow, wide, strict=True):
        got = np.where(np.isnan(got), expected, got)
        np.testing.assert_allclose(got, expected, rtol=rtol)


@only(lambda row: row.name in ("clip_by_norm", "clip_by_global_norm"))
def test_clipping_norms_neither_overflow_nor_underflow_nor_stall_in_bfloat16(row):
    for entries, size, dtype, norm in (
        (1e30, 4, jnp.float32, 2e30),
        (1e-25, 4, jnp.float32, 2e-25),
        (1.0, 1000, jnp.bfloat16, 1000**0.5),
    ):
        grads = [jnp.full(size, entries, dtype)]
        tx = row.make(max_norm=norm / 10)
        updates, state = tx.update(grads, tx.init(grads))
        assert np.linalg.norm(np.asarray(updates[0], np.float64)) == pytest.approx(norm / 10, rel=1e-2)
        assert float(jax.tree.leaves(state)[0].ravel()[0]) == pytest.approx(norm, rel=1e-3)
    tx = row.make(max_norm=0.0)
    assert_same(tx.update([jnp.zeros(3)], tx.init([jnp.zeros(3)]))[0], [jnp.zeros(3)])


@only(lambda row: row.is_elementwise)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_nonfinite_entry_stays_visible_and_does_not_spread(row, made, bad):
    grads = made.gradients[0]
    spoiled = {**grads, "w": jnp.asarray(np.where(np.arange(6).reshape(2, 3) == 1, bad, grads["w"]))}
    start = made.tx.init(made.params)
    clean, _ = made.step(grads, start, made.params)
    updates, state = made.step(spoiled, start, made.params)
    again, _ = made.step(grads, state, made.params)
    shown = row.name == "clip_by_value" and bad == float("inf")
    bad_update = updates["w"][0, 1]
    assert bool(np.isfinite(bad_update)) == shown, f"a gradient that is {bad} gives the update {bad_update}"

    def rest(tree):
        return {**tree, "w": np.delete(np.asarray(tree["w"]).ravel(), 1)}

    assert is_finite(rest(again))
    assert_same(rest(updates), rest(clean))


@only(lambda row: changes_updates(row) and row.name != "newton_saddle_free_cg")  # at g = 0 its Krylov space is empty
def test_derivatives_are_finite_even_at_a_zero_gradient(made):
    gradients = stacked(*made.gradients)
    partly = {**gradients, "b": zeros_like(gradients["b"])}
    for g in (gradients, zeros_like(gradients), partly):
        assert is_finite(made.derivative(made.values, made.params, g))


# Conjugate gradients stop by their residual, so a difference quotient says nothing about them. The saddle-free Krylov
# step is tested in tests/methods/test_newton.py, because its derivative takes half a minute to compile here.
@only(
    lambda row: changes_updates(row) and row.hyperparameters and row.name not in ("newton_cg", "newton_saddle_free_cg")
)
def test_the_derivative_by_a_hyperparameter_matches_the_difference_quotient(row, made):
    gradients, h = stacked(*made.gradients), 3e-3
    values = {
        **made.values,
        **{name: np.float32(0.3) for name in ("eps", "initial_accumulator") if name in made.values},
    }

    def summed(name, value):
        updates = made.run({**values, name: np.float32(value)}, made.params, gradients)[2]
        return sum(float(np.sum(np.sin(np.asarray(u, np.float64)))) for u in jax.tree.leaves(updates))

    derivatives, _ = made.derivative(values, made.params, gradients)
    for name, value in values.items():
        quotient = (summed(name, value + h) - summed(name, value - h)) / (2 * h)
        assert derivatives[name] == pytest.approx(quotient, rel=3e-2, abs=3e-3), name


# 20 and 21: strict modes, unusual leaves


@pytest.fixture
def frozen_heap():
    """Keeps the garbage collector, with which JAX looks for leaked tracers, from searching older objects.

    They stay frozen until `tests/conftest.py` drops compiled programs.
    """
    gc.freeze()


def test_update_passes_strict_promotion_and_leak_checks(row, made, frozen_heap):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.checking_leaks():
        for dtype in (jnp.float32, jnp.bfloat16):
            params = tree(dtype)
            jax.eval_shape(lambda g, p: step(row, made.tx, g, made.tx.init(p), p), params, params)


@only(changes_updates)
def test_update_passes_nan_checks(row, made):
    with jax.debug_nans(True), jax.disable_jit():
        state = made.tx.init(made.params)
        for grads in (made.gradients[0], zeros_like(made.params)):
            updates, state = step(row, made.tx, grads, state, made.params)
    assert is_finite(updates)


@only(lambda row: row.allows_complex)
def test_complex_updates_turn_with_the_phase_of_the_gradients(row, made):
    """Turning all gradients by a phase turns all updates by the same phase."""
    params = [jnp.asarray(np.array([1 + 2j, -3j, 0.5], np.complex64))]
    phase = np.complex64(np.exp(0.7j))
    state = turned = made.tx.init(params)
    for _ in range(3):
        updates, state = made.step_of(jnp.complex64)(params, state, params)
        rotated, turned = made.step_of(jnp.complex64)([params[0] * phase], turned, params)
        assert updates[0].dtype == jnp.complex64
        np.testing.assert_allclose(rotated[0], updates[0] * phase, rtol=1e-5, atol=1e-6)
    assert types(state) == types(made.tx.init(params))


@only(lambda row: not row.allows_complex)
def test_complex_leaves_raise_an_error_that_names_the_transformation(row):
    with pytest.raises(ValueError, match=rf"{row.name.split('_cg')[0].split('_saddle')[0]}.*complex"):
        row.make().init([np.ones(3, np.complex64)])


def test_integer_leaves_raise_an_error_at_init_that_names_the_leaf(made):
    for dtype in (np.int32, np.bool_):
        with pytest.raises(TypeError, match=r"params\['steps'\] must be of a floating dtype"):
            made.tx.init({"w": np.ones(3, np.float32), "steps": np.zeros(3, dtype)})


def test_integer_and_float0_gradients_raise_an_error_that_names_the_leaf(row, made):
    params = {"w": ones(3), "a": ones(3)}
    for bad in (np.zeros(3, jax.dtypes.float0), np.ones(3, np.int32)):
        with pytest.raises(TypeError, match=r"\['a'\].*floating dtype"):
            step(row, made.tx, {"w": ones(3), "a": bad}, made.tx.init(params), params)


def test_a_missing_gradient_leaves_its_leaf_and_accumulators_unchanged(row, made):
    state = made.state
    with jax.disable_jit():
        updates, new_state = step(row, made.tx, {**made.gradients[0], "b": None}, state, made.params)
    assert updates["b"] is None
    assert types(new_state) == types(state)
    for old, new in zip(states_of(state), states_of(new_state), strict=True):
        for field in old._fields:
            looks_at_gradients = field not in ("sharpness_vector", "panel_last_params", "trajectory_last")
            if isinstance(getattr(old, field), dict) and looks_at_gradients:
                assert_same(getattr(new, field)["b"], getattr(old, field)["b"])


def test_a_gradient_of_another_shape_is_refused_even_if_it_broadcasts(row, made):
    params = {"w": ones(3)}
    for shape in ((1,), (), (2, 3), (3, 1)):
        with pytest.raises(ValueError, match=r"\['w'\].*shape"):
            step(row, made.tx, {"w": ones(*shape)}, made.tx.init(params), params)


def test_gradients_with_another_tree_than_that_of_init_are_refused(row, made):
    params = {"w": ones(3)}
    for grads in ({"w": ones(3), "extra": ones(3)}, {}, [ones(3)], {"w": [ones(3)]}):
        with pytest.raises(ValueError, match=r"init"):
            step(row, made.tx, grads, made.tx.init(params), params)
