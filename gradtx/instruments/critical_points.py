"""Classifies the point at which descent stopped, by the gradient and both ends of the Hessian's spectrum.

    λ_min, λ_max    by Lanczos from a random start, each with its residual r = β_k |y_k|
    descending      ‖g‖ s > tol max(|L|, λ s²)                 not near a critical point
    plateau         λ s² <= tol |L|                            no gradient, no curvature
    saddle          λ_min < -noise and λ_max > noise           a way down, though the gradient is small
    minimum-like, maximum-like                                 all curvature that was found has one sign

| letter | meaning                                                                                       |
|--------|-----------------------------------------------------------------------------------------------|
| L, g   | loss and gradient at the point                                                                |
| λ      | the larger of the magnitudes of λ_min and λ_max                                               |
| s      | the size of the parameters: root mean square over all entries, at least 1                     |
| noise  | 32 eps λ: a curvature nearer to 0 is rounding (a flat valley, of curvature 0, shows as ±1e-7) |

Each comparison is between losses (the change over a move by s), so that a loss in other units (times a constant) is
judged the same. A large constant *added* to the loss makes everything look flat, so remove it.

**Why a residual**: k Lanczos steps never find more than the true |λ_min|. So a negative λ_min proves that there is a
way down, at any residual. If none was found, that proves nothing while the residual is large. That is why the kind is
called minimum-*like* and printed with the residual. Raise `num_iterations` until the residual is small against λ_max.

**Source**: Dauphin et al. 2014; Goodfellow et al. 2016, §8.2.2-8.2.3; chapter §2.2 and §2.3.

**Differs from** power iteration, which returns only the eigenvalue of largest magnitude, and neither end of
diag(3, -3, 1). It is exact on degenerate spectra (I, 0, diag(1, ..., 1, 10)), where Lanczos without a guard gives false
eigenvalues.

**When**: now and then, at a point where a run has stopped or hovers. To follow λ_max at every step of a run, use
`sharpness`, which takes one product per step.

**Costs**: `num_iterations` + 1 products of two gradients each; memory for `num_iterations` + 3 copies of the parameters
in float32 and one backward pass. Outside `jit`, each call compiles one product; under `jit`, one per Lanczos step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx._core.arguments import check_key, checked_count, checked_number
from gradtx._core.hyperparameters import NON_NEGATIVE
from gradtx._core.norms import tree_norm
from gradtx._core.ritz import ritz
from gradtx._core.types import Params

from .point import linearised, normal_like

KINDS = {  # each with the end of its sentence
    "descending": "",
    "minimum-like": "; no way down was found, to within the residual",
    "maximum-like": "; no way up was found, to within the residual",
    "saddle": "",
    "plateau": "; both gradient and curvature are too small to tell more",
}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class CriticalPoint:
    """The result of `critical_point`, a tree of arrays. Printing it gives a sentence."""

    lambda_min: jax.Array  # [] smallest eigenvalue of the Hessian that was found; the true one is not larger
    lambda_max: jax.Array  # [] largest eigenvalue that was found; the true one is not smaller
    residual_min: jax.Array  # [] an eigenvalue lies within this of lambda_min; 0 if Lanczos saw the whole space
    residual_max: jax.Array  # [] the same for lambda_max
    gradient_norm: jax.Array  # [] ‖g‖
    kind_index: jax.Array  # [] int32: the index of the kind in `KINDS`; -1 if a number is not finite

    @property
    def kind(self) -> str:
        """One of `KINDS`. It is a Python string, so it cannot be read inside `jit`.

        Raises:
            ValueError: the loss, its gradient or its curvature is not finite here; or there is more than one point.
        """
        if np.ndim(self.kind_index):
            raise ValueError("CriticalPoint: kind is of one point; take one with jax.tree.map(lambda x: x[i], points).")
        if self.kind_index < 0:
            raise ValueError(
                "critical_point: the loss, its gradient or its Hessian is not finite here: "
                f"gradient norm {self.gradient_norm:.6g}, curvature {self.lambda_min:.6g} to {self.lambda_max:.6g}. "
                "Call it where they are, such as at the last good parameters of the run."
            )
        return list(KINDS)[int(self.kind_index)]

    def __repr__(self) -> str:
        if isinstance(self.kind_index, Tracer) or np.ndim(self.kind_index) or self.kind_index < 0:
            return f"CriticalPoint(kind_index={self.kind_index!r})"
        return f"CriticalPoint({self})"

    def __str__(self) -> str:
        found = (
            f"gradient norm {self.gradient_norm:.3g}; curvature from {self.lambda_min:.3g} (residual "
            f"{self.residual_min:.1g}) to {self.lambda_max:.3g} (residual {self.residual_max:.1g})"
        )
        return f"{self.kind}: {found}{KINDS[self.kind]}"


def critical_point(
    value_fn: Callable[[Params], Any],
    params: Params,
    *,
    key: jax.Array,
    num_iterations: int = 20,
    gradient_tolerance: float = 1e-4,
    curvature_tolerance: float = 1e-4,
) -> CriticalPoint:
    """Classifies the point `params`: still descending, minimum-like, maximum-like, saddle or plateau.

    The function works inside `jit` and `vmap`, but `kind` has to be read outside.

    Args:
        value_fn: the loss, `params -> scalar`, twice differentiable. Minibatch noise is not considered: use all the
            data, or take the result as valid for this batch only.
        params: any tree of real floating arrays. Dtypes narrower than float32 are widened for `value_fn` too.
        key: a JAX random key, for the start vector.
        num_iterations: Lanczos steps, >= 1. With as many as there are parameters, the spectrum's ends are exact.
        gradient_tolerance: tol of "descending", in [0, inf). A run with a fixed rate and minibatches never comes
            as near as 1e-4; raise the tolerance to judge the place where it hovers.
        curvature_tolerance: tol of "plateau", in [0, inf).

    Raises:
        ValueError: a number out of range; a loss that is not a real scalar; a complex leaf; a loss, gradient or Hessian
            that is not finite (outside `jit`).
        TypeError: a leaf is not a floating array, `key` is not a key, or a number is of the wrong kind.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> found = gradtx.critical_point(lambda p: p["x"] ** 2 - p["y"] ** 2, {"x": 0.0, "y": 0.0}, key=jax.random.key(0))
    >>> print(found)
    saddle: gradient norm 0; curvature from -2 (residual 0) to 2 (residual 0)
    >>> found.kind
    'saddle'
    """
    check_key("critical_point", key)
    checked_count("critical_point", "num_iterations", num_iterations)
    checked_number("critical_point", "gradient_tolerance", gradient_tolerance, NON_NEGATIVE)
    checked_number("critical_point", "curvature_tolerance", curvature_tolerance, NON_NEGATIVE)
    point, value, gradient, product = linearised("critical_point", value_fn, params)
    size = sum(x.size for x in point)
    found = ritz(min(num_iterations, size))(product, normal_like(key, point))
    classify = jax.jit(partial(_classified, gradient_tolerance, curvature_tolerance))
    result = classify(point, value, gradient, found.values[jnp.array([0, -1])], found.residuals)
    if not isinstance(result.kind_index, Tracer):
        _ = result.kind  # raises if a number is not finite
    return result


def _classified(
    gradient_tolerance: float,
    curvature_tolerance: float,
    point: list[jax.Array],
    value: jax.Array,
    gradient: list[jax.Array],
    ends: jax.Array,
    residuals: jax.Array,
) -> CriticalPoint:
    """Applies the rules at the top of this file."""
    lambda_min, lambda_max = ends
    norm, length = tree_norm(gradient), tree_norm(point)
    s = jnp.maximum(1, length / sum(x.size for x in point) ** 0.5)
    curvature = jnp.maximum(-lambda_min, lambda_max)
    noise = 32 * jnp.finfo(value.dtype).eps * curvature
    is_small = norm * s <= gradient_tolerance * jnp.maximum(jnp.abs(value), curvature * s**2)
    is_flat = curvature * s**2 <= curvature_tolerance * jnp.abs(value)
    goes_down, goes_up = lambda_min < -noise, lambda_max > noise
    index = jnp.select([~is_small, is_flat, goes_down & goes_up, goes_up], [0, 4, 3, 1], 2)
    is_finite = jnp.isfinite(jnp.stack([value, norm, lambda_min, lambda_max])).all()
    index = jnp.where(is_finite, index, -1).astype(jnp.int32)
    return CriticalPoint(lambda_min, lambda_max, residuals[0], residuals[-1], norm, index)
