"""The methods of the chapter as rows of a comparison."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import optax

import gradtx


@dataclass(frozen=True)
class Method:
    """A row of the comparison: a function that makes the method, and the middle of its grid of learning rates."""

    name: str
    make_tx: Callable[..., optax.GradientTransformation]  # takes a learning rate, and other arguments by name
    middle: float  # the middle of its learning-rate grid
    full_batch: bool = False


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("sgd", gradtx.sgd, 1.0),
        Method("momentum", partial(gradtx.sgd, momentum=0.9), 0.1),
        Method("nesterov", partial(gradtx.sgd, momentum=0.9, nesterov=True), 0.1),
        # It counts flips of signs, which minibatch noise causes too (chapter §5.1), so it gets the whole training set.
        Method("delta_bar_delta", gradtx.delta_bar_delta, 0.1, full_batch=True),
        Method("adagrad", gradtx.adagrad, 0.1),
        Method("rmsprop", gradtx.rmsprop, 0.01),
        Method("rmsprop_momentum", partial(gradtx.rmsprop, momentum=0.9), 0.001),
        Method("rmsprop_nesterov", partial(gradtx.rmsprop, momentum=0.9, nesterov=True), 0.001),
        Method("adadelta", gradtx.adadelta, 3.0),
        Method("adam", gradtx.adam, 0.01),
    )
}


def method_called(method: Method | str) -> Method:
    """The row with this name. A row is returned unchanged."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"compare: no method is called {method!r}; there are {', '.join(METHODS)}.")
    return METHODS[method]
