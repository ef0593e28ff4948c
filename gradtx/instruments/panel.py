"""The default panel: what the other instruments say, in one transformation that makes each pass over the model once.

    gradient_norm/*         clipping_events/*        gradient_alignment/*      update_ratio/global
    curvature_ratio/*       gradient_tests/*         gradient_noise_scale/*

Each is as its own instrument has it. The updates themselves are not seen, because the panel stands first in the chain,
where the gradient is: update_ratio is of the step before, ‖θ_k - θ_{k-1}‖ / ‖θ_{k-1}‖, right for every chain behind it.

**Stands** first in the chain.

**Costs**: two gradients and a half every step (one nested forward pass, one plain one), less with `every=16`;
two numbers a parameter, the last gradient and the last parameters. **When which**:

- `every=1` for a run short enough to afford it, or to look closely;
- `every=N` else: the steps between carry the panel's numbers and no more (see `seldom.py`);
- `measure=True | False`, a static argument of the jitted step, where the host knows best when to look (at a loss that
  leapt, say): two programs are compiled. Measure two steps in a row: what compares with the step before remembers at
  the first and compares at the second.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_at_least
from gradtx._core.hyperparameters import NON_NEGATIVE, NON_NEGATIVE_OR_INF, first_count, hyperparameter
from gradtx._core.trees import accumulators, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .alignment import GradientAlignmentState, alignment_measurement
from .clipping_events import ClippingEventsState, clipping_measurement
from .curvature_ratio import CurvatureRatioState, curvature_measurement
from .gradient_norm import GradientNormState, norm_measurement
from .gradient_tests import GradientTestsState, measurement_of_tests
from .instrument import Measurement, instruments, never, unmeasured
from .noise_scale import GradientNoiseScaleState, noise_measurement
from .seen import Seen
from .update_ratio import ratio


class LastUpdateRatioState(NamedTuple):
    """What the panel keeps to measure the update of the step before."""

    last_params: Params  # as the parameters: θ_{k-1}
    last_params_at: jax.Array  # [] int32: the step they are of, -1: none
    last_update_ratio: jax.Array  # []
    last_update_count: jax.Array  # [] int32
    last_update_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """By name."""
        return {"update_ratio/global": self.last_update_ratio}


class PanelState(NamedTuple):
    """State of `panel`: one of each instrument."""

    panel_gradient_norm: GradientNormState
    panel_update_ratio: LastUpdateRatioState
    panel_alignment: GradientAlignmentState
    panel_clipping: ClippingEventsState
    panel_curvature: CurvatureRatioState
    panel_tests: GradientTestsState
    panel_noise: GradientNoiseScaleState


def panel(
    learning_rate: ScalarOrSchedule,
    every: int = 1,
    *,
    max_norm: ScalarOrSchedule | None = None,
    num_probes: int = 1,
    seed: int = 0,
) -> GradientTransformationExtraArgs:
    """Norms, update ratio, alignment, clipping, curvature ratio, gradient tests and noise scale in one.

    Args:
        learning_rate: ε, that of the chain, for the curvature ratio.
        every: steps from one measurement to the next.
        max_norm: that of a clip behind, for the clipping events.
        num_probes: random directions for tr Σ, >= 1, where there are more than 128 parameters.
        seed: of the probes; each step has its own.

    Raises:
        ValueError: out of range; at `init`, a complex leaf; at `update`, no parameters or no losses. TypeError: of the
            wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> data = jnp.array([0.0, 2.0, 4.0, 6.0])
    >>> losses = lambda x: 0.5 * (x - data) ** 2
    >>> tx = optax.chain(gradtx.panel(0.5), gradtx.sgd(0.5))
    >>> x = jnp.array(7.0)
    >>> state = tx.init(x)
    >>> for _ in range(2):
    ...     g = jax.grad(lambda x: jnp.mean(losses(x)))(x)
    ...     updates, state = tx.update(g, state, x, losses_fn=losses)
    ...     x = optax.apply_updates(x, updates)
    >>> found = gradtx.readings(state)
    >>> print(len(found), found["update_ratio/global"].round(3), found["curvature_ratio/ratio"])  # 2/7
    20 0.286 0.25
    """
    rate = hyperparameter("panel", "learning_rate", learning_rate, NON_NEGATIVE)
    limit = None if max_norm is None else hyperparameter("panel", "max_norm", max_norm, NON_NEGATIVE_OR_INF)
    check_at_least("panel", "num_probes", num_probes, 1)
    measurements = (
        norm_measurement(),
        _last_update(),
        alignment_measurement(),
        clipping_measurement(limit),
        curvature_measurement(rate),
        measurement_of_tests(num_probes, seed),
        noise_measurement(None, num_probes, seed),
    )
    return instruments("panel", measurements, PanelState, every)


def _last_update() -> Measurement:
    def init(params: Params) -> LastUpdateRatioState:
        return LastUpdateRatioState(accumulators(params, FLOAT32), never(), unmeasured(), first_count(), never())

    def remember(state: LastUpdateRatioState, seen: Seen) -> LastUpdateRatioState:
        kept = jax.tree.map(lambda p, old: widen(jnp.asarray(p), old.dtype), seen.params, state.last_params)
        return state._replace(last_params=kept, last_params_at=seen.count)

    def measure(state: LastUpdateRatioState, seen: Seen) -> LastUpdateRatioState:
        last, now = jax.tree.leaves(state.last_params), jax.tree.leaves(seen.params)
        way = [widen(jnp.asarray(n), o.dtype) - o for n, o in zip(now, last, strict=True)]
        is_next = (state.last_params_at >= 0) & (state.last_params_at == seen.count - 1)
        found = jnp.where(is_next, ratio(way, last), state.last_update_ratio)
        return remember(state, seen)._replace(last_update_ratio=found)

    return Measurement("last_update", init, measure, remember, kept=("last_params",))
