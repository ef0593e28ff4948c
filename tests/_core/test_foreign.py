"""A state from elsewhere is refused with a sentence that says where it came from and what to do."""

import jax.numpy as jnp
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.ones(2)}
TRANSFORMATIONS = {
    "sgd": gradtx.sgd(0.1),
    "adam": gradtx.adam(0.1),
    "gradient_norm": gradtx.gradient_norm(),
    "observed": gradtx.observed(gradtx.sgd(0.1)),
    "packed": gradtx.packed(gradtx.adam(0.1)),
    "stored_as": gradtx.stored_as(gradtx.adam(0.1), "8bit"),
    "skip_nonfinite": gradtx.skip_nonfinite(gradtx.adam(0.1)),
    "skip_spikes": gradtx.skip_spikes(gradtx.adam(0.1)),
    "stale": gradtx.stale(gradtx.adam(0.1), 1),
    "accumulate": gradtx.accumulate(gradtx.adam(0.1), 2),
    "newton": gradtx.newton(),
    "chain": gradtx.chain(gradtx.gradient_norm(), gradtx.adam(0.1)),
}


def as_dicts(state):
    """What Flax's msgpack gives without a target."""
    if isinstance(state, tuple):
        fields = getattr(state, "_fields", None) or map(str, range(len(state)))
        return {field: as_dicts(x) for field, x in zip(fields, state, strict=True)}
    return state


def as_lists(state):
    """What Orbax gives without a target."""
    if isinstance(state, tuple) and not hasattr(state, "_fields"):
        return [as_lists(x) for x in state]
    return as_dicts(state)


@pytest.mark.parametrize("restored", [as_dicts, as_lists])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_state_restored_without_a_target_is_told_to_be_restored_with_one(name, restored):
    tx = TRANSFORMATIONS[name]
    with pytest.raises(TypeError, match=rf"^{name}: the state is a (dict|list), .* with the target init\(params\)\.$"):
        tx.update(PARAMS, restored(tx.init(PARAMS)), PARAMS, value_fn=lambda p: jnp.sum(p["w"]))


@pytest.mark.parametrize("recipe", ["sgd", "adagrad", "rmsprop", "adadelta", "adam"])
def test_a_state_of_optax_is_named(recipe):
    tx, state = getattr(gradtx, recipe)(0.1), getattr(optax, recipe)(0.1).init(PARAMS)
    with pytest.raises(TypeError, match=rf"^{recipe}: the state is Optax's \w+State, .* make a new one with init\("):
        tx.update(PARAMS, state, PARAMS)


def test_a_block_names_the_state_of_optax_that_has_its_buffers():
    with pytest.raises(TypeError, match=r"^scale_by_adam: the state is Optax's ScaleByAdamState"):
        gradtx.scale_by_adam().update(PARAMS, optax.scale_by_adam().init(PARAMS))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_parameters_in_the_place_of_the_state_are_told_the_order_of_the_arguments(name):
    tx = TRANSFORMATIONS[name]
    with pytest.raises(TypeError, match=rf"^{name}: the state .* call update\(updates, state, params\)\.$"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS), value_fn=lambda p: jnp.sum(p["w"]))
