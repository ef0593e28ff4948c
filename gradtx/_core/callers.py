"""The call of `update` as the user has to write it, for error messages. With Flax it is a call of Flax's own method."""

import sys
from collections.abc import Iterable


def update_call(arguments: Iterable[str]) -> str:
    """The call with these arguments after `params`, as the code that called `update` has to write it.

    `value_fn=loss` gives "call update(grads, state, params, value_fn=loss)", or inside Flax's nnx.Optimizer "call
    optimizer.update(model, grads, value_fn=loss)". The `apply_gradients` of Linen's TrainState passes no extra
    arguments. Inside it the result is the code to write instead.
    """
    more = "".join(f", {argument}" for argument in arguments)
    caller = _flax_caller()
    if caller == "apply_gradients":
        return (
            "TrainState.apply_gradients does not pass it on, so write in its place updates, opt_state = "
            f"state.tx.update(grads, state.opt_state, state.params{more}); state = state.replace(step=state.step + 1, "
            "params=optax.apply_updates(state.params, updates), opt_state=opt_state)"
        )
    if caller == "update":
        return f"call optimizer.update(model, grads{more})"
    return f"call update(grads, state, params{more})"


def _flax_caller() -> str | None:
    """The method of Flax that is calling `update` now; None if there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("apply_gradients", "update") and str(frame.f_globals.get("__name__")).startswith("flax."):
            return name
        frame = frame.f_back
    return None
