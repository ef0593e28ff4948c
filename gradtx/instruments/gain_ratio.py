"""Compares the decrease of the loss over a step with the predicted one, and shows where on the slope the step landed.

    gain_ratio   (L(θ) - L(θ + u)) / (-(g'u + ½ u'Hu)), all on the step's batch; order=1 leaves the curvature out
    alpha        -s_1 / s_0, the slopes along u at the ends of the step: -1 start, 0 bottom, 1 as high on the other side

| letter   | argument      | shape, dtype                                                                     |
|----------|---------------|----------------------------------------------------------------------------------|
| u        | updates       | as the parameters, real; added by `apply_updates`                                |
| L, g, H  | `value_fn` or | the loss of the step's batch, its gradient and Hessian; extra arguments of       |
|          | `losses_fn`   | `update`, params -> scalar or params -> [B], of which it is the mean             |
| s_0, s_1 |               | scalars: u'∇L(θ), u'∇L(θ + u)                                                    |

**Reads**: a gain ratio of 1 means that the quadratic model holds. Far from 1, the first two derivatives do not describe
the loss, as at a cliff (chapter §2.4). An alpha above 1 means that the step landed on the other side, higher up than
the start. On a quadratic this is more than twice as far as the bottom.

**Source**: the ratio of trust-region methods (Conn, Gould & Toint 2000, "Trust-Region Methods"); Schneider,
Dangel & Hennig 2021 (Cockpit, the α quantity).

**Differs from** Cockpit's α, which weighs losses and slopes of two different batches by their noise. Here both ends are
measured on one batch, so that the noise is the same and cancels, and only the slopes count.

**Stands** last in the chain, where the updates are those that will be added.

**Costs**: under `jit` one nested forward pass at θ (a plain one with order=1) and one forward pass at θ + u: 2 to 2.5
gradients. Outside `jit` both are nested.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.debugging import quotient
from gradtx._core.hyperparameters import first_count
from gradtx._core.types import GradientTransformationExtraArgs, Params

from .directional import Along, along
from .instrument import Measurement, instrument, never, unmeasured
from .observation import Observation


class GainRatioState(NamedTuple):
    """State of `gain_ratio`."""

    gain_ratio: jax.Array  # []
    step_alpha: jax.Array  # []
    gain_ratio_count: jax.Array  # [] int32
    gain_ratio_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {"gain_ratio/gain_ratio": self.gain_ratio, "gain_ratio/alpha": self.step_alpha}


def gain_ratio(*, order: int = 2, every: int = 1) -> GradientTransformationExtraArgs:
    """The actual decrease of the loss over the predicted one, and the place where the step landed.

    Args:
        order: 2 predicts with slope and curvature; the ratio is 1 for every step on a quadratic. 1 predicts with the
            slope only; the ratio is 1 - r on a quadratic, r as in `curvature_ratio`, and below 0 if the loss rose.
        every: steps from one measurement to the next.

    Inside `accumulate` and `optax.MultiSteps` u is the update of the whole step, and L is the loss of its last
    micro-batch, at both ends of the step. alpha is then NaN more often, as the step may lead uphill on that batch.

    Raises:
        ValueError: an argument out of range; at `init`, a complex leaf; at `update`, no parameters or no loss.
        TypeError: `every` is of the wrong kind.

    alpha is NaN if the step does not start downhill. Near a minimum both gains are lost in the rounding of the loss.

    >>> import gradtx, jax, jax.numpy as jnp, optax
    >>> loss = lambda x: 5.0 * x**2
    >>> tx = optax.chain(optax.sgd(0.15), gradtx.gain_ratio())
    >>> x = jnp.array(1.0)
    >>> _, state = tx.update(jax.grad(loss)(x), tx.init(x), x, value_fn=loss)  # from 1 to -0.5
    >>> print({name: round(float(value), 3) for name, value in gradtx.readings(state).items()})
    {'gain_ratio/gain_ratio': 1.0, 'gain_ratio/alpha': 0.5}
    """
    if order not in (1, 2):
        raise ValueError(f"gain_ratio: order must be 1 or 2, got {order!r}.")

    def init(_: Params) -> GainRatioState:
        return GainRatioState(unmeasured(), unmeasured(), first_count(), never())

    def measure(state: GainRatioState, observation: Observation) -> GainRatioState:
        before, after = _ends(observation)
        slope = before.slopes[0]
        predicted = -slope - (before.curvature / 2 if order == 2 else 0)
        gained = before.losses[0] - after.losses[0]
        return state._replace(
            gain_ratio=quotient(gained, predicted, predicted != 0),
            step_alpha=quotient(-after.slopes[0], slope, slope < 0),
        )

    measurement = Measurement("gain_ratio", init, measure, needs=("params", "value_fn"), allow_complex=False)
    return instrument(measurement, every)


def _ends(observation: Observation) -> tuple[Along, Along]:
    """The loss along the step, at its start and at its end."""
    leaves, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, observation.params))
    steps = [jnp.zeros_like(p) if u is None else u.astype(p.dtype)
             for p, u in zip(leaves, observation.updates_like(observation.params), strict=True)]  # fmt: skip
    step = treedef.unflatten(steps)
    end = treedef.unflatten([p + u for p, u in zip(leaves, steps, strict=True)])

    def loss(params: Params) -> jax.Array:
        return observation.value_fn(params)[None]

    return along(loss, observation.params, step), along(loss, end, step)
