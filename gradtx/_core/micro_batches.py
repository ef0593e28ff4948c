"""The share of the last micro-batch in an accumulated gradient.

A wrapper that accumulates gives its inner transformation the mean gradient of many micro-batches, but the losses of the
last one only. An instrument that counts examples needs the number of all: the examples of the last micro-batch, divided
by its share in the mean.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from .types import MultiSteps

SHARE = "last_micro_batch_share"  # the extra argument in which `accumulate` passes the share


def last_share(name: str, extra: dict[str, Any]) -> Any:
    """The share of the last micro-batch in the mean gradient that a transformation sees now; 1 without accumulation.

    Raises if the gradient is not a mean.
    """
    share = extra.get(SHARE, 1.0)
    for multi_steps, earlier in _multi_steps():
        if not getattr(multi_steps, "_use_grad_mean", True):
            raise ValueError(
                f"{name}: the gradient must be the mean of the micro-batches, got their sum from "
                "optax.MultiSteps(use_grad_mean=False): leave use_grad_mean at True, or chain the instrument outside."
            )
        share = share / (jnp.asarray(earlier, jnp.result_type(float)) + 1)
    return share


def _multi_steps() -> Iterator[tuple[Any, Any]]:
    """Each `optax.MultiSteps` whose `update` is under way, and how many mini-steps are in its mean already.

    `MultiSteps` does not pass these on. But while the inner transformation is traced (or runs), `MultiSteps.update` is
    among its callers, and the argument `state` of that counts the mini-steps.
    """
    update = inspect.unwrap(MultiSteps.update).__code__
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is update and hasattr(frame.f_locals.get("state"), "mini_step"):
            yield frame.f_locals.get("self"), frame.f_locals["state"].mini_step
        frame = frame.f_back
