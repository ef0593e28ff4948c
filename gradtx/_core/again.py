"""A step computed again for each of its uses, instead of kept in memory between them.

XLA on the CPU writes one array a loop. A step whose results feed two loops (a scale and then a code of it; a judgement
of the update and then the update) is kept between them in arrays of the parameters' size, and those cost more than the
arithmetic: above 32 MB the memory is fresh, and faults in page by page, at every step. Behind a barrier on its inputs
the step is done once more instead, inside each loop that wants it.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from .tracing import equations, is_traced

# What costs no more to do again than to read: a few operations an entry. A step with anything else in it (a loop, a
# product of matrices, a collective, random bits, a call to the host) is done once.
CHEAP = frozenset(
    """abs add and atan2 bitcast_convert_type broadcast_in_dim cbrt ceil clamp complex concatenate cond conj
    convert_element_type copy cos custom_jvp_call custom_vjp_call div eq erf exp exp2 expand_dims expm1 floor ge gt imag
    integer_pow iota is_finite jit le log log1p logistic lt max min mul ne neg nextafter not optimization_barrier or pad
    pjit pow real reduce reduce_and reduce_max reduce_min reduce_or reduce_sum rem reshape round rsqrt select_n
    shift_left shift_right_arithmetic shift_right_logical sign sin slice split sqrt square squeeze stop_gradient sub tan
    tanh transpose xor""".split()  # noqa: SIM905 (a line a name would be a page)
)

_is_repeated: ContextVar[bool] = ContextVar("is_repeated", default=False)
_selection: ContextVar["Selection | None"] = ContextVar("selection", default=None)


def is_repeated() -> bool:
    """Whether what is traced now is done again for each use: then nothing has to be arranged within it."""
    return _is_repeated.get()


def repeated(step: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """A function that gives `step(*args)`, on the CPU done anew at each call if that is cheap.

    Elsewhere XLA fuses several outputs into one pass; and outside `jit` there is no fusion to help.
    """
    if not (is_traced(args) and jax.default_backend() == "cpu" and _is_cheap(jax.make_jaxpr(step)(*args).jaxpr)):
        result = step(*args)
        return lambda: result

    def again() -> Any:
        nonlocal args
        # Behind the barrier of the use before: two barriers of one array would be merged, and the steps with them.
        args = jax.lax.optimization_barrier(args)
        token = _is_repeated.set(True)
        try:
            return step(*args)
        finally:
            _is_repeated.reset(token)

    return again


def _is_cheap(jaxpr: Any) -> bool:
    return not jaxpr.effects and all(equation.primitive.name in CHEAP for equation in equations(jaxpr))


_recipes: dict[int, tuple[weakref.ref, Callable[[], jax.Array]]] = {}


def remember(x: jax.Array, recipe: Callable[[], jax.Array]) -> None:
    """How a traced array came about, for a reader that had rather make it again than wait for it in memory: two
    transformations in `optax.chain` know nothing of each other but that array."""
    if getattr(jax.config, "jax_check_tracer_leaks", False):
        return  # a recipe lives until its array is collected, and that check does not wait for it
    key = id(x)
    # `forget` is bound now: when Python exits, the names of a module are gone before its arrays are.
    _recipes[key] = weakref.ref(x, lambda _, forget=_recipes.pop: forget(key, None)), recipe


def recipe_of(x: jax.Array) -> Callable[[], jax.Array] | None:
    """What was remembered of an array that is still in use."""
    found = _recipes.get(id(x))
    return found[1] if found is not None and found[0]() is x else None


class Selection:
    """The new arrays of a state where a step is good, the old ones where it is not.

    What it has made it leaves alone when it sees it again: a lifted rule selects for itself, so that its update can be
    computed from the selected buffers, and what surrounds it selects among all there is.
    """

    def __init__(self, is_good: jax.Array) -> None:
        self.is_good = is_good
        self._made: dict[int, jax.Array] = {}

    def made(self, x: jax.Array) -> jax.Array:
        self._made[id(x)] = x
        return x

    def __call__(self, new: Any, old: Any) -> jax.Array:
        """`new` in the dtype of `old`: some transformations change theirs, a scan carry may not."""
        if id(new) in self._made:
            return new
        old = jnp.asarray(old)
        return jnp.where(self.is_good, jnp.asarray(new, old.dtype), old)


@contextmanager
def selecting(is_good: jax.Array) -> Iterator[Selection]:
    """What is lifted within selects its own buffers."""
    selection = Selection(is_good)
    token = _selection.set(selection)
    try:
        yield selection
    finally:
        _selection.reset(token)


def selection() -> Selection | None:
    return _selection.get()
