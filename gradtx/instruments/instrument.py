"""Turns measurements into an instrument: a transformation that only measures.

A measurement consists of three small functions. `instrument` decides when to measure, counts, and passes updates on.

- `init(params)` builds the state, with all readings NaN;
- `measure(state, observation)` returns the next state; see `observation.py` for the second argument;
- `remember(state, observation)` is for measurements that compare two steps in a row; it reads the step before a
  measured one.

**When**: with `every=1` at every step, with `every=N` at steps 0, N, 2N, ... The device decides this, at almost no cost
to the other steps (see `periodic.py`). If `vmap` runs over the count, every step measures. A derivative treats such
readings as constants. The host can decide instead, by the argument `measure` of `update` (see `panel.py`). A
measurement with `sees_every_step` is made even with `measure=False`.

Several measurements can be made `together`. They share one `observation`, so that each pass over the model is made only
once.
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
from gradtx._core.tracing import either, is_traced
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


def unmeasured(*shape: int) -> jax.Array:
    """A reading before its first measurement."""
    return jnp.full(shape, unknown(), jnp.result_type(float))


def instrument(measurement: Measurement, every: int, axis_name: AxisName = None) -> GradientTransformationExtraArgs:
    """The transformation that makes a measurement; its state is the measurement's."""
    look = looking(measurement, every, axis_name)

    def init(params: Params) -> Any:
        check_params(measurement.name, params, allow_complex=measurement.allow_complex)
        return measurement.init(params)

    def update(
        updates: Updates, state: Any, params: Params | None = None, *, measure: Measure | None = None, **extra: Any
    ) -> tuple[Updates, Any]:
        return look(updates, None, state, params, measure, extra)

    return GradientTransformationExtraArgs(init, update)


def together(
    name: str,
    measurements: tuple[Measurement, ...],
    joined: Callable[[tuple[Any, ...]], Any],
    split: Callable[[Any], tuple[Any, ...]],
    kept: tuple[str, ...],
) -> Measurement:
    """Several measurements as one. `joined` makes its state from theirs, and `split` does the reverse."""

    def each(change: Callable[[Measurement, Any, Observation], Any]) -> Callable[[Any, Observation], Any]:
        def changed(state: Any, observation: Observation) -> Any:
            pairs = zip(measurements, split(state), strict=True)
            return joined(tuple(_in_types_of(s, change(m, s, observation)) for m, s in pairs))

        return changed

    return Measurement(
        name,
        lambda params: joined(tuple(m.init(params) for m in measurements)),
        each(lambda m, state, observation: m.measure(state, observation)),
        each(lambda m, state, observation: m.remember(state, observation) if m.remember else state),
        kept,
        needs=tuple({need for m in measurements for need in m.needs}),
        allow_complex=all(m.allow_complex for m in measurements),
    )


def looking(measurement: Measurement, every: int, axis_name: AxisName = None) -> Callable[..., tuple[Updates, Any]]:
    """The `update` of `instrument`, for `observed` too: `look(gradient, taken, state, params, measure, extra)`.

    `taken` is the update that an optimizer made from the gradient, if the instrument stands around one, else None. The
    result is what passes on, `taken` or else the gradient, and the next state.
    """
    name = measurement.name
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

        observation = partial(Observation, name, axis_name, extra)

        def looked(state: Any, now: tuple[Any, ...]) -> Any:
            return _looked(measurement, state, observation(*now))

        count = getattr(state, f"{name}_count")
        now, passed = (count, updates, params, taken), updates if taken is None else taken
        gradients = observation(*now).gradients  # raises for another tree, at every step
        if measure is None or measurement.sees_every_step:
            if every == 1:
                measure = True
            elif not is_traced(count):  # outside jit, Python decides
                measure = {every - 1: "remember", 0: True}.get(int(count) % every, False)
        if measure == "remember":
            state = _remembered(measurement, state, observation(*now))
        elif measure:
            state = looked(state, now)
        elif measure is None:
            if any(varying(jax.typeof(g)) for g in gradients):
                state = jax.tree.map(varying_like, state, jax.eval_shape(looked, state, now))
            phase = jax.lax.rem(count, jnp.int32(every))
            is_due = (phase == 0) | ((phase == every - 1) & (measurement.remember is not None))

            def turn(state: Any, now: tuple[Any, ...]) -> Any:
                return _looked_or_remembered(measurement, phase == 0, state, lambda: observation(*now))

            state = when_due(is_due, turn, state, now)
            passed = once_known(getattr(state, f"{name}_measured_at"), passed)
        return passed, state._replace(**{f"{name}_count": next_count(count)})

    return look


def _looked(measurement: Measurement, state: Any, observation: Observation) -> Any:
    observation.require(measurement.needs)
    new = _kept_last(measurement, measurement.measure(state, observation))
    return _in_types_of(state, new._replace(**{f"{measurement.name}_measured_at": observation.count}))


def _kept_last(measurement: Measurement, state: Any) -> Any:
    """Writes parameter-sized fields after the scalars, so that XLA does not copy the old ones."""
    if not measurement.kept:
        return state
    leaves = jax.tree.leaves(state._replace(**dict.fromkeys(measurement.kept)))
    numbers = [jnp.sum(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    is_bad = jnp.isnan(sum(numbers)).astype(jnp.int32)
    return state._replace(**{field: once_known(is_bad, getattr(state, field)) for field in measurement.kept})


def _remembered(measurement: Measurement, state: Any, observation: Observation) -> Any:
    return state if measurement.remember is None else _in_types_of(state, measurement.remember(state, observation))


def _looked_or_remembered(
    measurement: Measurement, is_look: jax.Array, state: Any, observe: Callable[[], Observation]
) -> Any:
    """Measures or remembers. Both share the parameter-sized fields, which are written once both have read them."""
    if measurement.remember is None:
        return _looked(measurement, state, observe())

    def without_kept(choice: Callable[[Measurement, Any, Observation], Any]) -> Callable[[], Any]:
        # The values that an `observation` computes belong to one branch, so each branch makes its own.
        return lambda: choice(measurement, state, observe())._replace(**dict.fromkeys(measurement.kept))

    new = either(is_look, without_kept(_looked), without_kept(_remembered))
    remembered = _remembered(measurement, state, observe())
    kept = {field: getattr(remembered, field) for field in measurement.kept}
    return new._replace(**once_known(getattr(new, f"{measurement.name}_measured_at"), kept))


def _in_types_of(old: Any, new: Any) -> Any:
    """The new state in the types of the old one, because a state must be a legal carry of a scan."""
    return jax.tree.map(partial(selected, None), new, old)
