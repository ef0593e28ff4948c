"""The hyper-parameters that a sweep tries: a Cartesian grid, or points drawn at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradtx._core.arguments import checked_count

from .arguments import checked_keys


@dataclass(frozen=True, eq=False)
class RandomGrid:
    """The points of a random search: `columns` {name: [points]}, all of the same length."""

    columns: dict[str, np.ndarray]


def random_grid(
    ranges: Mapping[str, tuple[float, float]], num_points: int, key: jax.Array, *, linear: Sequence[str] = ()
) -> RandomGrid:
    """Draws points independently, uniform in the logarithm of each hyper-parameter.

    If only a few hyper-parameters matter, random points try more values of each than a grid of the same size (Bergstra
    & Bengio 2012).

    Args:
        ranges: name -> (low, high), both above 0 except for the names in `linear`.
        num_points: number of points.
        key: random key.
        linear: names of hyper-parameters that are drawn uniformly, not in their logarithm, such as a momentum.

    Raises:
        ValueError: if a number is out of range, or `ranges` lacks a name in `linear`.
        TypeError: if an argument is of another kind.

    >>> import jax
    >>> from gradtx import lab
    >>> grid = lab.random_grid({"learning_rate": (1e-3, 1.0), "momentum": (0.0, 0.99)}, 100, jax.random.key(0),
    ...                        linear=["momentum"])
    >>> print(0.001 <= grid.columns["learning_rate"].min() <= 0.002)
    True
    """
    checked_count("random_grid", "num_points", num_points)
    key = checked_keys("random_grid", "key", key, ndim=0)
    if not isinstance(ranges, Mapping) or not ranges:
        raise TypeError(f'random_grid: ranges must be a dict such as {{"learning_rate": (1e-3, 1.0)}}, got {ranges!r}.')
    unknown = set(linear) - set(ranges)
    if unknown:
        raise ValueError(f"random_grid: linear names {sorted(unknown)}, which ranges does not hold.")
    columns = {}
    for name, subkey in zip(ranges, jax.random.split(key, len(ranges)), strict=True):
        limits = np.asarray(ranges[name])
        if limits.shape != (2,) or limits.dtype.kind not in "fiu":
            raise TypeError(f"random_grid: the range of {name} must be (low, high), two numbers, got {ranges[name]!r}.")
        low, high = limits.tolist()
        if not (np.isfinite(limits).all() and low <= high and (name in linear or low > 0)):
            rule = "low <= high" if name in linear else "0 < low <= high"
            raise ValueError(f"random_grid: the range of {name} must be finite with {rule}, got {(low, high)}.")
        share = np.asarray(jax.random.uniform(subkey, (num_points,)), np.float64)
        columns[name] = low + share * (high - low) if name in linear else low * (high / low) ** share
    return RandomGrid(columns)


def checked_axes(caller: str, grid: Any) -> dict[str, np.ndarray]:
    """The values of each hyper-parameter, as numbers that can be traced."""
    columns = grid.columns if isinstance(grid, RandomGrid) else grid
    if not isinstance(columns, Mapping) or not columns:
        raise TypeError(f'{caller}: grid must be a dict such as {{"learning_rate": [0.1, 0.2]}}, got {grid!r}.')
    axes = {}
    for name, values in columns.items():
        axis = np.asarray(values)
        if axis.ndim != 1 or not axis.size or axis.dtype.kind not in "fiu":
            raise TypeError(
                f"{caller}: the grid's {name} must be a list of numbers, got {values!r}. Other values cannot be "
                f"traced: close over them in make_tx, and run one {caller} per value."
            )
        axes[str(name)] = axis
    return axes


def points(axes: dict[str, np.ndarray], is_random: bool) -> dict[str, np.ndarray]:
    """The values [points] of each hyper-parameter: the product of the axes in C order, or a random grid's columns."""
    product = (mesh.ravel() for mesh in np.meshgrid(*axes.values(), indexing="ij"))
    columns = axes.values() if is_random else product
    default = {"f": jnp.result_type(float), "i": jnp.int32, "u": jnp.int32}
    return {name: column.astype(default[column.dtype.kind]) for name, column in zip(axes, columns, strict=True)}


def check_values(caller: str, make_tx: Callable[..., Any], axes: dict[str, np.ndarray]) -> None:
    """Lets the method check the values before the sweep, where traced values would pass unchecked.

    Ranges are intervals, so it is enough to check the smallest and the largest values: two calls. Also raises if a
    value is NaN, or too large for the dtype of training.
    """
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    for name, axis in axes.items():
        bad = axis[np.isnan(axis) | (np.isfinite(axis) & (np.abs(axis.astype(float)) > largest))]
        if bad.size:
            raise ValueError(f"{caller}: the grid's {name} must be numbers of at most {largest:.2g}, got {bad[0]}.")
    for extreme in (np.min, np.max):
        try:
            make_tx(**{name: extreme(axis).item() for name, axis in axes.items()})
        except ValueError as error:
            raise ValueError(f"{caller}: {error}") from error
        except Exception:  # other errors with plain numbers may not occur with traced ones
            return


def untraceable_name(
    make_tx: Callable[..., optax.GradientTransformation], columns: dict[str, np.ndarray], params: Any
) -> str | None:
    """The hyper-parameter that cannot be traced, found by tracing one at a time, or None if each can be traced."""
    first = {name: column[0].item() for name, column in columns.items()}
    try:
        make_tx(**first)
    except TypeError:
        return None  # tracing is not the cause: it does not take plain numbers either

    def attempt(name: str, value: jax.Array) -> Any:
        tx = optax.with_extra_args_support(make_tx(**(first | {name: value})))
        return tx.update(params, tx.init(params), params)

    for name, column in columns.items():
        try:
            jax.eval_shape(partial(attempt, name), column[0])
        except TypeError:
            return name
    return None
