"""Has the run reached equilibrium with its gradient noise? Checks a balance that holds only in equilibrium.

    ratio   ⟨θ·g⟩ / ((1 + α) / (2 ε) ⟨‖v‖²⟩);   without momentum ⟨θ·g⟩ / (ε/2 ⟨‖g‖²⟩)

| letter | argument        | shape, dtype                                                                        |
|--------|-----------------|-------------------------------------------------------------------------------------|
| g      | updates         | as the parameters: the gradient                                                     |
| θ      | params          | before the step                                                                     |
| ε      | `learning_rate` | scalar or schedule, [0, inf)                                                        |
| α, v   | `momentum`      | scalar or schedule, [0, 1); v ← α v - ε g, as of `heavy_ball`                       |
| ⟨ ⟩    | `decay`         | scalar or schedule, [0, 1), or None: means over steps, see `averages.py`            |

**Why**: if ‖θ‖² no longer changes on average, E‖θ + v'‖² = E‖θ‖², so 2 E[θ·v'] + E‖v‖² = 0. With v' = α v - ε g and
E[θ·v] = E[θ·v'] + E‖v‖² this becomes E[θ·g] = (1 + α) / (2 ε) E‖v‖², for any loss, any noise and any step.

**Reads**: far from 1 the run is still on its way. If θ·g is large it moves inwards, and if θ·g is negative it moves
outwards. Within a few per cent of 1 the run hovers, and only a smaller rate or a larger batch lowers the loss any
further (chapter §4.1).

**Source**: Yaida 2019, "Fluctuation-dissipation relations for stochastic gradient descent"; the form above is derived
here.

**Differs from** Yaida's averages over the second half of the run, which need all values of the run. Optax and torch
have nothing like it.

**Stands** first in the chain, where the updates are still the gradient. The chain must be SGD, with or without
momentum.

**Costs**: one read of updates and parameters; with momentum one number per parameter, for a separate velocity.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.collectives import AxisName, total_over_shards
from gradtx._core.debugging import quotient
from gradtx._core.hyperparameters import BELOW_ONE, NON_NEGATIVE, first_count, hyperparameter
from gradtx._core.trees import accumulators, compute_dtype, widen
from gradtx._core.types import FLOAT32, GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .averages import averaged, means_of, no_average
from .instrument import Measurement, instrument, never
from .observation import Observation


class StationarityState(NamedTuple):
    """State of `stationarity`."""

    stationarity_velocity: Updates | None  # as the parameters: v; None without momentum
    stationarity_means: jax.Array  # [3]: means of the two sides of the balance, and their weight
    stationarity_count: jax.Array  # [] int32
    stationarity_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        left, right = jnp.moveaxis(means_of(self.stationarity_means), -1, 0)
        return {"stationarity/ratio": quotient(left, right, right > 0)}


def stationarity(
    learning_rate: ScalarOrSchedule,
    momentum: ScalarOrSchedule = 0.0,
    *,
    decay: ScalarOrSchedule | None = None,
    axis_name: AxisName = None,
) -> GradientTransformationExtraArgs:
    """The two sides of the fluctuation-dissipation relation, as a ratio: 1 at stationarity.

    It measures at every step, even with `measure=False`, because the velocity needs every step. This costs one inner
    product.

    Args:
        learning_rate: ε, the learning rate of the chain, in [0, inf).
        momentum: α, the momentum of the chain, in [0, 1).
        decay: decay of the means, in [0, 1); None looks back over about the last fifth of the run.
        axis_name: inside `shard_map`, the mesh axis or axes that gradients and parameters are sharded over.

    Inside `accumulate` and `optax.MultiSteps` g is the mean gradient of the whole step, as for the following stages.

    Raises:
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters. TypeError: one of the
            wrong kind.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, x = gradtx.stationarity(learning_rate=0.5), jnp.array([4.0])
    >>> _, state = tx.update(x, tx.init(x), x)  # 4 · 4 / (0.5/2 · 4²)
    >>> print(gradtx.readings(state)["stationarity/ratio"])
    4.0
    """
    rate = hyperparameter("stationarity", "learning_rate", learning_rate, NON_NEGATIVE)
    alpha = hyperparameter("stationarity", "momentum", momentum, BELOW_ONE)
    d = None if decay is None else hyperparameter("stationarity", "decay", decay, BELOW_ONE)
    has_momentum = not (isinstance(alpha.value, float) and alpha.value == 0)

    def init(params: Params) -> StationarityState:
        velocity = accumulators(params, FLOAT32) if has_momentum else None
        return StationarityState(velocity, no_average(2), first_count(), never())

    def measure(state: StationarityState, observation: Observation) -> StationarityState:
        ε, α = rate(observation.count), alpha(observation.count)
        left = _sum_of_products(observation.moving(observation.params).values(), axis_name)
        if state.stationarity_velocity is None:
            velocity, right = None, ε / 2 * observation.norm**2
        else:
            leaves, treedef = jax.tree.flatten(state.stationarity_velocity)
            new = [v if g is None else (α.astype(v.dtype) * v - ε.astype(v.dtype) * widen(g, v.dtype))
                   for v, g in zip(leaves, observation.updates_like(observation.params), strict=True)]  # fmt: skip
            velocity = treedef.unflatten(new)
            right = (1 + α) / (2 * ε) * _sum_of_products(zip(new, new, strict=True), axis_name)
        means = averaged(state.stationarity_means, None if d is None else d(observation.count), left, right)
        return state._replace(stationarity_velocity=velocity, stationarity_means=means)

    needs = ("params",)
    measurement = Measurement("stationarity", init, measure, needs=needs, allow_complex=False, sees_every_step=True)
    return instrument(measurement, 1, axis_name)


def _sum_of_products(pairs: Iterable[tuple[jax.Array, jax.Array]], axis_name: AxisName) -> jax.Array:
    products = []
    for a, b in pairs:
        dtype = compute_dtype(a.dtype, b.dtype)
        products.append(jnp.sum(widen(a, dtype) * widen(b, dtype)).astype(jnp.result_type(float)))
    return total_over_shards(products, axis_name, jnp.result_type(float))
