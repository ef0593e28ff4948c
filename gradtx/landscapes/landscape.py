"""A landscape: a function R^n -> R together with known facts about it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.types import ArrayLike

Kind = Literal["minimum-like", "maximum-like", "saddle", "plateau"]
Vector = ArrayLike | Sequence[float]
Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Landscape:
    """A function on vectors [dim] with known facts. Call it with a vector to evaluate it.

    For a function of your own write `Landscape.of(function, start)`.

    Called without a vector it returns itself, so that `landscapes.saddle()` works like `landscapes.quadratic()`.
    The facts are read-only float64 NumPy arrays. Values have the dtype of the vector. A landscape is hashed by
    identity, so it can be a static argument of `jax.jit`.

    The kind of a critical point depends on the signs of the Hessian's eigenvalues. With both signs it is a "saddle",
    with only zeros a "plateau". With one sign it is "minimum-like" or "maximum-like", even if some eigenvalues are
    zero, as along a valley of minimisers.

    Raises:
        ValueError: the vector's shape is not [dim]. TypeError: it is complex.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx import landscapes
    >>> landscapes.saddle
    Landscape(saddle, dim=2)
    >>> print(landscapes.saddle(jnp.array([2.0, 1.0])), jax.grad(landscapes.saddle)(jnp.array([2.0, 1.0])))
    3.0 [ 4. -2.]
    """

    name: str
    description: str  # one line
    section: str  # section of the chapter, such as "§2.3"
    source: str
    function: Callable[[jax.Array], jax.Array]  # [dim] -> []
    start: Any  # [dim]: from here, gradient descent with `learning_rate` shows the challenge of the landscape
    learning_rate: float
    minimum: float  # the infimum; -inf if unbounded below
    minimisers: Any  # [m, dim]: m = 0 if the infimum is not attained; some examples if they fill a curve
    critical_points: Sequence[tuple[Any, Kind]]  # points [dim] of zero gradient; some examples if infinitely many
    view: Box  # ((x_low, x_high), (y_low, y_high)): the first two coordinates, for pictures
    hessian_eigenvalues: Any = None  # [dim], ascending, if the Hessian is constant
    condition_number: float | None = None  # of the Hessian at the minimisers, if it is one finite number
    sigma: float = 0.0  # standard deviation of the gradient noise of `sample`, per coordinate

    def __post_init__(self) -> None:
        start = _constant(self.start)
        points = tuple((_constant(point), kind) for point, kind in self.critical_points)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "minimisers", _constant(self.minimisers).reshape(-1, start.size))
        object.__setattr__(self, "critical_points", points)
        if self.hessian_eigenvalues is not None:
            object.__setattr__(self, "hessian_eigenvalues", _constant(self.hessian_eigenvalues))

    @classmethod
    def of(cls, function: Callable[[jax.Array], Any], start: Any, view: Any = None) -> "Landscape":
        """Makes a landscape of your own function, for `lab.run`, `lab.sweep` and the pictures. Unknown facts are NaN.

        Args:
            function: vector [dim] -> scalar, written with `jax.numpy`.
            start: [dim], the point at which runs begin.
            view: ((x_low, x_high), (y_low, y_high)), the ranges of the first two coordinates in pictures. For one
                coordinate (x_low, x_high) is enough. By default the start is in the middle, and each side is as far
                away as the start is from the origin, at least 2.

        Raises:
            ValueError: `start` is not a vector of finite numbers, `view` is empty, or `function` does not return a
                scalar. TypeError: `function` is not a function, or JAX cannot trace it.

        >>> import gradtx, jax
        >>> from gradtx import lab, landscapes
        >>> bowl = landscapes.Landscape.of(lambda x: x @ x, [2.0, -1.0])
        >>> walk = lab.run(bowl, gradtx.sgd(0.1), steps=20, key=jax.random.key(0))
        >>> print(bowl, bowl.view, f"{bowl(walk.params):.4f}")
        Landscape(function, dim=2) ((0.0, 4.0), (-3.0, 1.0)) 0.0007
        """
        if not callable(function):
            got = f"{function!r} ({type(function).__name__})"
            raise TypeError(f"Landscape.of: function must be a function of a vector, got {got}.")
        place = _numbers("start", start)
        if place.ndim != 1 or not place.size or not np.isfinite(place).all():
            raise ValueError(f"Landscape.of: start must be a vector of finite numbers, like [1.0, 2.0], got {start!r}.")
        _check_scalar(function, place)
        name = getattr(function, "__name__", type(function).__name__)
        return cls(
            name="function" if name == "<lambda>" else name,
            description="a user-defined function",
            section="",
            source="",
            function=function,
            start=place,
            learning_rate=math.nan,
            minimum=math.nan,
            minimisers=np.empty((0, place.size)),
            critical_points=(),
            view=_box_around(place) if view is None else _box(view),
        )

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.start.size

    @overload
    def __call__(self) -> "Landscape": ...

    @overload
    def __call__(self, vector: Vector) -> jax.Array: ...

    def __call__(self, vector: Vector | None = None) -> "Landscape | jax.Array":
        """Returns f(vector), or without a vector the landscape itself."""
        return self if vector is None else self.function(self._checked(vector))

    def sample(self, x: Vector, key: jax.Array) -> jax.Array:
        """The loss of one noisy step: f(x) + σ ξ·x with ξ ~ N(0, I), so its gradient is ∇f(x) + σ ξ.

        The same key gives the same ξ at every x. Without noise it returns f(x).

        >>> import jax, jax.numpy as jnp
        >>> from gradtx import landscapes
        >>> x, key = jnp.array([2.0, 1.0]), jax.random.key(0)
        >>> print(landscapes.saddle.sample(x, key) == landscapes.saddle(x))
        True
        """
        vector = self._checked(x)
        value = self.function(vector)
        if self.sigma == 0:
            return value
        return value + self.sigma * jnp.sum(jax.random.normal(key, vector.shape, vector.dtype) * vector)

    def _checked(self, vector: Vector) -> jax.Array:
        x = jnp.asarray(vector)
        if x.shape != (self.dim,):
            raise ValueError(f"{self.name}: the vector must have shape {(self.dim,)}, got {x.shape}.")
        if jnp.iscomplexobj(x):
            raise TypeError(f"{self.name}: the vector must be real, got dtype {x.dtype}.")
        return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))

    def __repr__(self) -> str:
        noise = f", sigma={self.sigma:g}" if self.sigma else ""
        return f"Landscape({self.name}, dim={self.dim}{noise})"


def _numbers(argument: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"Landscape.of: {argument} must hold numbers, got {values!r}.") from None


def _check_scalar(function: Callable[[jax.Array], Any], start: np.ndarray) -> None:
    try:
        value = jax.eval_shape(function, jax.ShapeDtypeStruct(start.shape, jnp.result_type(float)))
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError("Landscape.of: function must be written with jax.numpy; NumPy's cannot be traced.") from error
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        got = type(value).__name__ if shape is None else f"shape {shape} and dtype {dtype}"
        raise ValueError(f"Landscape.of: function must return a real floating scalar for the start, got {got}.")


def _box_around(start: np.ndarray) -> Box:
    reach = max(2.0, float(np.abs(start[:2]).max()))
    sides = [(float(x) - reach, float(x) + reach) for x in start[:2]]
    return sides[0], sides[-1]


def _box(view: Any) -> Box:
    sides = _numbers("view", view)
    if sides.shape == (2,):
        sides = np.stack([sides, sides])
    if sides.shape != (2, 2) or not np.isfinite(sides).all() or not (sides[:, 0] < sides[:, 1]).all():
        rule = "((x_low, x_high), (y_low, y_high)) with low < high"
        raise ValueError(f"Landscape.of: view must be {rule}, got {view!r}.")
    (left, right), (low, high) = sides.tolist()
    return (left, right), (low, high)


def _constant(values: Any) -> np.ndarray:
    array = np.array(values, np.float64)
    array.setflags(write=False)  # all callers share the array
    return array
