"""Is the batch large enough? Four numbers show how far its gradient may be from the gradient of all data.

    standard_error   √(tr Σ / B)
    norm             √(tr Σ / B) / ‖g‖                          θ of the norm test
    inner_product    √(Var_i(g'g_i) / B) / ‖g‖²                 θ of the inner-product test
    orthogonality    √((tr Σ - Var_i(g'g_i) / ‖g‖²) / B) / ‖g‖  ν of the orthogonality test

| letter | argument                | shape, dtype                                                            |
|--------|-------------------------|-------------------------------------------------------------------------|
| g      | updates                 | as the parameters, real: the gradient of the batch's mean loss          |
| g_i    | `losses_fn` of `update` | params -> [B]; the gradient of example i of B                           |
| Σ      |                         | the covariance of the g_i, divisor B - 1                                |

**Reads**: a test passes below a tolerance that you choose. The norm test's θ is the length of the noise over the length
of g. As ‖g‖² contains both signal and noise, the noise is the longer part above 1/√2. The inner-product test's θ is the
standard deviation of the batch's slope along g, over the slope. At 0.5, a step that is two deviations off points
uphill. ν is the tangent of the usual angle between g and the gradient of all data: 1 is 45°, 5.7 is 80°. The standard
error falls as 1/√B, so halving it takes four times the batch (chapter §3). These meanings are derived here.

**Source**: Byrd, Chin, Nocedal & Wu 2012, eq. 3.9 (norm); Bollapragada, Byrd & Nocedal 2018, eq. 2.6 and 3.3 (inner
product, orthogonality); standard error: Goodfellow et al. 2016, §8.1.3.

**Stands** first in the chain, where the updates are still the gradient.

**Differs from** tests with per-example gradients (BackPACK, Opacus): one forward pass along g gives g'g_i for all i,
and one more along random signs gives tr Σ. With at most 128 parameters tr Σ is exact, computed coordinate by
coordinate. Any kind of layer works, because no gradient of a single example is formed.

**Costs**: 0.2-0.7 gradients for the inner product, and as much again per probe; the state holds no array of the
parameters' size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_seed, checked_count
from gradtx._core.debugging import quotient
from gradtx._core.hyperparameters import first_count
from gradtx._core.types import GradientTransformationExtraArgs, Params

from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class GradientTestsState(NamedTuple):
    """State of `gradient_tests`."""

    standard_error: jax.Array  # []
    inner_product_test: jax.Array  # []
    norm_test: jax.Array  # []
    orthogonality_test: jax.Array  # []
    gradient_tests_count: jax.Array  # [] int32
    gradient_tests_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {
            "gradient_tests/standard_error": self.standard_error,
            "gradient_tests/inner_product": self.inner_product_test,
            "gradient_tests/norm": self.norm_test,
            "gradient_tests/orthogonality": self.orthogonality_test,
        }


def gradient_tests(*, num_probes: int = 1, seed: int = 0, every: int = 1) -> GradientTransformationExtraArgs:
    """Standard error of the batch's gradient, and the norm, inner-product and orthogonality tests.

    Args:
        num_probes: random directions for tr Σ, >= 1, if there are more than 128 parameters. The inner product does
            not need them.
        seed: seed of the probes; each step has its own.
        every: steps from one measurement to the next.

    If the loss of one example depends on the others (BatchNorm in training mode, contrastive losses), Σ is not a
    covariance of single examples, and the readings are meaningless. `update` warns if it finds this in `losses_fn`. Let
    `losses_fn` use the running averages, as in evaluation.

    Inside `accumulate` and `optax.MultiSteps` B is the number of examples of the whole step: those of the last
    micro-batch, divided by its share in the mean. Σ and the slopes are estimated from the last micro-batch.

    Raises:
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters or no losses.
        TypeError: one of the wrong kind.

    All readings are NaN for a batch of one example, which has no spread.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> losses = lambda x: 0.5 * (x - jnp.array([0.0, 2.0, 4.0, 6.0])) ** 2  # gradients 4, 2, 0, -2: variance 20/3
    >>> tx, x = gradtx.gradient_tests(), jnp.array(4.0)
    >>> _, state = tx.update(jnp.array(1.0), tx.init(x), x, losses_fn=losses)
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})  # √(20/3 / 4) = 1.291
    {'gradient_tests/standard_error': 1.291, 'gradient_tests/inner_product': 1.291, 'gradient_tests/norm': 1.291, \
'gradient_tests/orthogonality': 0.0}
    """
    return instrument(measurement_of_tests(num_probes, seed), every)


def measurement_of_tests(num_probes: int = 1, seed: int = 0) -> Measurement:
    """The measurement that `gradient_tests` makes."""
    checked_count("gradient_tests", "num_probes", num_probes)
    check_seed("gradient_tests", seed)

    def init(_: Params) -> GradientTestsState:
        unseen = unmeasured(), unmeasured(), unmeasured(), unmeasured()
        return GradientTestsState(*unseen, first_count(), never())

    def measure(state: GradientTestsState, observation: Observation) -> GradientTestsState:
        slopes = observation.along.slopes.astype(jnp.result_type(float))
        if len(slopes) == 1:
            return state._replace(**dict.fromkeys(state._fields[:4], unmeasured()))
        count = observation.examples(len(slopes))
        parallel = jnp.var(slopes, ddof=1)  # of the part along g, in units of the gradient
        total = observation.trace_covariance(num_probes, seed)[0].astype(slopes.dtype)
        standard_error = jnp.sqrt(total / count)

        def over_norm(noise: jax.Array) -> jax.Array:
            return quotient(noise, observation.norm, observation.norm > 0)

        return state._replace(
            standard_error=standard_error,
            inner_product_test=over_norm(jnp.sqrt(parallel / count)),
            norm_test=over_norm(standard_error),
            orthogonality_test=over_norm(jnp.sqrt(jnp.maximum(0, total - parallel) / count)),
        )

    return Measurement("gradient_tests", init, measure, needs=("params", "losses_fn"), allow_complex=False)
