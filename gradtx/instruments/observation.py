"""One step as the instruments see it: the updates, the parameters, and the loss along a direction.

Each quantity is computed once, when it is first needed. Instruments that share an `Observation` share its passes.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._core.arguments import scalar
from gradtx._core.callers import update_call
from gradtx._core.collectives import AxisName
from gradtx._core.gradients import aligned
from gradtx._core.micro_batches import last_share
from gradtx._core.norms import scaled_norm
from gradtx._core.trees import compute_dtype, widen
from gradtx._core.types import Params, Updates

from .batch_statistics import mixes_examples
from .directional import Along, along, trace_covariance
from .loss_functions import checked_loss

_WHAT = {
    "params": "the parameters",
    "value": "the loss's value",
    "value_fn": "the loss",
    "losses_fn": "the loss of each example",
}
_CALL = {"value": "value=value", "value_fn": "value_fn=loss", "losses_fn": "losses_fn=losses"}


@dataclass(eq=False)
class Observation:
    """One step as an instrument sees it. Errors name the instrument and the missing argument."""

    name: str
    axis_name: AxisName
    _extra: dict[str, Any]  # the other arguments of `update`
    count: jax.Array
    updates: Updates
    _params: Params | None
    _taken: Updates | None = None  # the update that the optimizer made from the gradient
    _traces: dict[tuple[int, int], tuple[jax.Array, int]] = field(default_factory=dict)

    @cached_property
    def gradients(self) -> list[jax.Array]:
        """The leaves of the updates, without those that are None."""
        return [g for g in aligned(self.name, self.updates, self._params)[0] if g is not None]

    @cached_property
    def step(self) -> "Observation":
        """The same, with the update that the optimizer made from the gradient in place of the gradient."""
        return Observation(self.name, self.axis_name, self._extra, self.count, self._taken, self._params)

    @property
    def params(self) -> Params:
        """The parameters before the step."""
        self.require(["params"])
        return self._params

    def updates_like(self, tree: Any) -> list[jax.Array | None]:
        """The updates, in the order of the leaves of a tree like the parameters; None for a leaf without an update."""
        return aligned(self.name, self.updates, tree)[0]

    def moving(self, tree: Any) -> dict[int, tuple[jax.Array, jax.Array]]:
        """The updates, each with its leaf of a tree like the parameters, by the number of the leaf.

        Leaves without an update are left out.
        """
        pairs = zip(self.updates_like(tree), jax.tree.leaves(tree), strict=True)
        return {i: (u, jnp.asarray(x)) for i, (u, x) in enumerate(pairs) if u is not None}

    @cached_property
    def relative_norm(self) -> tuple[jax.Array, jax.Array]:
        """(inverse scale, norm * inverse scale) of the updates. Both are finite even if the norm overflows."""
        return scaled_norm(self.gradients, self.axis_name)

    @property
    def norm(self) -> jax.Array:
        """Euclidean norm of the updates."""
        inverse_scale, relative = self.relative_norm
        return (relative / inverse_scale).astype(jnp.result_type(float))

    def require(self, needs: Iterable[str]) -> None:
        """Raises one error that names all missing arguments and ends in the complete call.

        `needs`: some of "params", "value", "value_fn", "losses_fn". The mean of `losses_fn` serves as `value_fn`.
        """
        wanted = [need for need in _WHAT if need in needs and not (need == "value_fn" and "losses_fn" in needs)]
        given = {name for name, x in (("params", self._params), *self._extra.items()) if x is not None}
        given |= {"value_fn"} if "losses_fn" in given else set()
        missing = [need for need in wanted if need not in given]
        if missing:
            call = update_call(_CALL[need] for need in wanted if need != "params")
            returns = ", losses(params) -> [batch]" if "losses_fn" in wanted else ""
            what = " and ".join(_WHAT[need] for need in missing)
            raise ValueError(f"{self.name} needs {what}: {call}{returns}.")

    @property
    def value(self) -> jax.Array:
        """The loss of the step's batch."""
        return scalar(self.name, "value", self._extra["value"])

    @property
    def losses_fn(self) -> Callable[[Params], jax.Array]:
        """params -> [B], the losses of the step's examples."""
        return checked_loss(self.name, "losses_fn", self._extra["losses_fn"])

    @property
    def value_fn(self) -> Callable[[Params], jax.Array]:
        """params -> [], the loss of the step's batch; the mean of `losses_fn` if only that was passed."""
        if self._extra.get("value_fn") is None:
            return lambda params: jnp.mean(self.losses_fn(params))
        return checked_loss(self.name, "value_fn", self._extra["value_fn"])

    def examples(self, batch: int) -> Any:
        """The number of examples that the gradient is the mean of, if `losses_fn` gives the losses of `batch`.

        It is larger than `batch` if the gradient was accumulated, as `losses_fn` is then that of the last micro-batch
        only. It is NaN if that micro-batch has no share in the mean, because its losses are those of padding.
        """
        share = last_share(self.name, self._extra)
        return batch if isinstance(share, float) and share == 1 else batch / jnp.where(share > 0, share, jnp.nan)

    @cached_property
    def direction(self) -> Updates:
        """The updates scaled to length 1, a tree like the parameters. Leaves without an update are 0.

        The length is 1 so that squares of gradients of any size stay finite. If the norm is 0 or NaN, all are 0.
        """
        inverse_scale, relative = self.relative_norm
        is_usable = relative > 0
        factor = jnp.where(is_usable, 1 / jnp.where(is_usable, relative, 1), 0)
        leaves, treedef = jax.tree.flatten(self.params)

        def unit(p: jax.Array, g: jax.Array | None) -> jax.Array:
            if g is None:
                return jnp.zeros_like(p)
            d = widen(g, compute_dtype(g.dtype)) * inverse_scale.astype(compute_dtype(g.dtype))
            return jnp.where(is_usable, d * factor.astype(d.dtype), 0).astype(jnp.asarray(p).dtype)

        return treedef.unflatten(map(unit, leaves, self.updates_like(self.params)))

    @cached_property
    def along(self) -> Along:
        """Losses, slopes and curvature along `direction`."""
        if self._extra.get("losses_fn") is not None:
            return along(self.losses_fn, self.params, self.direction)
        return along(lambda params: self.value_fn(params)[None], self.params, self.direction)

    def trace_covariance(self, num_probes: int, seed: int) -> tuple[jax.Array, int]:
        """tr Σ and B, as in `directional.py`; the probes are those of this step."""
        if (num_probes, seed) not in self._traces:
            params = jax.tree.map(jnp.asarray, self.params)
            if mixes_examples(self.losses_fn, params):
                warnings.warn(
                    f"{self.name}: in losses_fn the loss of an example depends on the other examples of its batch, as "
                    "with batch statistics. So the scatter of the losses' slopes tells nothing about single examples. "
                    "Let losses_fn use the running averages instead, as in evaluation.",
                    stacklevel=2,
                )
            self._traces[num_probes, seed] = trace_covariance(self.losses_fn, params, self.count, num_probes, seed)
        return self._traces[num_probes, seed]
