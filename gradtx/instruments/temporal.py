"""Gradients through time: how much signal from the loss reaches each step of a recurrent net, or layer of a deep one.

    norm_t = ‖∂L/∂h_t‖,    slope = least-squares slope of log norm_t over t

**Which sign**: the slope is per step *forward*, in the order of the probes. If it is positive, the norms shrink on the
way back from the loss: the gradient *vanishes*. If it is negative, they grow on the way back: it *explodes*. If it is
zero, every step gets the same signal. In a linear net h_t = W h_{t-1} with W = ρ · orthogonal, slope = -log ρ exactly.

**Source**: Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013; chapter §2.5.

**When**: if a recurrent or deep net does not learn, to see which steps still get a signal from the loss. The gradient
norm of the weights does not show this, because the steps near the loss hide those without a signal.

**Differs from** hooks on a backward pass (torch): it is one gradient with respect to the probes, legal inside `jit`.

**How**: ∂L/∂h_t is the gradient with respect to a zero, a *probe*, that the model adds to h_t. One backward pass gives
all of them; the weights' gradient is not computed. In flax, `self.perturb("h", h)` inside the cell makes the probes.
They are the collection "perturbations" of `model.init` (under `nn.scan` with `variable_axes={"perturbations": 0}`), and
`value_fn = lambda params, probes: loss(model.apply({"params": params, "perturbations": probes}, x))`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx._core.arguments import check_function, loss_shape
from gradtx._core.debugging import quotient, unbounded
from gradtx._core.norms import tree_norm
from gradtx._core.types import Params


def temporal_gradients(
    value_fn: Callable[[Params, Any], Any], params: Params, probes: Any
) -> tuple[jax.Array, jax.Array]:
    """‖∂L/∂h_t‖ of every step or layer, and the slope of their logarithms (positive: vanishing, negative: exploding).

    Args:
        value_fn: `(params, probes) -> scalar` loss, which adds the probes to the hidden states.
        params: the first argument of `value_fn`, any tree of arrays of any dtypes.
        probes: zeros, in one of two forms. Either one array [time, ...], whose first axis is the step; it may be the
            only leaf of nested dicts, as in flax. Or one array per step or layer: a list in that order, or a dict in
            the order of its sorted keys, as JAX sorts them ("layer_10" before "layer_2"). The norm sums over all other
            axes, including the batch.

    Returns:
        norms [time], float32 or wider, and the slope, a scalar. Steps whose norm is 0 or not finite are left out of the
        slope. If only the last step gets a signal, the slope is inf; if fewer than two are left otherwise, it is NaN.

    Costs: the forward and backward pass of the hidden states. Legal inside `jit` and `vmap`.

    Raises:
        ValueError: the loss is not a real scalar; `probes` holds no step. TypeError: a probe is not a floating array.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> def loss(w, probes):
    ...     def step(h, probe):
    ...         return w * h + probe, None
    ...     h, _ = jax.lax.scan(step, jnp.ones(3), probes)
    ...     return jnp.sum(h**2)
    >>> norms, slope = gradtx.temporal_gradients(loss, 0.5, jnp.zeros((4, 3)))
    >>> print((norms / norms[-1]).round(3), slope.round(3))  # vanishing: half as much each step back; log 2 = 0.693
    [0.125 0.25  0.5   1.   ] 0.693
    """
    example = "value_fn=lambda params, probes: loss(params, probes)"
    check_function("temporal_gradients", "value_fn", value_fn, "the parameters and the probes", example)
    leaves = jax.tree.leaves(probes)
    for x in leaves:
        if not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)):
            got = f"dtype {x.dtype}" if hasattr(x, "dtype") else f"{x!r} ({type(x).__name__})"
            raise TypeError(f"temporal_gradients: probes must be real floating arrays, got {got}.")
    is_one_array = len(leaves) == 1 and not isinstance(probes, list | tuple)
    if not leaves or (is_one_array and (leaves[0].ndim == 0 or len(leaves[0]) == 0)):
        raise ValueError("temporal_gradients: probes must hold at least one step, as an array [time, ...] or a list.")
    loss_shape("temporal_gradients", value_fn, params, probes)

    @jax.jit
    def read(params: Params, probes: Any) -> tuple[jax.Array, jax.Array]:
        gradients = jax.tree.leaves(jax.grad(value_fn, argnums=1)(params, probes))
        norms = jax.vmap(tree_norm)(gradients[0]) if is_one_array else jnp.stack([tree_norm(g) for g in gradients])
        return norms, _log_slope(norms)

    return read(params, probes)


def _log_slope(norms: jax.Array) -> jax.Array:
    counted = (norms > 0) & jnp.isfinite(norms)
    count = jnp.sum(counted)
    logs = jnp.log(jnp.where(counted, norms, 1))
    t = jnp.arange(len(norms), dtype=norms.dtype)
    mean_t = jnp.sum(t * counted) / jnp.maximum(count, 1)
    from_mean = jnp.where(counted, t - mean_t, 0)
    slope = quotient(jnp.sum(from_mean * logs), jnp.sum(from_mean**2), count > 1)
    is_last_alone = counted[-1] & jnp.all(norms[:-1] == 0)
    return jnp.where(is_last_alone, unbounded(), slope) if len(norms) > 1 else slope
