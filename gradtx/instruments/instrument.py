"""From measurements to an instrument: a transformation that only looks.

A measurement is three small functions; `instrument` does the rest (when to measure, counting, passing through):

- `init(params)` builds the state, readings NaN;
- `measure(state, seen)` gives the next state; `observation` is what the step shows, see `observation.py`;
- `remember(state, seen)`, for what compares two steps in a row, looks at the step before one that is measured.

**When**: every step with `every=1`; with `every=N` at steps 0, N, 2N, ..., decided on the device at next to no cost to
the others (see `periodic.py`; but where `vmap` runs over the count every step measures, and a derivative takes such
readings for constants). Or decided on the host: pass `update(..., measure=True)`, False, or "remember" for the step
before one that is measured, as a static argument of the jitted step; a step without measurement has no trace of it, and
each of the choices is compiled once. What has to see every step (`sees_every_step`) does so whatever `measure` says.

Several measurements in one instrument share one `observation`, so that a pass over the model is made once for all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import checked_count
from gradtx._core.collectives import AxisName, check_axis_name, varying, varying_like
from gradtx._core.copies import once_known
from gradtx._core.debugging import unknown
from gradtx._core.foreign import check_state
from gradtx._core.hyperparameters import next_count
from gradtx._core.tracing import is_traced
from gradtx._core.trees import check_params, selected
from gradtx._core.types import GradientTransformationExtraArgs, Params, Updates

from .observation import Observation
from .periodic import when_due

Measure = bool | Literal["remember"]


class Measurement(NamedTuple):
    """What one kind of instrument does. Its states have the fields `NAME_count` and `NAME_measured_at`: steps seen, and
    the last of them that was measured, -1: none.
    """

    name: str
    init: Callable[[Params], Any]
    measure: Callable[[Any, Observation], Any]
    remember: Callable[[Any, Observation], Any] | None = None
    kept: tuple[str, ...] = ()  # fields of the parameters' size, that only `remember` changes
    needs: tuple[str, ...] = ()  # what `measure` cannot do without: "params", "value", "value_fn", "losses_fn"
    allow_complex: bool = True
    sees_every_step: bool = False  # a path or a velocity that leaves steps out would be wrong, not coarse


def never() -> jax.Array:
    """`NAME_measured_at` of an instrument that has measured nothing."""
    return jnp.full((), -1, jnp.int32)


def unmeasured() -> jax.Array:
    """A reading that was never taken."""
    return jnp.full((), unknown(), jnp.result_type(float))


def instrument(
    name: str, measurement: Measurement, every: int, axis_name: AxisName = None
) -> GradientTransformationExtraArgs:
    """The transformation that makes one measurement; its state is the measurement's."""
    return instruments(name, (measurement,), lambda states: states[0], lambda state: (state,), every, axis_name)


def instruments(
    name: str,
    measurements: tuple[Measurement, ...],
    joined: Callable[[tuple[Any, ...]], Any],
    split: Callable[[Any], tuple[Any, ...]],
    every: int,
    axis_name: AxisName = None,
) -> GradientTransformationExtraArgs:
    """Several measurements as one. Its state is what `joined` makes of theirs and `split` takes to them again; the
    fields `NAME_count` and `NAME_measured_at` of it are theirs too.
    """
    checked_count(name, "every", every)
    check_axis_name(name, axis_name)

    # This function is long because `init` and `update` need the checked arguments.
    def init(params: Params) -> Any:
        check_params(name, params, allow_complex=all(m.allow_complex for m in measurements))
        return joined(tuple(m.init(params) for m in measurements))

    def update(
        updates: Updates, state: Any, params: Params | None = None, *, measure: Measure | None = None, **extra: Any
    ) -> tuple[Updates, Any]:
        check_state(name, state, f"{name}_count")
        if not (measure is None or isinstance(measure, bool) or (isinstance(measure, str) and measure == "remember")):
            raise TypeError(
                f'{name}: measure must be True, False, "remember" or None, a static argument of the step, '
                f"got {measure!r}."
            )
        count = getattr(state, f"{name}_count")
        gradients = Observation(
            name, updates, params, count, extra, axis_name
        ).gradients  # refuses another tree everywhere

        def observation(count: jax.Array, updates: Updates, params: Params | None) -> Observation:
            return Observation(name, updates, params, count, extra, axis_name)

        def looked(state: Any, now: tuple[Any, ...]) -> Any:
            return joined(_looked(measurements, split(state), observation(*now)))

        now = count, updates, params
        if measure is None or all(m.sees_every_step for m in measurements):
            if every == 1:
                measure = True
            elif not is_traced(count):  # outside jit Python may choose
                measure = {every - 1: "remember", 0: True}.get(int(count) % every, False)
        if measure == "remember":
            state = joined(_remembered(measurements, split(state), observation(*now)))
        elif measure:
            state = looked(state, now)
        elif measure is None:
            if any(varying(jax.typeof(g)) for g in gradients):
                state = jax.tree.map(varying_like, state, jax.eval_shape(looked, state, now))
            phase = jax.lax.rem(count, jnp.int32(every))
            is_due = (phase == 0) | ((phase == every - 1) & any(m.remember for m in measurements))

            def turn(state: Any, now: tuple[Any, ...]) -> Any:
                return joined(_looked_or_remembered(measurements, phase == 0, split(state), lambda: observation(*now)))

            state = when_due(is_due, turn, state, now)
            updates = once_known(getattr(state, f"{name}_measured_at"), updates)
        return updates, state._replace(**{f"{name}_count": next_count(count)})

    return GradientTransformationExtraArgs(init, update)


def _looked(
    measurements: tuple[Measurement, ...], states: tuple[Any, ...], observation: Observation
) -> tuple[Any, ...]:
    observation.require({need for m in measurements for need in m.needs})
    new = (_kept_last(m, m.measure(s, observation))._replace(**{f"{m.name}_measured_at": observation.count})
           for m, s in zip(measurements, states, strict=True))  # fmt: skip
    return tuple(_in_types_of(s, n) for n, s in zip(new, states, strict=True))


def _kept_last(measurement: Measurement, state: Any) -> Any:
    """Writes parameter-sized fields after the scalars, so that XLA does not copy the old ones."""
    if not measurement.kept:
        return state
    leaves = jax.tree.leaves(state._replace(**dict.fromkeys(measurement.kept)))
    numbers = [jnp.sum(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    is_bad = jnp.isnan(sum(numbers)).astype(jnp.int32)
    return state._replace(**{field: once_known(is_bad, getattr(state, field)) for field in measurement.kept})


def _remembered(
    measurements: tuple[Measurement, ...], states: tuple[Any, ...], observation: Observation
) -> tuple[Any, ...]:
    pairs = zip(measurements, states, strict=True)
    return tuple(s if m.remember is None else _in_types_of(s, m.remember(s, observation)) for m, s in pairs)


def _looked_or_remembered(
    measurements: tuple[Measurement, ...],
    is_look: jax.Array,
    states: tuple[Any, ...],
    observe: Callable[[], Observation],
) -> tuple[Any, ...]:
    """The two choices, which share what is of the parameters' size: it is written once, when both have read it."""
    if not any(m.remember for m in measurements):
        return _looked(measurements, states, observe())

    def kept_of(states: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [{field: getattr(s, field) for field in m.kept} for m, s in zip(measurements, states, strict=True)]

    def without_kept(choice: Callable[..., tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        # What an `observation` has computed belongs to the choice that asked for it: each sees for itself.
        def numbers() -> tuple[Any, ...]:
            new = choice(measurements, states, observe())
            return tuple(s._replace(**dict.fromkeys(m.kept)) for m, s in zip(measurements, new, strict=True))

        return numbers

    numbers = jax.lax.cond(is_look, without_kept(_looked), without_kept(_remembered))
    kept = once_known(_measured_at(measurements, numbers), kept_of(_remembered(measurements, states, observe())))
    return tuple(n._replace(**k) for n, k in zip(numbers, kept, strict=True))


def _measured_at(measurements: tuple[Measurement, ...], states: tuple[Any, ...]) -> jax.Array:
    return getattr(states[0], f"{measurements[0].name}_measured_at")


def _in_types_of(old: Any, new: Any) -> Any:
    """The new state in the types of the old one, because a state must be a legal carry of a scan."""
    return jax.tree.map(partial(selected, None), new, old)
