"""The gradient noise scale: the batch size at which noise and signal are equally large.

    noise_scale             tr Σ / ‖G‖², the ratio of the two means below
    trace_covariance        mean over steps of tr Σ
    gradient_norm_squared   mean over steps of ‖g‖² - tr Σ / B, which estimates ‖G‖² without bias

| letter | argument                | shape, dtype                                                                  |
|--------|-------------------------|-------------------------------------------------------------------------------|
| g      | updates                 | as the parameters: the gradient of a batch of B examples                      |
| G      |                         | the gradient of the expected loss                                             |
| Σ      | `losses_fn` of `update` | params -> [B]; covariance of the gradients of single examples                 |

**Reads**: if B is far below the noise scale, twice the batch gives twice the progress per step. If B is far above it,
more examples are wasted (chapter §3.1). The noise scale grows as the loss falls.

**Source**: McCandlish, Kaplan, Amodei et al. 2018, "An empirical model of large-batch training", §2.2 and App. A.1.

**Why a ratio of means**: for one step, ‖g‖² - tr Σ / B may be near 0 or below. A mean of ratios is biased; the ratio of
means is not.

**Stands** first in the chain, where the updates are still the gradient.

**Differs from** the estimator by two batch sizes that training scripts use if gradients are averaged over devices. Here
tr Σ comes from one batch, by a forward pass along random signs, or exactly if there are at most 128 parameters. With
`axis_name` and `batch_size`, inside `shard_map` or `pmap`, it is that estimator: it compares the gradients of n devices
with their mean, and needs no pass over the model.

**Costs**: 0.2-0.7 gradients per probe. With `axis_name` it is one all-reduce of the gradients instead, which the
compiler may merge with that of the following average. The state holds no array of the parameters' size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_seed, checked_count
from gradtx._core.collectives import AxisName, check_axis_name, shard_axes
from gradtx._core.debugging import unbounded, unknown
from gradtx._core.hyperparameters import BELOW_ONE, first_count, hyperparameter
from gradtx._core.norms import tree_norm
from gradtx._core.trees import compute_dtype, widen
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule

from .averages import averaged, means_of, no_average
from .instrument import Measurement, instrument, never
from .observation import Observation


class GradientNoiseScaleState(NamedTuple):
    """State of `gradient_noise_scale`."""

    noise_means: jax.Array  # [3]: means of tr Σ and ‖G‖², and their weight
    gradient_noise_scale_count: jax.Array  # [] int32
    gradient_noise_scale_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        trace, signal = jnp.moveaxis(means_of(self.noise_means), -1, 0)
        scale = jnp.where(signal > 0, trace / jnp.where(signal > 0, signal, 1), unbounded())
        is_known = self.noise_means[..., -1] > 0
        return {
            "gradient_noise_scale/noise_scale": jnp.where(is_known, scale, unknown()),
            "gradient_noise_scale/trace_covariance": trace,
            "gradient_noise_scale/gradient_norm_squared": signal,
        }


def gradient_noise_scale(
    *,
    decay: ScalarOrSchedule | None = None,
    num_probes: int = 1,
    seed: int = 0,
    every: int = 1,
    axis_name: AxisName = None,
    batch_size: int | None = None,
) -> GradientTransformationExtraArgs:
    """tr Σ / ‖G‖² from means over the steps; inf while the mean of ‖G‖² is not above 0.

    Readings: `gradient_noise_scale/noise_scale`, `gradient_noise_scale/trace_covariance` (tr Σ),
    `gradient_noise_scale/gradient_norm_squared` (‖G‖²).

    Args:
        decay: decay of the means, in [0, 1); None looks back over about the last fifth of the run.
        num_probes: random directions for tr Σ, >= 1, if there are more than 128 parameters.
        seed: seed of the probes; each step has its own.
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that the batch is split over. Then it measures by the
            devices' gradients, without `losses_fn`, and has to stand before `mean_across`.
        batch_size: with `axis_name`, the number of examples on each device in one step; inside `accumulate(..., n)`
            these are the examples of n micro-batches.

    If the loss of one example depends on the others (BatchNorm in training mode, contrastive losses), Σ is not a
    covariance of single examples, and the readings are meaningless. `update` warns if it finds this in `losses_fn`. Let
    `losses_fn` use the running averages, as in evaluation.

    Inside `accumulate` and `optax.MultiSteps` B is the number of examples of the whole step: those of the last
    micro-batch, divided by its share in the mean. Σ is estimated from the last micro-batch.

    Raises:
        ValueError: a number out of range, `axis_name` without `batch_size` or the reverse; at `init`, a complex leaf;
            at `update`, no parameters or no losses, or with `axis_name` updates that are averaged already.
        TypeError: one of the wrong kind.

    A batch of one example has no spread and is left out.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> losses = lambda x: 0.5 * (x - jnp.array([0.0, 2.0, 4.0, 6.0])) ** 2  # gradients 5, 3, 1, -1: variance 20/3
    >>> tx, x = gradtx.gradient_noise_scale(), jnp.array(5.0)
    >>> _, state = tx.update(jnp.array(2.0), tx.init(x), x, losses_fn=losses)
    >>> print({name.split("/")[1]: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'noise_scale': 2.857, 'trace_covariance': 6.667, 'gradient_norm_squared': 2.333}
    """
    return instrument(noise_measurement(decay, num_probes, seed, axis_name, batch_size), every)


def noise_measurement(
    decay: ScalarOrSchedule | None = None,
    num_probes: int = 1,
    seed: int = 0,
    axis_name: AxisName = None,
    batch_size: int | None = None,
) -> Measurement:
    """The measurement that `gradient_noise_scale` makes."""
    name = "gradient_noise_scale"
    checked_count(name, "num_probes", num_probes)
    check_seed(name, seed)
    check_axis_name(name, axis_name)
    if (axis_name is None) != (batch_size is None):
        raise ValueError(
            f"{name}: axis_name and batch_size, the number of examples on each device, belong together, "
            f"got axis_name={axis_name!r} and batch_size={batch_size!r}."
        )
    if batch_size is not None:
        checked_count(name, "batch_size", batch_size)
    d = None if decay is None else hyperparameter(name, "decay", decay, BELOW_ONE)

    def init(_: Params) -> GradientNoiseScaleState:
        return GradientNoiseScaleState(no_average(2), first_count(), never())

    def measure(state: GradientNoiseScaleState, observation: Observation) -> GradientNoiseScaleState:
        found = by_losses(observation) if batch_size is None else _by_devices(observation, axis_name, batch_size)
        if found is None:  # one example, or one device, has no spread
            return state
        trace, signal = found
        means = averaged(state.noise_means, None if d is None else d(observation.count), trace, signal)
        return state._replace(noise_means=means)

    def by_losses(observation: Observation) -> tuple[jax.Array, jax.Array] | None:
        trace, batch = observation.trace_covariance(num_probes, seed)
        if batch == 1:
            return None
        trace = trace.astype(jnp.result_type(float))
        return trace, observation.norm**2 - trace / observation.examples(batch)

    needs = ("params", "losses_fn") if batch_size is None else ()
    return Measurement(name, init, measure, needs=needs, allow_complex=False)


def _by_devices(observation: Observation, axis_name: AxisName, batch_size: int) -> tuple[jax.Array, jax.Array] | None:
    """tr Σ and ‖G‖² from the gradients of n devices, of B examples each, and their mean; None for one device."""
    if axis_name is not None and any(shard_axes(g, axis_name) == () for g in observation.gradients):
        raise ValueError(
            f"{observation.name}: with axis_name the updates must be each device's own, before they are averaged: here "
            "JAX knows them to be the same on every device. Take the gradient at jax.lax.pcast(params, axis_name, "
            'to="varying"), or measure by losses_fn.'
        )
    devices = jax.lax.psum(1, axis_name)
    means = [jax.lax.pmean(widen(g, compute_dtype(g.dtype)), axis_name) for g in observation.gradients]
    small = jax.lax.pmean(observation.norm**2, axis_name)
    big = tree_norm(means).astype(small.dtype) ** 2
    if devices == 1:
        return None
    trace = batch_size * (small - big) * devices / (devices - 1)  # (‖g_s‖² - ‖g_b‖²) / (1/B - 1/(n B))
    return trace, (devices * big - small) / (devices - 1)
