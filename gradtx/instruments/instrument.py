"""Turns measurements into an instrument: a transformation that only measures.

A measurement consists of three small functions. `instrument` decides when to measure, counts, and passes updates on.

- `init(params)` builds the state, with all readings NaN;
- `measure(state, observation)` returns the next state; see `observation.py` for the second argument;
- `remember(state, observation)` is for measurements that compare two steps in a row; it reads the step before a
  measured one.

**When**: with `every=1` at every step, with `every=N` at steps 0, N, 2N, ... The device decides this, at almost no cost
to the other steps (see `periodic.py`). If `vmap` runs over the count, every step measures. A derivative treats such
readings as constants. The host can decide instead: pass `update(..., measure=True)`, False, or "remember" for the step
before a measured one, as a static argument of the jitted step. A step without a measurement is then compiled without
it, and each of the choices is compiled once. If all measurements have `sees_every_step`, every step is measured, even
with `measure=False`.

Several measurements in one instrument share one `observation`, so that each pass over the model is made only once.
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
    """The functions of one kind of instrument. Its states have the fields `NAME_count`, the number of steps seen, and
    `NAME_measured_at`, the last measured step, or -1 if there is none.
    """

    name: str
    init: Callable[[Params], Any]
    measure: Callable[[Any, Observation], Any]
    remember: Callable[[Any, Observation], Any] | None = None
    kept: tuple[str, ...] = ()  # fields of the parameters' size, which only `remember` changes
    needs: tuple[str, ...] = ()  # required by `measure`: some of "params", "value", "value_fn", "losses_fn"
    allow_complex: bool = True
    sees_every_step: bool = False  # for a path or a velocity, which would be wrong if it left out steps


def never() -> jax.Array:
    """`NAME_measured_at` of an instrument that has not measured anything yet."""
    return jnp.full((), -1, jnp.int32)


def unmeasured() -> jax.Array:
    """A reading before its first measurement."""
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
    """The transformation that makes several measurements. `joined` makes its state from theirs, and `split` does the
    reverse. Its fields `NAME_count` and `NAME_measured_at` are also those of each measurement.
    """
    look = looking(name, measurements, joined, split, every, axis_name)

    def init(params: Params) -> Any:
        check_params(name, params, allow_complex=all(m.allow_complex for m in measurements))
        return joined(tuple(m.init(params) for m in measurements))

    def update(
        updates: Updates, state: Any, params: Params | None = None, *, measure: Measure | None = None, **extra: Any
    ) -> tuple[Updates, Any]:
        return look(updates, None, state, params, measure, extra)

    return GradientTransformationExtraArgs(init, update)


def looking(
    name: str,
    measurements: tuple[Measurement, ...],
    joined: Callable[[tuple[Any, ...]], Any],
    split: Callable[[Any], tuple[Any, ...]],
    every: int,
    axis_name: AxisName = None,
) -> Callable[..., tuple[Updates, Any]]:
    """The `update` of `instruments`, for `observed` too: `look(gradient, taken, state, params, measure, extra)`.

    `taken` is the update that an optimizer made from the gradient, if the instrument stands around one, else None. The
    result is what passes on, `taken` or else the gradient, and the next state.
    """
    checked_count(name, "every", every)
    check_axis_name(name, axis_name)

    # This function is long because `look` needs the checked arguments.
    def look(
        updates: Updates,
        taken: Updates | None,
        state: Any,
        params: Params | None,
        measure: Measure | None,
        extra: dict[str, Any],
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
        ).gradients  # raises for another tree, at every step

        def observation(
            count: jax.Array, updates: Updates, params: Params | None, taken: Updates | None
        ) -> Observation:
            return Observation(name, updates, params, count, extra, axis_name, taken)

        def looked(state: Any, now: tuple[Any, ...]) -> Any:
            return joined(_looked(measurements, split(state), observation(*now)))

        now, passed = (count, updates, params, taken), updates if taken is None else taken
        if measure is None or all(m.sees_every_step for m in measurements):
            if every == 1:
                measure = True
            elif not is_traced(count):  # outside jit, Python decides
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
            passed = once_known(getattr(state, f"{name}_measured_at"), passed)
        return passed, state._replace(**{f"{name}_count": next_count(count)})

    return look


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
    """Measures or remembers. Both share the parameter-sized fields, which are written once both have read them."""
    if not any(m.remember for m in measurements):
        return _looked(measurements, states, observe())

    def kept_of(states: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [{field: getattr(s, field) for field in m.kept} for m, s in zip(measurements, states, strict=True)]

    def without_kept(choice: Callable[..., tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        # The values that an `observation` computes belong to one branch, so each branch makes its own.
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
