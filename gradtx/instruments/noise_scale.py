"""The gradient noise scale: the batch size at which noise and signal are of one size.

    noise_scale             tr Σ / ‖G‖², the ratio of the two means below
    trace_covariance        mean over steps of tr Σ
    gradient_norm_squared   mean over steps of ‖g‖² - tr Σ / B, which estimates ‖G‖² without bias

| letter | argument                | shape, dtype                                                                  |
|--------|-------------------------|-------------------------------------------------------------------------------|
| g      | updates                 | as the parameters: the gradient of a batch of B examples                      |
| G      |                         | the gradient of the expected loss                                             |
| Σ      | `losses_fn` of `update` | covariance of the gradients of single examples                                |
|        | `decay`                 | [0, 1) of the means; None: they look back over the last fifth of the run      |

**Reads**: with B far below it twice the batch gives twice the progress a step; with B far above, more examples are wasted
(chapter §3.1). It grows as the loss falls.

**Source**: McCandlish, Kaplan, Amodei et al. 2018, "An empirical model of large-batch training", §2.2 and App. A.1.

**Why a ratio of means**: ‖g‖² - tr Σ / B of one step may be near 0 or below; a mean of ratios is biased, the ratio of means
is not.

**Stands** first in the chain, where the updates are still the gradient.

**Differs from** the estimator by two batch sizes (used where gradients are averaged over devices): tr Σ is taken from one
batch, by a forward pass along random signs; exactly where there are at most 128 parameters. With `axis_name`, inside
`shard_map` or `pmap`, it is that estimator: the gradients of the devices against their mean, which costs no pass at all.

**Costs**: 0.2-0.7 gradients a probe; nothing of the parameters' size is kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.hyperparameters import BELOW_ONE, first_count, hyperparameter
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .averages import averaged, means_of, no_average
from .instrument import Measurement, instrument, never
from .point import check_at_least
from .seen import Seen


class GradientNoiseScaleState(NamedTuple):
    """State of `gradient_noise_scale`."""

    noise_means: jax.Array  # [3]: tr Σ, ‖G‖², their weight
    gradient_noise_scale_count: jax.Array  # [] int32
    gradient_noise_scale_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """By name."""
        trace, signal = jnp.moveaxis(means_of(self.noise_means), -1, 0)
        scale = jnp.where(signal > 0, trace / jnp.where(signal > 0, signal, 1), jnp.inf)
        return {
            "gradient_noise_scale/noise_scale": jnp.where(jnp.isnan(signal), jnp.nan, scale),
            "gradient_noise_scale/trace_covariance": trace,
            "gradient_noise_scale/gradient_norm_squared": signal,
        }


def gradient_noise_scale(
    *, decay: ScalarOrSchedule | None = None, num_probes: int = 1, seed: int = 0, every: int = 1
) -> GradientTransformationExtraArgs:
    """tr Σ / ‖G‖² from means over the steps; inf while the mean of ‖G‖² is not above 0.

    Args:
        decay: of the means, in [0, 1); None looks back over about the last fifth of the run.
        num_probes: random directions for tr Σ, >= 1, where there are more than 128 parameters.
        seed: of the probes; each step has its own.
        every: steps from one measurement to the next.

    Raises:
        ValueError: out of range; at `init`, a complex leaf; at `update`, no parameters or no losses. TypeError: of the
            wrong kind.

    A batch of one example has no spread and is left out.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> losses = lambda x: 0.5 * (x - jnp.array([0.0, 2.0, 4.0, 6.0])) ** 2  # gradients 5, 3, 1, -1: variance 20/3
    >>> tx, x = gradtx.gradient_noise_scale(), jnp.array(5.0)
    >>> _, state = tx.update(jnp.array(2.0), tx.init(x), x, losses_fn=losses)
    >>> print({name.split("/")[1]: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'noise_scale': 2.857, 'trace_covariance': 6.667, 'gradient_norm_squared': 2.333}
    """
    return instrument("gradient_noise_scale", noise_measurement(decay, num_probes, seed), every)


def noise_measurement(decay: ScalarOrSchedule | None = None, num_probes: int = 1, seed: int = 0) -> Measurement:
    """What `gradient_noise_scale` measures."""
    name = "gradient_noise_scale"
    check_at_least(name, "num_probes", num_probes, 1)
    d = None if decay is None else hyperparameter(name, "decay", decay, BELOW_ONE)

    def init(params: Params) -> GradientNoiseScaleState:
        del params
        return GradientNoiseScaleState(no_average(2), first_count(), never())

    def measure(state: GradientNoiseScaleState, seen: Seen) -> GradientNoiseScaleState:
        (batch,) = jax.eval_shape(seen.losses_fn, seen.params).shape
        trace = seen.trace_covariance(num_probes, seed).astype(jnp.result_type(float))
        signal = seen.norm**2 - trace / batch
        means = averaged(state.noise_means, None if d is None else d(seen.count), trace, signal)
        return state._replace(noise_means=means)

    return Measurement(name, init, measure, allow_complex=False)
