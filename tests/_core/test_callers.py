"""An error that ends in a call of `update` writes it as the code that called `update` has to."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

X, Y = jnp.ones((4, 3)), jnp.arange(4.0)
PARAMS = {"w": jnp.ones(3)}
NEEDY = {
    "observed": gradtx.observed(optax.adam(0.1)),
    "panel": optax.chain(gradtx.panel(0.1), gradtx.sgd(0.1)),
    "gradient_noise_scale": optax.chain(gradtx.gradient_noise_scale(), gradtx.sgd(0.1)),
    "curvature_ratio": optax.chain(gradtx.curvature_ratio(0.1), gradtx.sgd(0.1)),
    "newton": gradtx.newton(),
}


def said(step, *args):
    """The one error of a step, without another that it came from."""
    with pytest.raises(ValueError, match="needs the loss") as caught:
        step(*args)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("name", NEEDY)
def test_the_call_in_a_plain_loop_is_update(name):
    tx = NEEDY[name]
    message = said(jax.jit(tx.update), PARAMS, tx.init(PARAMS), PARAMS)
    assert message.startswith(f"{name} needs the loss")
    assert "call update(grads, state, params, " in message


@pytest.mark.parametrize("name", NEEDY)
@pytest.mark.parametrize("is_given_to_apply_gradients", [False, True])
def test_the_call_inside_linens_train_state_replaces_apply_gradients(name, is_given_to_apply_gradients):
    train_state = pytest.importorskip("flax.training.train_state", reason="Flax comes with the test extra")
    state = train_state.TrainState.create(apply_fn=None, params=PARAMS, tx=NEEDY[name])
    extra = {"losses_fn": lambda params: params["w"]} if is_given_to_apply_gradients else {}
    message = said(jax.jit(lambda state: state.apply_gradients(grads=PARAMS, **extra)), state)
    assert message.startswith(f"{name} needs the loss")
    code = message.split("write in its place ")[1].rsplit("opt_state=opt_state)", 1)[0] + "opt_state=opt_state)"

    def losses(params):
        return (X @ params["w"] - Y) ** 2

    scope = {"state": state, "grads": PARAMS, "optax": optax, "losses": losses, "loss": lambda p: losses(p).mean()}
    exec(code, scope)  # what the message says, pasted
    assert scope["state"].step == 1
    assert not jnp.allclose(scope["state"].params["w"], PARAMS["w"])


@pytest.mark.parametrize("name", NEEDY)
def test_the_call_inside_an_nnx_optimizer_is_that_of_the_optimizer(name):
    nnx = pytest.importorskip("flax.nnx", reason="Flax comes with the test extra")
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, NEEDY[name], wrt=nnx.Param)
    message = said(nnx.jit(lambda model, optimizer: optimizer.update(model, nnx.state(model))), model, optimizer)
    assert message.startswith(f"{name} needs the loss")
    assert "call optimizer.update(model, grads, " in message
