"""Landscapes of ill-conditioned curvature (chapter §2.1): steep walls limit the step, and the valley floor is long.

    quadratic    ½ xᵀ H x,  H = R diag(1, ..., κ) Rᵀ
    rosenbrock   (1 - x)² + 100 (y - x²)²
    beale        (1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²

>>> from gradtx import landscapes
>>> print(landscapes.rosenbrock.minimisers, f"{landscapes.rosenbrock.condition_number:.0f}")
[[1. 1.]] 2508
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count, checked_number
from gradtx._core.hyperparameters import Range

from .landscape import Landscape


def quadratic(condition_number: float = 100.0, dim: int = 2, rotation: float = 0.0) -> Landscape:
    """½ xᵀ H x with eigenvalues from 1 to κ in geometric steps. Gradient descent diverges at rates above 2 / κ.

    Args:
        condition_number: κ, in [1, inf). With dim=1 the only eigenvalue is 1, and so is the condition number.
        dim: number of coordinates, at least 1.
        rotation: radians, counter-clockwise: R turns the plane of axes 1 and 2, then that of 2 and 3, and so on. At 0
            the axes are the eigenvectors, which favours methods that scale each coordinate separately.

    Raises:
        ValueError: an argument is out of range or NaN. TypeError: it is of the wrong kind.

    **Source**: chapter §2.1; Goodfellow et al. 2016, §8.2.1.

    >>> from gradtx import landscapes
    >>> f = landscapes.quadratic(condition_number=10.0, dim=3)
    >>> print(f([0.0, 0.0, 1.0]), f.minimum, f.condition_number, f.hessian_eigenvalues)
    5.0 0.0 10.0 [ 1.    3.16 10.  ]
    """
    κ = checked_number("quadratic", "condition_number", condition_number, Range("[1, inf)", 1.0, math.inf))
    angle = checked_number("quadratic", "rotation", rotation, Range("(-inf, inf)", -math.inf, math.inf))
    dim = checked_count("quadratic", "dim", dim)
    eigenvalues = np.geomspace(1.0, κ, dim)
    axes = _rotation_matrix(dim, angle)  # columns: the eigenvectors
    H = (axes * eigenvalues) @ axes.T
    H = (H + H.T) / 2
    start = axes @ np.ones(dim)
    reach = float(max(1.5, 1.1 * np.abs(start).max()))

    def function(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray(H, x.dtype) * jnp.outer(x, x)) / 2  # not a matrix product, which accelerators round

    return Landscape(
        name="quadratic",
        description="an ill-conditioned bowl: the steepest axis limits the learning rate, the flattest needs it high",
        section="§2.1",
        source="Goodfellow et al. 2016, §8.2.1",
        function=function,
        start=start,
        learning_rate=1.8 / eigenvalues[-1],
        minimum=0.0,
        minimisers=[np.zeros(dim)],
        critical_points=[(np.zeros(dim), "minimum-like")],
        view=((-reach, reach), (-reach, reach)),
        hessian_eigenvalues=eigenvalues,
        condition_number=float(eigenvalues[-1]),
    )


def _rotation_matrix(dim: int, angle: float) -> np.ndarray:
    matrix = np.eye(dim)
    for i in range(dim - 1):
        plane = np.eye(dim)
        plane[i : i + 2, i : i + 2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix = plane @ matrix
    return matrix


def _rosenbrock(x: jax.Array) -> jax.Array:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


rosenbrock = Landscape(
    name="rosenbrock",
    description="a narrow curved valley: descent finds it at once, but follows it slowly because its floor bends",
    section="§2.1",
    source="Rosenbrock 1960",
    function=_rosenbrock,
    start=[-1.2, 1.0],  # Rosenbrock's start
    learning_rate=0.0015,
    minimum=0.0,
    minimisers=[[1.0, 1.0]],
    critical_points=[([1.0, 1.0], "minimum-like")],
    view=((-2.0, 2.0), (-1.0, 3.0)),
    condition_number=float(np.linalg.cond([[802.0, -400.0], [-400.0, 200.0]])),  # 2508
)


def _beale(x: jax.Array) -> jax.Array:
    u, v = x
    return (1.5 - u + u * v) ** 2 + (2.25 - u + u * v**2) ** 2 + (2.625 - u + u * v**3) ** 2


def _beale_saddle() -> np.ndarray:
    """The critical point that has no closed form.

    For a given y the function is a parabola in x, with its vertex at Σ c_i (1 - yⁱ) / Σ (1 - yⁱ)². At that vertex the
    derivative in y is zero if (y - 1)³ (2y - 1) (3y³ + 11y² + 10y + 5) = 0. The first factor belongs to the saddle at
    y = 1, the second to the minimiser, and the cubic to this point.
    """
    roots = np.roots([3.0, 11.0, 10.0, 5.0])
    y = roots[np.argmin(np.abs(roots.imag))].real
    gaps = 1 - y ** np.arange(1, 4)
    return np.array([gaps @ [1.5, 2.25, 2.625] / (gaps @ gaps), y])


_BEALE_JACOBIAN = np.array([[-1 / 2, 3.0], [-3 / 4, 3.0], [-7 / 8, 9 / 4]])  # of its three residuals, at (3, ½)

beale = Landscape(
    name="beale",
    description="a flat-floored valley between steep corners, and two saddles",
    section="§2.1",
    source="Beale 1958; Moré, Garbow & Hillstrom 1981, problem 5",
    function=_beale,
    start=[1.0, 1.0],  # as in Moré, Garbow & Hillstrom
    learning_rate=0.01,
    minimum=0.0,
    minimisers=[[3.0, 0.5]],
    critical_points=[([3.0, 0.5], "minimum-like"), ([0.0, 1.0], "saddle"), (_beale_saddle(), "saddle")],
    view=((-1.0, 4.5), (-3.0, 2.0)),
    condition_number=float(np.linalg.cond(_BEALE_JACOBIAN) ** 2),  # the Hessian is 2 JᵀJ at zero residuals
)
