"""Packing changes the number of leaves that a transformation sees, and not its numbers."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx._core.packing import is_packed
from tests.comparing import assert_same

CLOSE = {"rtol": 1e-6, "atol": 1e-7}
LAYERS = {f"layer{i}": {"w": (3, 2 + i % 3), "b": (2 + i % 3,)} for i in range(6)}


def params_of(seed=0, big=True):
    random = np.random.default_rng(seed)

    def array(shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    tree = {**jax.tree.map(array, LAYERS, is_leaf=lambda x: isinstance(x, tuple)), "scale": array(())}
    return {**tree, "big": array((50, 30))} if big else tree


def trained(tx, params, steps=4):
    state = tx.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for k in range(steps):
        params, state = step(params, state, params_of(seed=1 + k))
    return params, state


ALIKE = {
    "gradtx adam": gradtx.adam(0.1),
    "gradtx nesterov": gradtx.sgd(0.1, 0.9, nesterov=True),
    "clipped by the global norm": optax.chain(gradtx.clip_by_global_norm(0.5), gradtx.rmsprop(0.1)),
    "optax adamw": optax.adamw(0.1),
    "optax lion": optax.lion(0.1),
    "guarded": gradtx.skip_nonfinite(gradtx.adagrad(0.1)),
}


@pytest.mark.parametrize("name", ALIKE)
def test_packing_does_not_change_the_numbers(name):
    expected, expected_state = trained(ALIKE[name], params_of())
    got, state = trained(gradtx.packed(ALIKE[name], max_leaf_size=100), params_of())
    assert_same(got, expected, **CLOSE)
    assert_same(state.restored(), expected_state, **CLOSE)


def test_small_leaves_share_a_vector_and_large_leaves_stay_separate():
    state = gradtx.packed(gradtx.heavy_ball(0.9), max_leaf_size=100).init(params_of())
    velocity = state.packed_state.velocity
    assert [v.shape for v in velocity.vectors] == [(sum(x.size for x in jax.tree.leaves(params_of(big=False))),)]
    assert velocity.alone["['big']"].shape == (50, 30)
    assert len(jax.tree.leaves(velocity)) == 2


def test_a_long_vector_has_an_even_number_of_entries_and_the_leaf_left_out_is_trained():
    random = np.random.default_rng(0)
    params = {f"layer{i}": jnp.asarray(random.normal(size=(51, 41)), jnp.float32) for i in range(4)}
    params["bias"] = jnp.asarray(random.normal(size=3), jnp.float32)
    packed, unpack = gradtx.pack(params)
    assert [v.size for v in packed.vectors] == [4 * 51 * 41]
    assert list(packed.alone) == ["['bias']"]
    assert_same(unpack(packed), params, **CLOSE)
    tx = gradtx.adam(0.1)
    expected, _ = tx.update(params, tx.init(params))
    got, _ = jax.jit(tx.update)(packed, tx.init(packed))
    assert_same(unpack(got), expected, **CLOSE)


def test_each_dtype_has_a_vector_and_the_only_leaf_of_a_dtype_stays_separate():
    params = {"a": jnp.ones(2), "b": jnp.ones(3), "c": jnp.ones(2, jnp.bfloat16), "d": jnp.ones((), jnp.bfloat16)}
    packed, unpack = gradtx.pack({**params, "e": jnp.ones(2, jnp.float16), "f": None})
    assert [(v.shape, v.dtype.name) for v in packed.vectors] == [((5,), "float32"), ((3,), "bfloat16")]
    assert packed.alone["['e']"].dtype == jnp.float16
    assert_same(unpack(packed), {**params, "e": jnp.ones(2, jnp.float16), "f": None}, **CLOSE)


LEAFWISE = {
    "gradtx.clip_by_norm": gradtx.clip_by_norm(1e9),
    "lars": optax.lars(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1),
    "factored moments": optax.scale_by_factored_rms(min_dim_size_to_factor=2),
    "adaptive clipping": optax.adaptive_grad_clip(0.1),
    "clipping by the root mean square of a block": optax.clip_by_block_rms(1.0),
    "decay of matrices only": optax.adamw(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    "noise": optax.add_noise(0.1, 0.1, 0),
}


@pytest.mark.parametrize("name", LEAFWISE)
def test_transformations_that_treat_each_leaf_separately_are_refused(name):
    with pytest.raises(ValueError, match="packed: tx treats each leaf by itself"):
        gradtx.packed(LEAFWISE[name]).init(params_of())


def test_a_mask_inside_packed_is_refused_and_a_mask_outside_works():
    params = params_of(big=False)
    mask = {**jax.tree.map(lambda _: True, params), "scale": False}
    with pytest.raises(ValueError, match="packed: tx does not run on another tree"):
        gradtx.packed(optax.masked(gradtx.adam(0.1), mask)).init(params)
    grads = params_of(seed=1, big=False)
    outside, inside = optax.masked(gradtx.packed(gradtx.adam(0.1)), mask), optax.masked(gradtx.adam(0.1), mask)
    assert_same(outside.update(grads, outside.init(params))[0], inside.update(grads, inside.init(params))[0], **CLOSE)


def test_traced_hyperparameters_are_accepted():
    def run(rate):
        tx = gradtx.packed(gradtx.sgd(rate))
        return tx.update(params_of(), tx.init(params_of()))[0]

    mapped = jax.vmap(run)(jnp.array([0.1, 0.2]))
    assert_same(jax.tree.map(lambda x: x[1], mapped), run(0.2), **CLOSE)


def test_a_missing_gradient_leaves_its_part_of_the_vectors_unchanged():
    params, tx = params_of(big=False), gradtx.packed(gradtx.adam(0.1))
    _, state = tx.update(params_of(seed=1, big=False), tx.init(params))
    grads = {**params_of(seed=2, big=False), "scale": None, "layer3": None}
    with pytest.raises(ValueError, match="packed: the gradients are not the tree"):
        tx.update(grads, state)
    grads["layer3"] = {"w": None, "b": None}
    updates, new = tx.update(grads, state)
    assert updates["scale"] is None
    assert updates["layer3"] == {"w": None, "b": None}
    for moment in ("mu", "nu"):
        before, after = (optax.tree.get(s.restored(), moment) for s in (state, new))
        np.testing.assert_array_equal(before["scale"], after["scale"])
        np.testing.assert_array_equal(before["layer3"]["w"], after["layer3"]["w"])
        assert not np.array_equal(before["layer2"]["w"], after["layer2"]["w"])


def test_a_step_without_any_gradient_does_not_change_the_state():
    params, tx = params_of(big=False), gradtx.packed(gradtx.heavy_ball(0.5))
    _, state = tx.update(params, tx.init(params))
    updates, new = tx.update(jax.tree.map(lambda _: None, params), state, params)
    assert not jax.tree.leaves(updates)
    assert_same(new.restored().velocity, state.restored().velocity)


def test_a_state_can_be_restored_trained_without_packing_and_packed_again():
    tx, inner = gradtx.packed(gradtx.rmsprop(0.1, momentum=0.9)), gradtx.rmsprop(0.1, momentum=0.9)
    params, state = trained(tx, params_of())
    grads = params_of(seed=9)
    expected, expected_state = tx.update(grads, state, params)
    got, tree_state = inner.update(grads, state.restored(), params)
    assert_same(got, expected, **CLOSE)
    assert_same(state.replaced(tree_state), expected_state, **CLOSE)


def test_nesterov_eval_params_accepts_the_users_tree_and_a_packed_tree():
    inner = gradtx.sgd(0.1, 0.9, nesterov=True)
    params, state = trained(optax.chain(optax.identity(), gradtx.packed(inner)), params_of())
    expected = gradtx.nesterov_eval_params(*trained(inner, params_of()))
    assert_same(gradtx.nesterov_eval_params(params, state), expected, **CLOSE)
    packed, unpack = gradtx.pack(params_of())
    updates, state = inner.update(packed, inner.init(packed))
    at = gradtx.nesterov_eval_params(optax.apply_updates(packed, updates), state)
    assert_same(unpack(at), jax.tree.map(lambda x: 0.9 * x, params_of()), **CLOSE)


def loss(tree):
    return sum(jnp.sum(jnp.sin(x) * (i + 1)) for i, x in enumerate(jax.tree.leaves(tree)))


def test_derivatives_through_unpack_equal_those_of_the_tree_in_both_modes():
    packed, unpack = gradtx.pack(params_of(), max_leaf_size=100)
    grads = jax.grad(lambda p: loss(unpack(p)))(packed)
    assert is_packed(grads)
    assert_same(unpack(grads), jax.grad(loss)(params_of()), **CLOSE)
    direction = jax.tree.map(jnp.ones_like, packed)
    _, product = jax.jvp(jax.grad(lambda p: loss(unpack(p))), (packed,), (direction,))
    _, expected = jax.jvp(jax.grad(loss), (params_of(),), (unpack(direction),))
    assert_same(unpack(product), expected, **CLOSE)


def test_the_backward_pass_of_unpack_is_one_concatenation():
    packed, unpack = gradtx.pack(params_of(big=False))
    program = str(jax.make_jaxpr(jax.grad(lambda p: loss(unpack(p))))(packed))
    assert program.count("concatenate") == 1
    assert program.count("split") == 1
    assert not any(operation in program for operation in ("pad", "scatter", "dynamic_update_slice"))


def test_packed_parameters_train_like_the_tree_in_a_scan_with_donation():
    def run(tx, params, of):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: loss(of(p)))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        train = jax.jit(lambda p, s: jax.lax.scan(step, (p, s), length=5)[0], donate_argnums=(0, 1))
        return train(params, tx.init(params))[0]

    packed, unpack = gradtx.pack(params_of())
    expected = run(gradtx.adam(0.1), params_of(), lambda p: p)
    assert_same(unpack(run(gradtx.packed(gradtx.adam(0.1)), packed, unpack)), expected, **CLOSE)


def test_value_fn_reaches_the_inner_transformation_and_sees_the_users_tree():
    params = {"a": jnp.ones(2), "b": jnp.full(3, 2.0)}

    def value_fn(tree):
        return 0.5 * jnp.sum(tree["a"] ** 2) + jnp.sum(tree["b"] ** 2)

    tx = gradtx.packed(gradtx.newton())
    updates, _ = tx.update(jax.grad(value_fn)(params), tx.init(params), params, value_fn=value_fn)
    assert_same(updates, jax.tree.map(lambda x: -x, params), rtol=1e-5)


def test_sharded_leaves_stay_separate_and_replicated_leaves_are_packed():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        specs = {"w": jax.P("x", None), "b": jax.P(None), "c": jax.P(None)}
        alone = {"w": jnp.ones((16, 2)), "b": jnp.ones(3), "c": jnp.ones(4)}
        params = jax.device_put(alone, {k: jax.sharding.NamedSharding(mesh, s) for k, s in specs.items()})
        tx = gradtx.packed(gradtx.adam(0.1))
        state = jax.jit(tx.init)(params)
        mu = state.packed_state[0].mu
        assert [v.shape for v in mu.vectors] == [(7,)]
        assert jax.typeof(mu.alone["['w']"]) == jax.typeof(params["w"])
        updates, new = jax.jit(tx.update)(params, state, params)
        assert jax.tree.map(jax.typeof, updates) == jax.tree.map(jax.typeof, params)
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    automatic = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(jnp.ones(16), jax.sharding.NamedSharding(automatic, jax.P("x")))
    packed, _ = gradtx.pack({"a": sharded, "b": jnp.ones(2), "c": jnp.ones(2)})
    assert packed.alone["['a']"].sharding == sharded.sharding
    assert packed.vectors[0].shape == (4,)


def test_packed_trees_can_be_pickled_and_copied_and_share_one_compiled_program():
    packed, unpack = gradtx.pack(params_of())
    calls = jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p))
    for again in (packed, pickle.loads(pickle.dumps(packed)), copy.deepcopy(packed), gradtx.pack(params_of())[0]):
        assert_same(unpack(calls(again)), jax.tree.map(lambda x: x + 1, params_of()), **CLOSE)
    assert calls._cache_size() == 1


def test_a_step_on_packed_parameters_has_a_tenth_of_the_operations():
    params = {f"p{i}": jnp.ones(3) for i in range(50)}

    def counted(jaxpr):  # leaves of one shape share a jitted rule, so each call is counted
        inner = [sub for e in jaxpr.eqns for sub in jax.tree.leaves(list(e.params.values()), is_leaf=has_eqns)]
        return len(jaxpr.eqns) + sum(counted(sub) for sub in inner if has_eqns(sub))

    def has_eqns(x):
        return hasattr(x, "eqns")

    def operations(tx, p):
        return counted(jax.make_jaxpr(lambda g, s: tx.update(g, s))(p, tx.init(p)))

    assert operations(gradtx.adam(0.1), params) > 10 * operations(
        gradtx.packed(gradtx.adam(0.1)), gradtx.pack(params)[0]
    )


def test_bad_arguments_are_refused_by_name():
    for function in (lambda size: gradtx.packed(gradtx.sgd(0.1), size), lambda size: gradtx.pack(jnp.ones(2), size)):
        with pytest.raises(ValueError, match="max_leaf_size must be at least 1, got 0"):
            function(0)
        with pytest.raises(TypeError, match=r"max_leaf_size must be an integer, got 1\.5"):
            function(1.5)
    with pytest.raises(TypeError, match="packed: tx must be a gradient transformation"):
        gradtx.packed(lambda g: g)
    with pytest.raises(TypeError, match=r"pack: params\['steps'\] must be of a floating dtype"):
        gradtx.pack({"steps": jnp.arange(3)})


def test_flax_msgpack_restores_vectors_and_separate_leaves():
    serialization = pytest.importorskip("flax.serialization", reason="Flax comes with the test extra")
    tx = gradtx.packed(gradtx.adam(0.1), max_leaf_size=100)
    params, state = trained(tx, params_of())
    restored = serialization.from_bytes(tx.init(params), serialization.to_bytes(state))
    assert_same(restored, state)
    grads = params_of(seed=9)
    assert_same(tx.update(grads, restored, params)[0], tx.update(grads, state, params)[0])


def test_flax_variables_are_packed_and_unpacked_as_variables():
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    variables = nnx.state(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), nnx.Param)
    grads = jax.tree.map(jnp.ones_like, variables)
    tx = gradtx.packed(gradtx.sgd(0.1, 0.9))
    updates, _ = tx.update(grads, tx.init(variables), variables)
    assert_same(updates, jax.tree.map(lambda g: -0.1 * g, grads), **CLOSE)
    packed, unpack = gradtx.pack(variables)
    assert_same(unpack(packed), variables)


@pytest.mark.parametrize("wrap", [gradtx.packed, lambda tx: gradtx.stored_as(tx, jnp.bfloat16, min_leaf_size=1)])
def test_the_state_of_a_flax_optimizer_is_restored_to_plain_arrays(wrap):
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    tx = wrap(gradtx.sgd(0.1, 0.9))
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(optax.identity(), tx), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    restored = optimizer.opt_state[1].restored()
    velocity = optax.tree.get(restored, "velocity")
    np.testing.assert_allclose(velocity["kernel"], -0.1 * np.ones((2, 1)), rtol=5e-3)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(restored))
    if hasattr(optimizer.opt_state[1], "replaced"):
        doubled = jax.tree.map(lambda x: 2 * x, restored)
        replaced = optimizer.opt_state[1].replaced(doubled)
        assert jax.tree.structure(replaced) == jax.tree.structure(optimizer.opt_state[1])
        assert_same(replaced.restored(), doubled, **CLOSE)
