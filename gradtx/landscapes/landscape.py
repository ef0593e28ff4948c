"""What a landscape is: a function R^n -> R together with the facts that are known of it."""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from .._core.types import ArrayLike

Kind = Literal["minimum-like", "maximum-like", "saddle", "plateau"]
Vector = ArrayLike | Sequence[float]
Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Landscape:
    """A function on vectors [dim] and the truth about it. Call it with a vector to evaluate it.

    Without a vector it gives itself, so that all read alike: `landscapes.saddle()` beside `landscapes.quadratic()`.
    The facts are float64 NumPy arrays that cannot be written to; values have the dtype of the vector. It is hashed by
    identity, so it can be a static argument of `jax.jit`.

    Kinds of critical points go by the signs of the Hessian's eigenvalues: both signs, "saddle"; none, "plateau"; one
    sign, "minimum-like" or "maximum-like", also where some are zero, as along a valley of minimisers.

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
    description: str  # one line: what it shows
    section: str  # of the chapter, such as "§2.3"
    source: str
    function: Callable[[jax.Array], jax.Array]  # [dim] -> []
    start: Any  # [dim]: where gradient descent with `learning_rate` shows what the landscape is for
    learning_rate: float
    minimum: float  # the infimum; -inf where unbounded below
    minimisers: Any  # [m, dim]: m = 0 where the infimum is not attained; representatives where they fill a curve
    critical_points: Sequence[tuple[Any, Kind]]  # points [dim] of zero gradient; representatives where infinitely many
    view: Box  # ((x_low, x_high), (y_low, y_high)): the first two coordinates, for pictures
    hessian_eigenvalues: Any = None  # [dim], ascending, where the Hessian is constant
    condition_number: float | None = None  # of the Hessian at the minimisers, where that is one finite number
    sigma: float = 0.0  # standard deviation of the gradient noise of `sample`, each coordinate

    def __post_init__(self) -> None:
        start = _constant(self.start)
        points = tuple((_constant(point), kind) for point, kind in self.critical_points)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "minimisers", _constant(self.minimisers).reshape(-1, start.size))
        object.__setattr__(self, "critical_points", points)
        if self.hessian_eigenvalues is not None:
            object.__setattr__(self, "hessian_eigenvalues", _constant(self.hessian_eigenvalues))

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.start.size

    @overload
    def __call__(self) -> "Landscape": ...

    @overload
    def __call__(self, vector: Vector) -> jax.Array: ...

    def __call__(self, vector: Vector | None = None) -> "Landscape | jax.Array":
        """f(vector), or itself."""
        return self if vector is None else self.function(self._checked(vector))

    def sample(self, x: Vector, key: jax.Array) -> jax.Array:
        """The loss that one noisy step sees: f(x) + σ ξ·x with ξ ~ N(0, I), so its gradient is ∇f(x) + σ ξ.

        The same key gives the same ξ, at every x. Without noise it is f(x).

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


def checked_dim(name: str, dim: Any) -> int:
    """`dim` as an int, if it is a whole number of at least 1."""
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        if isinstance(dim, float) and not math.isfinite(dim):
            raise ValueError(f"{name}: dim must be an integer of at least 1, got {dim!r}.")
        raise TypeError(f"{name}: dim must be an integer, got {dim!r} ({type(dim).__name__}).")
    number = operator.index(dim)
    if number < 1:
        raise ValueError(f"{name}: dim must be an integer of at least 1, got {number}.")
    return number


def _constant(values: Any) -> np.ndarray:
    array = np.array(values, np.float64)
    array.setflags(write=False)  # a fact shared by every caller
    return array
