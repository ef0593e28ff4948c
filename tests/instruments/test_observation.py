"""A loss function that does not fit gives one sentence, which ends in what to write."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

X, Y, PARAMS = jnp.ones((4, 3)), jnp.arange(4.0), jnp.ones(3)


def losses(params):
    return (X @ params - Y) ** 2


NEEDS_LOSSES = {
    "observed": gradtx.observed(optax.adam(0.1)),
    "panel": gradtx.panel(0.1),
    "gradient_noise_scale": gradtx.gradient_noise_scale(),
}
SLIPS = {
    "more is returned than the loss": (lambda p: (losses(p), {"accuracy": 1.0}), "lambda params: losses(params)[0]."),
    "a dict is returned": (lambda p: {"loss": losses(p)}, "lambda params: losses(params)['loss']."),
    "a list is returned": (lambda p: list(losses(p)), "return jnp.stack(losses)."),
    "nothing is returned": (lambda p: None, "end the function with `return loss`."),
    "an array in place of the function": (losses(PARAMS), "pass losses_fn=lambda params: losses(params, batch)."),
    "the batch is not bound": (lambda p, batch: losses(p), "pass losses_fn=lambda params: losses(params, batch)."),
    "the mean is returned": (lambda p: losses(p).mean(), "return losses in place of return losses.mean()."),
    "an axis is left": (lambda p: losses(p)[:, None], "as in losses.sum(axis=(1,))."),
    "the losses are whole numbers": (lambda p: jnp.arange(4), "return loss.astype(jnp.float32)."),
}  # fmt: skip


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("name", NEEDS_LOSSES)
def test_the_sentence_ends_in_what_to_write(name, slip, is_compiled):
    tx, (losses_fn, ending) = NEEDS_LOSSES[name], SLIPS[slip]

    def step(state):
        return tx.update(PARAMS, state, PARAMS, losses_fn=losses_fn)

    with pytest.raises((TypeError, ValueError)) as caught:
        (jax.jit(step) if is_compiled else step)(tx.init(PARAMS))
    message = str(caught.value)
    assert message.startswith(f"{name}: losses_fn must ")
    assert message.endswith(ending)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_error_inside_the_loss_stays_as_it_is():
    tx = gradtx.observed(optax.adam(0.1))
    with pytest.raises(TypeError, match="unsupported operand"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, losses_fn=lambda params: params + None)


def test_newton_says_that_the_loss_takes_the_parameters_alone():
    tx = gradtx.newton()
    with pytest.raises(TypeError, match=r"newton: value_fn .* pass value_fn=lambda params: loss\(params, batch\)"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value_fn=lambda params, batch: jnp.sum(params * batch))
