"""Compares each gradient with the previous one: same direction, opposite direction, or unrelated.

    cosine           g_k · g_{k-1} / (‖g_k‖ ‖g_{k-1}‖)
    pflug            S_k = Σ_{j <= k} g_j · g_{j-1}, over the steps j that were measured
    sign_agreement   fraction of the coordinates with the same sign as at the previous step (0 agrees with nothing)

| letter | argument | shape, dtype                                        |
|--------|----------|-----------------------------------------------------|
| g      | updates  | any tree of real floating arrays                    |
| S      |          | scalar, in units of ‖g‖²; NaN until the first pair  |
|        |          | of steps after `burn_in`                            |

**Reads**: if the cosine is near 1, the steps could be longer. If it stays near -1, the run jumps from wall to wall: it
oscillates, and the rate is too high (chapter §4.1). Near 0, noise prevails. S falls once the run only hovers. If S is
below 0, the run is called stationary, and the rate should be lowered. Delta-bar-delta uses the sign agreement of each
coordinate (§5.1).

**Source**: Pflug 1990; Chee & Toulis 2018, "Convergence diagnostics for stochastic gradient descent with constant
learning rate"; Jacobs 1988.

**Stands** first in the chain, where the updates are still the gradient.

**Differs from** Optax and torch, which have nothing like it. The cosine neither over- nor underflows for gradients of
any size.

**Costs**: one read of the updates and of the previous ones. These are kept: one number per parameter, in the
parameters' dtype or float32, whichever is wider. With `every=N` the step before a measured one is read too. If the host
chooses the steps, pass `measure="remember"` at that step.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName, total_over_shards
from gradtx._core.debugging import quotient
from gradtx._core.hyperparameters import NON_NEGATIVE, first_count, hyperparameter
from gradtx._core.trees import accumulators, compute_dtype, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .averages import vector_of
from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class GradientAlignmentState(NamedTuple):
    """State of `gradient_alignment`."""

    previous_gradient: Updates  # as the parameters: g_{k-1}
    previous_gradient_norm: jax.Array  # [2]: inverse scale, norm * inverse scale
    previous_gradient_at: jax.Array  # [] int32: the step of that gradient, -1 if there is none
    cosine: jax.Array  # []
    pflug: jax.Array  # []
    sign_agreement: jax.Array  # []
    gradient_alignment_count: jax.Array  # [] int32
    gradient_alignment_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {
            "gradient_alignment/cosine": self.cosine,
            "gradient_alignment/pflug": self.pflug,
            "gradient_alignment/sign_agreement": self.sign_agreement,
        }


def gradient_alignment(
    *, burn_in: ScalarOrSchedule = 0, every: int = 1, axis_name: AxisName = None
) -> GradientTransformationExtraArgs:
    """Cosine and sign agreement of consecutive gradients, and Pflug's running sum of their products.

    Args:
        burn_in: number of first steps that Pflug's sum leaves out, in [0, inf). The contribution of an initial
            transient would take long to wear off.
        every: steps from one measurement to the next.
        axis_name: inside `shard_map`, the mesh axis or axes that gradients are sharded over.

    Inside `accumulate` and `optax.MultiSteps` it compares the mean gradients of two whole steps.

    Raises:
        ValueError: an argument is out of range; at `init`, a leaf is complex.
        TypeError: an argument is of the wrong kind, or a leaf is not an array.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.gradient_alignment()
    >>> state = tx.init(jnp.zeros(2))
    >>> for g in (jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]), jnp.array([-1.0, 1.0])):
    ...     _, state = tx.update(g, state)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'gradient_alignment/cosine': -1.0, 'gradient_alignment/pflug': -2.0, 'gradient_alignment/sign_agreement': 0.0}
    """
    return instrument(alignment_measurement(burn_in), every, axis_name)


def alignment_measurement(burn_in: ScalarOrSchedule = 0) -> Measurement:
    """The measurement that `gradient_alignment` makes."""
    start = hyperparameter("gradient_alignment", "burn_in", burn_in, NON_NEGATIVE)

    def init(params: Params) -> GradientAlignmentState:
        unseen = unmeasured(), unmeasured(), unmeasured()
        norm = jnp.zeros(2, jnp.result_type(float))
        return GradientAlignmentState(accumulators(params, FLOAT32), norm, never(), *unseen, first_count(), never())

    def remember(state: GradientAlignmentState, observation: Observation) -> GradientAlignmentState:
        leaves, treedef = jax.tree.flatten(state.previous_gradient)
        kept = [old if g is None else g.astype(old.dtype)
                for old, g in zip(leaves, observation.updates_like(state.previous_gradient), strict=True)]  # fmt: skip
        return state._replace(
            previous_gradient=treedef.unflatten(kept),
            previous_gradient_norm=vector_of(*(x.astype(jnp.result_type(float)) for x in observation.relative_norm)),
            previous_gradient_at=observation.count,
        )

    def measure(state: GradientAlignmentState, observation: Observation) -> GradientAlignmentState:
        pairs = observation.moving(state.previous_gradient).values()
        cosine, product, agreement = _compared(observation, pairs, *state.previous_gradient_norm)
        is_next = (state.previous_gradient_at >= 0) & (state.previous_gradient_at == observation.count - 1)
        is_good = is_next & jnp.isfinite(product)
        counts = is_good & (observation.count.astype(product.dtype) > start(observation.count).astype(product.dtype))
        old_sum = jnp.where(jnp.isnan(state.pflug), 0, state.pflug)
        return remember(state, observation)._replace(
            cosine=jnp.where(is_next, cosine, state.cosine),
            pflug=jnp.where(counts, old_sum + product, state.pflug),
            sign_agreement=jnp.where(is_next, agreement, state.sign_agreement),
        )

    return Measurement("gradient_alignment", init, measure, remember, kept=("previous_gradient",), allow_complex=False)


def _compared(
    observation: Observation, pairs: Iterable[tuple[jax.Array, jax.Array]], inverse_p: jax.Array, relative_p: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cosine, inner product and agreement of signs."""
    float_dtype = jnp.result_type(float)
    inverse_g, relative_g = observation.relative_norm
    products, agreements, sizes = [], [], []
    for g, p in pairs:
        dtype = compute_dtype(g.dtype, p.dtype)
        terms = widen(g, dtype) * inverse_g.astype(dtype) * (widen(p, dtype) * inverse_p.astype(dtype))
        products.append(jnp.sum(terms).astype(float_dtype))
        same = ((g > 0) & (p > 0)) | ((g < 0) & (p < 0))
        agreements.append(jnp.sum(same).astype(float_dtype))
        sizes.append(jnp.full_like(agreements[-1], g.size))  # made from a count of g, so summed over devices alike
    scaled_product, agreeing, size = (
        total_over_shards(parts, observation.axis_name, float_dtype) for parts in (products, agreements, sizes)
    )
    lengths = relative_g.astype(float_dtype) * relative_p
    cosine = quotient(scaled_product, lengths, lengths > 0)
    product = scaled_product / inverse_g.astype(float_dtype) / jnp.where(inverse_p > 0, inverse_p, 1)
    return cosine, product, agreeing / jnp.maximum(size, 1)
