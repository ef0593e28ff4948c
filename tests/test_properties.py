"""These properties hold for generated trees, dtypes, numbers and chains, and over many steps.

Hypothesis draws the same examples every time (`derandomize`), so that a failure can be repeated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gradtx

from .zoo import ROWS

drawn = settings(
    max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
FLOATS = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-6}  # tolerances of a few roundings

dtypes = st.sampled_from(sorted(FLOATS))
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw, dtypes=dtypes):
    shape, dtype, seed = draw(shapes), draw(dtypes), draw(st.integers(0, 99))
    exponent = draw(st.integers(-6, 3))
    values = np.random.default_rng(seed).normal(size=shape) * 10.0**exponent
    return jnp.asarray(values, jnp.float32).astype(dtype)


def trees(leaves):
    """Draws nested dicts, lists and tuples of leaves, or a single leaf."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        ),
        max_leaves=5,
    )


def wide(x):
    return np.asarray(x, np.float64)


def norm_of(tree):
    return np.sqrt(sum(float(np.sum(wide(x) ** 2)) for x in jax.tree.leaves(tree)))


METHODS = {
    "momentum": lambda: gradtx.sgd(0.1, momentum=0.9),
    "rmsprop_nesterov": lambda: gradtx.rmsprop(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: gradtx.adam(0.1),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.sampled(1)
@drawn
@given(gradients=trees(arrays()))
def test_a_method_treats_each_leaf_as_if_it_were_the_only_one(method, gradients):
    tx = METHODS[method]()
    whole, _ = tx.update(gradients, tx.init(gradients))
    assert jax.tree.structure(whole) == jax.tree.structure(gradients)
    for g, u in zip(jax.tree.leaves(gradients), jax.tree.leaves(whole), strict=True):
        alone, _ = tx.update(g, tx.init(g))
        assert u.dtype == g.dtype
        assert u.shape == g.shape
        assert u.tobytes() == alone.tobytes()


@drawn
@given(gradients=trees(arrays()), max_norm=st.floats(1e-4, 1e4))
def test_clipping_by_the_global_norm_scales_the_gradient_to_the_limit(gradients, max_norm):
    tx = gradtx.clip_by_global_norm(max_norm)
    clipped, _ = tx.update(gradients, tx.init(gradients))
    before = norm_of(gradients)
    rounding = max((FLOATS[str(x.dtype)] for x in jax.tree.leaves(gradients)), default=0.0)
    assert norm_of(clipped) <= max_norm * (1 + rounding) + 1e-7 * len(jax.tree.leaves(gradients))
    factor = min(1.0, max_norm / before) if before else 1.0
    for g, c in zip(jax.tree.leaves(gradients), jax.tree.leaves(clipped), strict=True):
        # atol is for entries below the smallest normal number of a half-precision leaf
        np.testing.assert_allclose(wide(c), factor * wide(g), rtol=4 * FLOATS[str(g.dtype)], atol=1e-7)


@drawn
@given(initial=st.floats(1e-3, 10), fraction=st.floats(0, 1), steps=st.integers(1, 1000), at=st.integers(0, 2000))
def test_a_linear_decay_is_monotone_and_reaches_its_final_value(initial, fraction, steps, at):
    final = fraction * initial
    schedule = gradtx.linear_decay(initial, final, steps)
    now, later = float(schedule(at)), float(schedule(at + 1))
    assert final * (1 - 1e-6) - 1e-12 <= later <= now * (1 + 1e-6) <= initial * (1 + 1e-5)
    if at >= steps:
        assert now == pytest.approx(final, rel=1e-6, abs=1e-12)


@drawn
@given(tree=trees(arrays(st.sampled_from(["float16", "float32"]))), limit=st.integers(1, 70))
def test_unpacking_restores_every_leaf_bit_for_bit(tree, limit):
    packed, unpack = gradtx.pack(tree, max_leaf_size=limit)
    found = unpack(packed)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert x.tobytes() == y.tobytes()


@drawn
@given(gradients=trees(arrays()), limit=st.integers(1, 70))
def test_a_packed_method_gives_the_updates_of_the_plain_method(gradients, limit):
    tx = gradtx.adam(0.1)
    packed = gradtx.packed(tx, max_leaf_size=limit)
    expected, _ = tx.update(gradients, tx.init(gradients))
    found, _ = packed.update(gradients, packed.init(gradients))
    for e, f in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(wide(f), wide(e), rtol=4 * FLOATS[str(e.dtype)], atol=1e-7)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("form", "rounding"), [(jnp.bfloat16, 2**-7), ("8bit", 2**-3)], ids=str)
@drawn
@given(gradients=trees(arrays(st.just("float32"))))
def test_a_stored_state_is_close_to_the_exact_state(form, rounding, gradients):
    tx = gradtx.sgd(0.1, momentum=0.9)
    stored = gradtx.stored_as(tx, form, min_leaf_size=1)
    _, state = stored.update(gradients, stored.init(gradients))
    _, exact = tx.update(gradients, tx.init(gradients))
    restored = jax.tree.leaves(state.restored())
    for found, expected in zip(restored, jax.tree.leaves(exact), strict=True):
        assert found.dtype == expected.dtype
        largest = np.max(np.abs(wide(expected)), initial=0.0)
        np.testing.assert_allclose(wide(found), wide(expected), rtol=rounding, atol=1e-3 * largest)


@drawn
@given(names=st.lists(st.sampled_from(["gradient_norm", "update_ratio", "trajectory"]), min_size=1, max_size=5))
def test_every_reading_of_a_chain_has_a_different_name(names):
    params = {"w": jnp.ones(3)}
    tx = optax.chain(*(getattr(gradtx, name)() for name in names))
    _, state = tx.update(params, tx.init(params), params)
    found = gradtx.readings(state)
    for kind in set(names):
        numbered = {name.split("/")[0] for name in found if name.split("/")[0].split("@")[0] == kind}
        assert numbered == {kind, *(f"{kind}@{i}" for i in range(2, names.count(kind) + 1))}


# Random chains with bad numbers

BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "denormal": 1e-41, "huge": 3e38}
LINKS = {row.name: row for row in ROWS if not row.name.startswith("newton")}


@pytest.mark.slow
@settings(drawn, max_examples=40)
@given(
    names=st.lists(st.sampled_from(sorted(LINKS)), min_size=3, max_size=5),
    bad=st.sampled_from(sorted(BAD)),
    place=st.integers(0, 5),
    at=st.integers(0, 2),
)
def test_a_bad_number_changes_neither_the_types_of_the_state_nor_another_leaf(names, bad, place, at):
    rows = [LINKS[name] for name in names]
    tx = optax.chain(*(row.make() for row in rows))
    extra = {name: value for row in rows for name, value in row.extra().items()}
    params = {"bad": jnp.linspace(-1, 1, 6).reshape(2, 3), "good": jnp.linspace(0.5, 2, 4)}
    keys = jax.random.split(jax.random.key(place), 3)
    clean = [jax.tree.map(lambda p, k=key: jax.random.normal(k, p.shape), params) for key in keys]
    dirty = [g | {"bad": g["bad"].reshape(-1).at[place].set(BAD[bad]).reshape(2, 3)} if k == at else g
             for k, g in enumerate(clean)]  # fmt: skip

    update = jax.jit(lambda g, s: tx.update(g, s, params, **extra))
    ends = {}
    for kind, gradients in {"clean": clean, "dirty": dirty}.items():
        state = tx.init(params)
        expected = jax.tree.map(jax.typeof, state)
        for g in gradients:
            updates, state = update(g, state)
            assert jax.tree.map(jax.typeof, state) == expected
        ends[kind] = updates
    if all(row.is_elementwise or row.is_instrument for row in rows):
        assert ends["dirty"]["good"].tobytes() == ends["clean"]["good"].tobytes()


# Many steps


@pytest.mark.slow
def test_a_hundred_thousand_steps_need_constant_memory_and_one_program():
    target = jnp.linspace(-1, 1, 8)
    rate = gradtx.linear_decay(0.01, 1e-4, 90_000)
    tx = gradtx.skip_nonfinite(
        optax.chain(
            gradtx.panel(rate, every=50),
            gradtx.clip_by_global_norm(1.0),
            gradtx.rmsprop(rate, momentum=0.9, nesterov=True),
            gradtx.trajectory(),
        )
    )

    def losses(w, noise):
        return jnp.mean((w - target + 0.1 * noise) ** 2, axis=1)

    @jax.jit
    def thousand(carry, key):
        def step(carry, key):
            w, state = carry
            noise = jax.random.normal(key, (4, 8))
            g = jax.grad(lambda w: jnp.mean(losses(w, noise)))(w)
            updates, state = tx.update(g, state, w, losses_fn=lambda w: losses(w, noise))
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, carry, jax.random.split(key, 1000))[0]

    carry, held = (jnp.zeros(8), tx.init(jnp.zeros(8))), []
    for k in range(100):
        carry = thousand(carry, jax.random.key(k))
        held.append((len(jax.live_arrays()), sum(x.nbytes for x in jax.live_arrays())))
    assert thousand._cache_size() == 1
    assert held[-1] == held[1]
    w, state = carry
    assert gradtx.readings(state)["trajectory/path_length"] > 1
    assert state.gave_up == False  # noqa: E712 (an array)
    np.testing.assert_allclose(w, target, atol=0.02)
    counts = [int(x) for path, x in jax.tree_util.tree_leaves_with_path(state) if "count" in jax.tree_util.keystr(path)]
    assert max(counts) == 100_000
