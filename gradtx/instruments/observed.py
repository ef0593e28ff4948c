"""Watches any optimizer: gives the panel's readings, with the curvature ratio of the step that is actually taken.

    curvature_ratio/ratio    r = -u'Hu / (2 g'u)
    update_ratio/global      ‖u‖ / ‖θ‖
    all other readings       as in `panel`

| letter | argument           | shape, dtype                                                        |
|--------|--------------------|---------------------------------------------------------------------|
| g      | updates            | as the parameters, real: the gradient that comes in                 |
| u      |                    | as the parameters: the update that `tx` returns                     |
| θ      | params             | as the parameters                                                   |
| H      | `losses_fn` or     | the Hessian of the step's batch; extra arguments of `update`,       |
|        | `value_fn`         | params -> [B] losses or params -> their mean                        |

The step is expected to change the loss of its batch by g'u + ½ u'Hu = g'u (1 - r). So r has one meaning for every
method: below ½ a longer step of this direction would lower the loss further, at ½ the step is the best of its
direction, and above 1 it is expected to raise the loss. No learning rate has to be passed. For `sgd` it is the ratio
that `panel` gives, ½ε²g'Hg / (εg'g). A negative r means that the curvature along u is negative, or that u leads uphill,
as a velocity does now and then. The ratio is NaN if the step is zero.

**Source**: Goodfellow et al. 2016, eq. 8.10, with the step u in place of -εg; Schneider, Dangel & Hennig 2021 (Cockpit)
measure the loss along the actual step too.

**Stands** around the whole optimizer, and passes all extra arguments on to it.

**Differs from** `panel`, which stands first in a chain, needs the learning rate, and judges the step -εg. That is the
step of plain descent only. With Adam or momentum, `panel`'s ratio does not describe the step that is taken.

**Costs**: those of `panel` and one more nested forward pass, along u; less with `every=16`. The state keeps one number
per parameter, the last gradient, beside the state of `tx`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import inner_transformation
from gradtx._core.callers import update_call
from gradtx._core.collectives import made_varying, varying
from gradtx._core.foreign import check_state
from gradtx._core.hyperparameters import first_count
from gradtx._core.trees import check_params
from gradtx._core.types import GradientTransformation, GradientTransformationExtraArgs, MultiSteps, Params, Updates

from .curvature_ratio import CurvatureRatioState, curvature_measurement
from .instrument import Measurement, looking, never, together, unmeasured
from .observation import Observation
from .panel import PanelState, joined, measurements, split
from .update_ratio import LastUpdateRatioState, ratio


class ObservedReadings(NamedTuple):
    """The measurements of `observed`."""

    observed_numbers: jax.Array  # [N]
    observed_whole_numbers: jax.Array  # [M] int32
    observed_last_gradient: Updates  # as the parameters: g_{k-1}
    observed_count: jax.Array  # [] int32
    observed_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return _as_panel(self).readings()


class ObservedState(NamedTuple):
    """State of `observed`."""

    observed: ObservedReadings
    observed_state: Any  # state of the optimizer inside


def observed(
    tx: GradientTransformation | MultiSteps, *, every: int = 1, num_probes: int = 1, seed: int = 0
) -> GradientTransformationExtraArgs:
    """The same optimizer, with the panel's readings in its state and the ratio r of the actual step.

    Args:
        tx: any optimizer, of Optax, of gradtx or a chain. Its updates pass through unchanged.
        every: steps from one measurement to the next.
        num_probes: random directions for tr Σ, >= 1, if there are more than 128 parameters.
        seed: seed of the probes; each step draws its own.

    `update` takes `losses_fn(params) -> [batch]`, the losses of the step's examples, or `value_fn(params)`, their mean.
    With `value_fn` alone the gradient tests and the noise scale stay NaN, because they need the single examples.

    Readings:
        `gradient_norm/global`, `gradient_norm/slope`, `gradient_norm/nonfinite`, `update_ratio/global`,
        `gradient_alignment/cosine`, `gradient_alignment/pflug`, `gradient_alignment/sign_agreement`,
        `clipping_events/fraction`, `clipping_events/shrink`, `clipping_events/spikes`,
        `curvature_ratio/ratio`, `curvature_ratio/gHg`, `curvature_ratio/critical_learning_rate`,
        `gradient_tests/standard_error`, `gradient_tests/inner_product`, `gradient_tests/norm`,
        `gradient_tests/orthogonality`, `gradient_noise_scale/noise_scale`,
        `gradient_noise_scale/trace_covariance`, `gradient_noise_scale/gradient_norm_squared`.
        The docstring of the instrument of that name explains each of them.

    Raises:
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters or no loss.
        TypeError: an argument of the wrong kind, or `tx` is not a transformation.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> data = jnp.array([0.0, 2.0, 4.0, 6.0])
    >>> losses = lambda x: 0.5 * (x - data) ** 2  # curvature 1, gradient 4 at 7
    >>> tx, x = gradtx.observed(optax.adam(2.0)), jnp.array(7.0)
    >>> updates, state = tx.update(jnp.array(4.0), tx.init(x), x, losses_fn=losses)
    >>> found = gradtx.readings(state)
    >>> print(updates.round(3), found["curvature_ratio/ratio"].round(3))  # 2² / (2 · 4 · 2)
    -2.0 0.25
    """
    inner = inner_transformation("observed", tx)
    full, of_the_mean = _measurements(num_probes, seed)
    looks = {True: looking(full, every), False: looking(of_the_mean, every)}

    def init(params: Params) -> ObservedState:
        check_params("observed", params, allow_complex=full.allow_complex)
        return ObservedState(full.init(params), inner.init(params))

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, ObservedState]:
        check_state("observed", state, "observed_state")
        is_blind = extra.get("losses_fn") is None and extra.get("value_fn") is None
        if is_blind and extra.get("measure") not in (False, "remember"):
            raise ValueError(
                f"observed needs the loss: {update_call(['losses_fn=losses'])}, losses(params) -> [batch], or "
                "value_fn=loss, loss(params) -> scalar."
            )
        taken, inner_state = inner.update(updates, state.observed_state, params, **extra)
        gradients, taken_here, here = _varying_alike(updates, taken, params)
        look = looks[extra.get("losses_fn") is not None]
        measure = extra.pop("measure", None)
        # The update waits for a measurement, because the parameters that it will overwrite are read there.
        passed, seen = look(gradients, taken_here, state.observed, here, measure, extra)
        return _unless_varying(passed, taken), ObservedState(seen, inner_state)

    return GradientTransformationExtraArgs(init, update)


def _measurements(num_probes: int, seed: int) -> tuple[Measurement, Measurement]:
    """The panel's measurements, two of them of the update that is taken. The second of the pair is for a mean of
    losses: readings that need the single examples stay NaN.
    """
    of_update = {"last_update": _update_measurement(), "curvature_ratio": _curvature_measurement()}
    full = tuple(of_update.get(m.name, m) for m in measurements("observed", 1.0, None, num_probes, seed))
    kept = ("observed_last_gradient",)
    of_the_mean = tuple(m._replace(measure=lambda state, seen: state, needs=()) if "losses_fn" in m.needs else m
                        for m in full)  # fmt: skip
    first, second = (together("observed", parts, _joined, lambda state: split(_as_panel(state)), kept)
                     for parts in (full, of_the_mean))  # fmt: skip
    return first, second


def _joined(states: tuple[Any, ...]) -> ObservedReadings:
    numbers, whole_numbers, _, last_gradient, count, measured_at = joined(states)
    return ObservedReadings(numbers, whole_numbers, last_gradient, count, measured_at)


def _as_panel(state: ObservedReadings) -> PanelState:
    numbers, whole_numbers, last_gradient, count, measured_at = state
    return PanelState(numbers, whole_numbers, None, last_gradient, count, measured_at)


def _update_measurement() -> Measurement:
    """‖u‖ / ‖θ‖ in the state of the panel's ratio, which has to keep the last parameters because it sees no updates."""

    def init(_: Params) -> LastUpdateRatioState:
        return LastUpdateRatioState(None, never(), unmeasured(), first_count(), never())

    def measure(state: LastUpdateRatioState, seen: Observation) -> LastUpdateRatioState:
        moving = seen.step.moving(seen.params).values()
        return state._replace(last_update_ratio=ratio([u for u, _ in moving], [p for _, p in moving]))

    return Measurement("last_update", init, measure)


def _curvature_measurement() -> Measurement:
    """Measures g'Hg and the critical rate along the gradient, and the ratio along the update."""
    along_gradient = curvature_measurement(1.0)

    def measure(state: CurvatureRatioState, seen: Observation) -> CurvatureRatioState:
        new = along_gradient.measure(state, seen)
        step = seen.step
        float_dtype = jnp.result_type(float)
        along = step.along
        slope, curvature = jnp.mean(along.slopes).astype(float_dtype), along.curvature.astype(float_dtype)
        is_step = (step.norm > 0) & jnp.isfinite(step.norm) & (slope != 0)
        found = -step.norm * curvature / (2 * jnp.where(is_step, slope, 1))
        return new._replace(curvature_ratio=jnp.where(is_step, found, jnp.nan))

    return along_gradient._replace(measure=measure)


def _varying_alike(*trees: Any) -> list[Any]:
    """Marks all leaves as varying along the same mesh axes, which a pass along a tree needs inside `shard_map`.

    The gradients of the devices' minibatches vary, but the update from their mean and the parameters do not.
    """
    axes = frozenset[Any]().union(*(varying(jax.typeof(x)) for x in jax.tree.leaves(trees)))
    if not axes:
        return list(trees)
    return [jax.tree.map(lambda x: made_varying(x, axes), tree) for tree in trees]


def _unless_varying(passed: Updates, taken: Updates) -> Updates:
    """`passed`, or `taken` for a leaf that would vary among the devices although `taken` does not."""

    def chosen(new: Any, old: Any) -> Any:
        return new if varying(jax.typeof(new)) <= varying(jax.typeof(old)) else old

    return jax.tree.map(chosen, passed, taken)
