"""Checks whether the loss of one example depends on the other examples of its batch, as with batch statistics.

If it does, a single example has no gradient, and numbers from the scatter of the losses' slopes are meaningless. The
check searches the program of `losses_fn` when it is traced, so the step itself costs no more. It follows the axis of
the examples from the batch (arrays whose first axis is as long as the losses) through the common operations. A sum, a
maximum or a matrix product over that axis mixes the examples, and so does a table of pairs, if its inputs depend on the
parameters and its result reaches a loss. If the axis is lost (in a loop, a scatter, a kernel), nothing is concluded,
and examples that mix there are not found.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.types import Params


class _Known(NamedTuple):
    """Known facts about an array of the program."""

    axis: int | None = None  # the axis of the examples; None if there is none, or it was lost
    is_trained: bool = False  # whether it depends on the parameters
    is_mixed: bool = False  # whether an entry depends on many examples


def mixes_examples(losses_fn: Callable[[Params], jax.Array], params: Params) -> bool:
    """Whether a loss is found to depend on more than one example."""
    closed, shape = jax.make_jaxpr(losses_fn, return_shape=True)(params)
    examples = shape.shape[0]
    if examples == 1:
        return False
    batch = [_Known(0 if jnp.ndim(x) and jnp.shape(x)[0] == examples else None) for x in closed.consts]
    found = _followed(closed.jaxpr, [*batch, *(_Known(is_trained=True) for _ in closed.jaxpr.invars)])
    return any(known.is_mixed for known in found)


def _followed(jaxpr: Any, inputs: list[_Known]) -> list[_Known]:
    """The facts about the outputs of a program, given those about its constants and inputs."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def of(x: Any) -> _Known:
        return _Known() if hasattr(x, "val") else known[x]  # only a literal has `val`

    for equation in jaxpr.eqns:
        operands = [of(x) for x in equation.invars]
        inner = _inner(equation)
        if inner is not None and len(inner.constvars) + len(inner.invars) == len(operands):
            results = _followed(inner, operands)
        else:
            results = [_result(equation, operands, x) for x in equation.outvars]
        known.update(zip(equation.outvars, results, strict=True))
    return [of(x) for x in jaxpr.outvars]


def _inner(equation: Any) -> Any:
    """The program inside a call (`jit`, `checkpoint`, `custom_jvp`); None for any other operation."""
    if equation.primitive.name in ("scan", "while", "cond"):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in equation.params:
            program = equation.params[name]
            return getattr(program, "jaxpr", program)
    return None


def _result(equation: Any, operands: list[_Known], out: Any) -> _Known:
    is_trained = any(x.is_trained for x in operands)
    places = [None if x.axis is None else _place(equation, i, x.axis, out) for i, x in enumerate(operands)]
    is_summed = any(place == _MIXED and x.is_trained for place, x in zip(places, operands, strict=True))
    axes = {place for place in places if place is not None and place != _MIXED}
    is_pair = len(axes) > 1 and all(x.is_trained for x in operands if x.axis is not None)
    is_mixed = is_summed or is_pair or any(x.is_mixed for x in operands)
    return _Known(axes.pop() if len(axes) == 1 else None, is_trained, is_mixed)


_MIXED = -1


def _place(equation: Any, number: int, axis: int, out: Any) -> int | None:
    """Where the axis of operand `number` is in the result: `_MIXED` if it is summed over, None if it is lost."""
    name, params = equation.primitive.name, equation.params
    shape, after = equation.invars[number].aval.shape, getattr(out.aval, "shape", ())
    if name == "broadcast_in_dim":
        return params["broadcast_dimensions"][axis]
    if name == "transpose":
        return params["permutation"].index(axis)
    if name in ("reshape", "squeeze"):
        fits = (i for i, size in enumerate(after) if size == shape[axis]
                and math.prod(after[:i]) == math.prod(shape[:axis]))  # fmt: skip
        return next(fits, None)
    if name == "dot_general":
        return _place_in_product(params["dimension_numbers"], [x.aval.ndim for x in equation.invars], number, axis)
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        return numbers.out_spec[0] if number == 0 and axis == numbers.lhs_spec[0] else None
    if name == "gather":  # data[indices]: one index per example, with the examples in front
        return 0 if number == 1 and axis == 0 and 0 not in params["dimension_numbers"].offset_dims else None
    if name.startswith(("reduce_", "arg")) and "axes" in params:
        axes = params["axes"]
        return _MIXED if axis in axes else axis - sum(a < axis for a in axes)
    if name.startswith("cum") or name == "sort":
        return _MIXED if axis == params.get("axis", params.get("dimension")) else axis
    if name == "concatenate":
        return None if axis == params["dimension"] else axis
    is_kept = len(shape) == len(after) and shape[axis] == after[axis]
    return axis if is_kept and (shape == after or name in _ALONG_OTHER_AXES) and name not in _SHUFFLES else None


_ALONG_OTHER_AXES = ("pad", "slice", "dynamic_slice", "reduce_window", "reduce_window_max", "reduce_window_sum")
_SHUFFLES = ("rev", "scatter", "scatter-add", "while", "scan", "cond")


def _place_in_product(numbers: Any, ndims: list[int], number: int, axis: int) -> int | None:
    contracting, batch = numbers
    if axis in contracting[number]:
        return _MIXED
    if axis in batch[number]:
        return batch[number].index(axis)
    free = [[i for i in range(n) if i not in contracting[k] and i not in batch[k]] for k, n in enumerate(ndims)]
    before = itertools.accumulate([len(batch[0]), len(free[0])])
    return list(before)[number] + free[number].index(axis)
