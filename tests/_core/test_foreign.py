"""A state that the transformation did not make is refused. The message says where it came from and what to do."""

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
    """Returns the state as Flax's msgpack restores it without a target."""
    if isinstance(state, tuple):
        fields = getattr(state, "_fields", None) or map(str, range(len(state)))
        return {field: as_dicts(x) for field, x in zip(fields, state, strict=True)}
    return state


def as_lists(state):
    """Returns the state as Orbax restores it without a target."""
    if isinstance(state, tuple) and not hasattr(state, "_fields"):
        return [as_lists(x) for x in state]
    return as_dicts(state)


@pytest.mark.parametrize("restored", [as_dicts, as_lists])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_state_restored_without_a_target_is_refused_with_advice_to_give_one(name, restored):
    tx = TRANSFORMATIONS[name]
    with pytest.raises(TypeError, match=rf"^{name}: the state is a (dict|list), .* with the target init\(params\)\.$"):
        tx.update(PARAMS, restored(tx.init(PARAMS)), PARAMS, value_fn=lambda p: jnp.sum(p["w"]))


@pytest.mark.parametrize("recipe", ["sgd", "adagrad", "rmsprop", "adadelta", "adam"])
def test_a_state_made_by_optax_is_refused_by_name(recipe):
    tx, state = getattr(gradtx, recipe)(0.1), getattr(optax, recipe)(0.1).init(PARAMS)
    with pytest.raises(TypeError, match=rf"^{recipe}: the state is Optax's \w+State, .* make a new one with init\("):
        tx.update(PARAMS, state, PARAMS)


def test_a_block_refuses_the_state_of_optax_with_the_same_buffers():
    with pytest.raises(TypeError, match=r"^scale_by_adam: the state is Optax's ScaleByAdamState"):
        gradtx.scale_by_adam().update(PARAMS, optax.scale_by_adam().init(PARAMS))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_swapped_parameters_and_state_are_refused_with_the_order_of_the_arguments(name):
    tx = TRANSFORMATIONS[name]
    with pytest.raises(TypeError, match=rf"^{name}: the state .* call update\(updates, state, params\)\.$"):
        tx.update(PARAMS, PARAMS, tx.init(PARAMS), value_fn=lambda p: jnp.sum(p["w"]))
