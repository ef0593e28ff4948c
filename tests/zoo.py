"""The zoo has one row for each public transformation. `tests/contract/` tests each promise on the rows."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

import gradtx


@dataclass(frozen=True)
class Row:
    """Describes a transformation for the tests of the contract."""

    name: str
    factory: Callable[..., Any]
    hyperparameters: dict[str, float]  # the numeric ones, with a value for the tests
    out_of_range: dict[str, tuple[float, ...]]  # values that must be refused
    fixed: dict[str, Any] = field(default_factory=dict)  # the other arguments
    flips_sign: bool = True
    is_elementwise: bool = True
    allows_complex: bool = True
    needs: frozenset[str] = frozenset()  # extra arguments of update
    needs_params: bool = False
    is_instrument: bool = False  # has readings, which may be NaN
    static: frozenset[str] = frozenset()  # arguments that optax.inject_hyperparams must not turn into arrays
    allows_sharding: bool = True
    checked_by: str = ""  # the transformation inside a wrapper, which refuses bad hyper-parameters
    keeps_another_form: bool = False  # only `state.restored()` has the user's tree
    skips: bool = False  # skips steps that are not finite
    is_part_of: str = ""  # another row that shows the same rule, so that this one's tests are in the second tier

    def __str__(self) -> str:
        return self.name

    def takes(self, argument: str) -> bool:
        return argument in inspect.signature(self.factory).parameters

    def make(self, **changes: Any) -> Any:
        return self.factory(**{**self.hyperparameters, **self.fixed, **changes})

    def extra(self) -> dict[str, Any]:
        known = {"value": jnp.float32(1.0), "value_fn": bowl, "losses_fn": bowls}
        return {name: known[name] for name in self.needs}


def bowl(params: Any) -> jax.Array:
    """Returns a convex quadratic of any tree, with curvatures 1, 2, 3, ... over its leaves."""
    total = jnp.zeros(())
    for curvature, leaf in enumerate(jax.tree.leaves(params), start=1):
        total = total + 0.5 * curvature * jnp.sum(leaf.astype(jnp.float32) ** 2)
    return total


def bowls(params: Any) -> jax.Array:
    """Returns the losses of three examples with different bowls and slopes. Their mean is `bowl`."""
    slope = sum((jnp.sum(jnp.sin(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))
    return bowl(params) * jnp.array([0.5, 1.0, 1.5]) + slope * jnp.array([1.0, -1.0, 0.0])


NOT_A_RATE = (-0.1, float("inf"), float("nan"))
NOT_BELOW_ONE = (-0.1, 1.0, 1.5, float("nan"))
NOT_A_FRACTION = (-0.1, 1.5, float("nan"))
NOT_A_LIMIT = (-0.1, float("nan"))

LR = {"learning_rate": (0.1, NOT_A_RATE)}
MOMENTUM = {"momentum": (0.9, NOT_BELOW_ONE)}
EPS = {"eps": (1e-6, NOT_A_RATE)}
DECAY = {"decay": (0.9, NOT_BELOW_ONE)}
ADAM = {"b1": (0.9, NOT_BELOW_ONE), "b2": (0.99, NOT_BELOW_ONE), **EPS}
ADAGRAD = {**EPS, "initial_accumulator": (0.0, NOT_A_RATE)}
DELTA_BAR_DELTA = {**LR, "increase": (0.05, NOT_A_RATE), "decrease": (0.2, NOT_A_FRACTION), **DECAY}


def row(name: str, factory: Callable[..., Any], table: dict[str, tuple[float, tuple[float, ...]]], **flags: Any) -> Row:
    return Row(name, factory, {k: v for k, (v, _) in table.items()}, {k: bad for k, (_, bad) in table.items()}, **flags)


def guarded_sgd(learning_rate, momentum):
    return gradtx.skip_nonfinite(gradtx.sgd(learning_rate, momentum), give_up_after=3)


def unspiked_sgd(learning_rate, momentum):
    return gradtx.skip_spikes(gradtx.sgd(learning_rate, momentum))


def chained_sgd(learning_rate, momentum):
    return gradtx.chain(gradtx.sgd(learning_rate, momentum))


def accumulated_sgd(learning_rate, momentum):
    return gradtx.accumulate(gradtx.sgd(learning_rate, momentum), every=1)


def stale_sgd(learning_rate, momentum):
    """Draws a delay that is always 0, so that there is a buffer and the numbers are those of the method."""
    return gradtx.stale(gradtx.sgd(learning_rate, momentum), delay=(1.0, 0.0, 0.0), key=jax.random.key(0))


def packed_adam(learning_rate, b1, b2, eps):
    return gradtx.packed(gradtx.adam(learning_rate, b1, b2, eps))


def stored_adam(learning_rate, b1, b2, eps):
    return gradtx.stored_as(gradtx.adam(learning_rate, b1, b2, eps), "8bit")


def observed(learning_rate, momentum):
    return gradtx.observed(gradtx.sgd(learning_rate, momentum))


BLOCK: dict[str, Any] = {"flips_sign": False}
NEWTON: dict[str, Any] = {
    "is_elementwise": False,
    "allows_sharding": False,
    "allows_complex": False,
    "needs": frozenset({"value_fn"}),
    "needs_params": True,
}
DAMPING = {"damping": (0.1, NOT_A_RATE)}


def instrument(
    factory: Callable[..., Any], table: dict[str, tuple[float, tuple[float, ...]]], *needs: str, **flags: Any
) -> Row:
    static = {"per_leaf", "every", "order", "num_probes", "num_iterations", "seed", "nesterov"}
    own = frozenset(static & set(inspect.signature(factory).parameters))
    flags = {"flips_sign": False, "is_instrument": True, "static": own, "needs": frozenset(needs), **flags}
    return row(factory.__name__, factory, table, **flags)


REAL: dict[str, Any] = {"allows_complex": False, "is_elementwise": False}
AT_PARAMS = REAL | {"needs_params": True}
INSTRUMENTS = [
    instrument(gradtx.gradient_norm, DECAY, fixed={"per_leaf": True}, is_elementwise=False),
    instrument(gradtx.update_ratio, {}, needs_params=True, is_elementwise=False),
    instrument(
        gradtx.clipping_events,
        {"max_norm": (0.5, NOT_A_LIMIT), "threshold": (2.5, (0.0, *NOT_A_RATE)), **DECAY},
        is_elementwise=False,
    ),
    instrument(gradtx.gradient_alignment, {"burn_in": (1.0, NOT_A_RATE)}, **REAL),
    instrument(gradtx.curvature_ratio, LR, "value_fn", **AT_PARAMS),
    instrument(gradtx.gain_ratio, {}, "value_fn", **AT_PARAMS),
    instrument(gradtx.gradient_tests, {}, "losses_fn", **AT_PARAMS),
    instrument(gradtx.gradient_noise_scale, DECAY, "losses_fn", **AT_PARAMS),
    instrument(gradtx.sharpness, LR | MOMENTUM, "value_fn", fixed={"num_iterations": 2}, **AT_PARAMS),
    instrument(gradtx.plateau, DECAY, "value"),
    instrument(gradtx.stationarity, LR | MOMENTUM | DECAY, **AT_PARAMS),
    instrument(gradtx.trajectory, {}, fixed={"every": 2}, needs_params=True, is_elementwise=False),
    instrument(gradtx.panel, LR | {"max_norm": (0.5, NOT_A_LIMIT)}, "losses_fn", is_part_of="observed", **AT_PARAMS),
]

ROWS = [
    row("sgd", gradtx.sgd, LR, is_part_of="sgd_momentum"),
    row("sgd_momentum", gradtx.sgd, LR | MOMENTUM),
    row("sgd_nesterov", gradtx.sgd, LR | MOMENTUM, fixed={"nesterov": True}),
    row("delta_bar_delta", gradtx.delta_bar_delta, DELTA_BAR_DELTA, allows_complex=False),
    row("adagrad", gradtx.adagrad, LR | ADAGRAD),
    row("rmsprop", gradtx.rmsprop, LR | DECAY | EPS, is_part_of="rmsprop_momentum"),
    row("rmsprop_momentum", gradtx.rmsprop, LR | DECAY | EPS | MOMENTUM),
    row("rmsprop_nesterov", gradtx.rmsprop, LR | DECAY | EPS | MOMENTUM, fixed={"nesterov": True}),
    row("adadelta", gradtx.adadelta, LR | DECAY | EPS),
    row("adam", gradtx.adam, LR | ADAM),
    row("newton", gradtx.newton, DAMPING, **NEWTON),
    row("newton_cg", gradtx.newton, DAMPING, fixed={"solver": "cg"}, is_part_of="newton", **NEWTON),
    row(
        "newton_saddle_free_cg",
        gradtx.newton,
        DAMPING,
        fixed={"saddle_free": True, "solver": "cg"},
        is_part_of="newton",
        **NEWTON,
    ),
    row("scale_by_learning_rate", gradtx.scale_by_learning_rate, LR, is_part_of="sgd_momentum"),
    row("heavy_ball", gradtx.heavy_ball, MOMENTUM, is_part_of="sgd_momentum", **BLOCK),
    row("nesterov", gradtx.nesterov, MOMENTUM, is_part_of="sgd_nesterov", **BLOCK),
    row(
        "scale_by_delta_bar_delta",
        gradtx.scale_by_delta_bar_delta,
        DELTA_BAR_DELTA,
        allows_complex=False,
        is_part_of="delta_bar_delta",
        **BLOCK,
    ),
    row("scale_by_adagrad", gradtx.scale_by_adagrad, ADAGRAD, is_part_of="adagrad", **BLOCK),
    row("scale_by_rms", gradtx.scale_by_rms, DECAY | EPS, is_part_of="rmsprop_momentum", **BLOCK),
    row("scale_by_adadelta", gradtx.scale_by_adadelta, DECAY | EPS, is_part_of="adadelta", **BLOCK),
    row("scale_by_adam", gradtx.scale_by_adam, ADAM, is_part_of="adam", **BLOCK),
    row("clip_by_value", gradtx.clip_by_value, {"max_abs": (0.5, NOT_A_LIMIT)}, allows_complex=False, **BLOCK),
    row("clip_by_norm", gradtx.clip_by_norm, {"max_norm": (0.5, NOT_A_LIMIT)}, is_elementwise=False, **BLOCK),
    row(
        "clip_by_global_norm",
        gradtx.clip_by_global_norm,
        {"max_norm": (0.5, NOT_A_LIMIT)},
        is_elementwise=False,
        **BLOCK,
    ),
    row("accumulate", accumulated_sgd, LR | MOMENTUM, checked_by="sgd"),
    row("mean_across", gradtx.mean_across, {}, fixed={"axis_name": None}, **BLOCK),
    row("stale", stale_sgd, LR | MOMENTUM, checked_by="sgd"),
    row("packed", packed_adam, LR | ADAM, checked_by="adam", keeps_another_form=True),
    row("skip_nonfinite", guarded_sgd, LR | MOMENTUM, is_elementwise=False, checked_by="sgd", skips=True),
    row("skip_spikes", unspiked_sgd, LR | MOMENTUM, is_elementwise=False, checked_by="sgd"),
    row("chain", chained_sgd, LR | MOMENTUM, checked_by="sgd"),
    # The contract's trees are small, so they stay in float32. test_stored.py tests large ones.
    row("stored_as", stored_adam, LR | ADAM, checked_by="adam"),
    row(
        "observed",
        observed,
        LR | MOMENTUM,
        checked_by="sgd",
        is_instrument=True,
        needs=frozenset({"losses_fn"}),
        **AT_PARAMS,
    ),
    *INSTRUMENTS,
]
