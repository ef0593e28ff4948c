"""The default panel: the other instruments' readings in one transformation, with each pass over the model made once.

**Stands** first in the chain, so it sees the gradient but not the updates. Each reading is as in its own instrument,
except for update_ratio. That is the ratio of the previous step, ‖θ_k - θ_{k-1}‖ / ‖θ_{k-1}‖, which is right for every
chain behind it.

**Costs**: two and a half gradients per measured step (one nested forward pass, one plain one), so less with `every=16`;
two numbers per parameter, the last gradient and the last parameters. **How often to measure**:

- `every=1` for a short run, or to look closely;
- `every=N` otherwise: the steps in between only carry the panel's numbers (see `periodic.py`);
- `measure=True | False | "remember"`, a static argument of the jitted step, if the host decides when to measure. This
  is the cheapest: a step without measurement is the plain step, and a measured step shares its forward pass with the
  model. Each choice is compiled once. Pass "remember" at the step before a measured one, for readings that compare the
  two steps:

      choices = {15: "remember", 0: True}  # every 16th step
      params, state = step(params, state, batch, measure=choices.get(k % 16, False))
"""

import functools
import itertools
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_seed, checked_count
from gradtx._core.hyperparameters import NON_NEGATIVE, NON_NEGATIVE_OR_INF, hyperparameter
from gradtx._core.types import GradientTransformationExtraArgs, Params, ScalarOrSchedule, Updates

from .alignment import alignment_measurement
from .clipping_events import clipping_measurement
from .curvature_ratio import curvature_measurement
from .gradient_norm import norm_measurement
from .gradient_tests import measurement_of_tests
from .instrument import Measurement, instrument, together
from .noise_scale import noise_measurement
from .update_ratio import last_update_measurement


class PanelState(NamedTuple):
    """State of `panel`: its instruments' numbers as two vectors, and the trees they compare with.

    The numbers are two vectors and not forty scalars, because passing forty more arrays into a compiled step and back
    took a third of the time of a step of logistic regression.
    """

    panel_numbers: jax.Array  # [N]
    panel_whole_numbers: jax.Array  # [M] int32
    panel_last_params: Params  # as the parameters: θ_{k-1}
    panel_last_gradient: Updates  # as the parameters: g_{k-1}
    panel_count: jax.Array  # [] int32
    panel_measured_at: jax.Array  # [] int32

    def readings(self) -> dict[str, jax.Array]:
        """The readings, by name."""
        return {name: value for state in split(self) for name, value in state.readings().items()}


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
        learning_rate: ε, the learning rate of the chain, for the curvature ratio.
        every: steps from one measurement to the next.
        max_norm: the limit of the clip that follows, for the clipping events.
        num_probes: random directions for tr Σ, >= 1, if there are more than 128 parameters.
        seed: seed of the probes; each step has its own.

    Batch statistics in `losses_fn` (BatchNorm in training mode) make the noise scale and the tests meaningless.
    `update` warns if it finds them. Let `losses_fn` use the running averages, as in evaluation.

    Inside `accumulate` and `optax.MultiSteps` gradients and updates are those of the whole step, and the noise scale
    and the tests count all its examples. Losses and curvature are those of its last micro-batch.

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
        ValueError: a number out of range; at `init`, a complex leaf; at `update`, no parameters or no losses.
        TypeError: an argument of the wrong kind.

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
    parts = measurements("panel", rate, limit, num_probes, seed)
    kept = ("panel_last_params", "panel_last_gradient")
    return instrument(together("panel", parts, joined, split, kept), every)


def measurements(
    name: str, rate: ScalarOrSchedule, limit: ScalarOrSchedule | None, num_probes: int, seed: int
) -> tuple[Measurement, ...]:
    """The measurements that the panel makes. Errors in the last two arguments name the transformation `name`."""
    checked_count(name, "num_probes", num_probes)
    check_seed(name, seed)
    return (
        norm_measurement(),
        last_update_measurement(),
        alignment_measurement(),
        clipping_measurement(limit),
        curvature_measurement(rate),
        measurement_of_tests(num_probes, seed),
        noise_measurement(None, num_probes, seed),
    )


_NAMES = tuple(m.name for m in measurements("panel", 0.0, None, 1, 0))
_LAST_UPDATE, _ALIGNMENT = _NAMES.index("last_update"), _NAMES.index("gradient_alignment")


def joined(states: tuple[Any, ...]) -> PanelState:
    """Joins the instruments' states into the panel's state."""
    leaves = jax.tree.leaves(_with(states, None, None, None, None))
    numbers, whole_numbers = ([x for x in leaves if x.dtype.kind == kind] for kind in "fi")
    return PanelState(
        panel_numbers=_row(numbers),
        panel_whole_numbers=_row(whole_numbers),
        panel_last_params=states[_LAST_UPDATE].last_params,
        panel_last_gradient=states[_ALIGNMENT].previous_gradient,
        panel_count=states[0].gradient_norm_count,
        panel_measured_at=states[0].gradient_norm_measured_at,
    )


def split(state: PanelState) -> tuple[Any, ...]:
    """Splits the panel's state into the instruments' states."""
    numbers, whole_numbers, *others = state
    treedef, like = _layout()
    at, found = Counter[str](), []
    for x in like:
        row = numbers if x.dtype.kind == "f" else whole_numbers
        part = row[..., at[x.dtype.kind] : at[x.dtype.kind] + x.size]  # a stack of states has more axes in front
        found.append(part.reshape(*row.shape[:-1], *x.shape))
        at[x.dtype.kind] += x.size
    return _with(treedef.unflatten(found), *others)


def _with(states: tuple[Any, ...], last_params: Any, last_gradient: Any, count: Any, at: Any) -> tuple[Any, ...]:
    """The instruments' states, with the fields that the panel keeps outside its two rows."""
    new = [s._replace(**{f"{name}_count": count, f"{name}_measured_at": at})
           for name, s in zip(_NAMES, states, strict=True)]  # fmt: skip
    new[_LAST_UPDATE] = new[_LAST_UPDATE]._replace(last_params=last_params)
    new[_ALIGNMENT] = new[_ALIGNMENT]._replace(previous_gradient=last_gradient)
    return tuple(new)


@functools.cache
def _layout() -> tuple[Any, list[jax.ShapeDtypeStruct]]:
    """The contents of the two rows, which are the same in every panel."""
    states = jax.eval_shape(lambda: tuple(m.init(()) for m in measurements("panel", 0.0, None, 1, 0)))
    leaves, treedef = jax.tree.flatten(_with(states, None, None, None, None))
    return treedef, leaves


def _row(arrays: list[jax.Array]) -> jax.Array:
    """Concatenates the arrays in one loop, which XLA does not do for `jnp.concatenate` (see `vector_of`)."""
    size = sum(x.size for x in arrays)
    ends = itertools.accumulate(x.size for x in arrays)
    placed = (jax.lax.pad(jnp.ravel(x), jnp.zeros((), x.dtype), [(end - x.size, size - end, 0)])
              for end, x in zip(ends, arrays, strict=True))  # fmt: skip
    return functools.reduce(jnp.add, placed)
