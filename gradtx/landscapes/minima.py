"""Landscapes with several minima (chapter §2.2): equally good minima, worse ones, and a whole valley of minima.

    himmelblau       (x² + y - 11)² + (x + y² - 7)²
    styblinski_tang  ½ Σ (x_i⁴ - 16 x_i² + 5 x_i)
    rastrigin        Σ (10 + x_i² - 10 cos 2π x_i)
    double_well      ¼ (x² - 1)² + ½ y²
    scaled_product   ½ (w₁ w₂ - 1)²

`scaled_product` is the smallest network with weight-space symmetry: (a w₁, w₂ / a) is the same network for every a. So
its minimisers fill two curves, along which the Hessian has a zero eigenvalue. Only a few of them are listed here.

>>> from gradtx import landscapes
>>> print(landscapes.himmelblau.minimisers.shape, landscapes.styblinski_tang(dim=1).minimum)
(4, 2) -39.1662
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._core.arguments import checked_count

from .landscape import Kind, Landscape


def _himmelblau(x: jax.Array) -> jax.Array:
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def _himmelblau_critical_point(x: float, y: float) -> np.ndarray:
    """Refines an approximation that was read off a contour plot, by Newton's iteration on the gradient."""
    point = np.array([x, y])
    for _ in range(20):
        x, y = point
        first, second = x**2 + y - 11, x + y**2 - 7
        gradient = [4 * x * first + 2 * second, 2 * first + 4 * y * second]
        hessian = [[12 * x**2 + 4 * y - 42, 4 * x + 4 * y], [4 * x + 4 * y, 12 * y**2 + 4 * x - 26]]
        point = point - np.linalg.solve(hessian, gradient)
    return point


_NEAR_MINIMA = [(3.0, 2.0), (-2.8, 3.1), (-3.8, -3.3), (3.6, -1.8)]
_NEAR_SADDLES = [(-3.1, -0.1), (-0.1, -2.0), (0.1, 2.9), (3.4, 0.1)]
_HIMMELBLAU_MINIMISERS = [_himmelblau_critical_point(*point) for point in _NEAR_MINIMA]

himmelblau = Landscape(
    name="himmelblau",
    description="four equally good minima, four saddles between them, one hill: the start decides which one is found",
    section="§2.2",
    source="Himmelblau 1972",
    function=_himmelblau,
    start=[-0.5, -1.2],
    learning_rate=0.005,
    minimum=0.0,
    minimisers=_HIMMELBLAU_MINIMISERS,
    critical_points=[
        *((point, "minimum-like") for point in _HIMMELBLAU_MINIMISERS),
        *((_himmelblau_critical_point(*point), "saddle") for point in _NEAR_SADDLES),
        (_himmelblau_critical_point(-0.3, -0.9), "maximum-like"),
    ],
    view=((-6.0, 6.0), (-6.0, 6.0)),
)


def styblinski_tang(dim: int = 2) -> Landscape:
    """½ Σ (x_i⁴ - 16 x_i² + 5 x_i): a good and a bad valley in every coordinate. One of 2^dim local minima is best.

    Up to dim=3 all 3^dim critical points are listed, above that only the minimiser and one saddle next to it.

    Raises:
        ValueError: `dim` below 1. TypeError: it is not an integer.

    **Source**: Styblinski & Tang 1990; chapter §2.2.

    >>> from gradtx import landscapes
    >>> f = landscapes.styblinski_tang()
    >>> print(f.minimum, f.minimisers, len(f.critical_points))
    -78.3323 [[-2.9035 -2.9035]] 9
    """
    dim = checked_count("styblinski_tang", "dim", dim)
    best, hump, worse = np.sort(np.roots([4.0, 0.0, -32.0, 5.0]).real)  # of the derivative, all real
    return _separable(
        dim,
        lambda x: (x**4 - 16 * x**2 + 5 * x) / 2,
        valleys=[best, worse],
        hump=hump,
        reach=5.0,
        name="styblinski_tang",
        description="a good and a bad valley in every coordinate: descent ends in the one downhill of the start",
        source="Styblinski & Tang 1990",
        start=np.resize([1.0, -0.5], dim),
        learning_rate=0.01,
        minimum=float(dim * (best**4 - 16 * best**2 + 5 * best) / 2),
    )


def rastrigin(dim: int = 2) -> Landscape:
    """Σ (10 + x_i² - 10 cos 2π x_i): a bowl with a grid of local minima about one apart; those farther out are worse.

    Up to dim=3 it lists the 3^dim critical points whose coordinates are 0, the next hump or the next valley on the
    positive side. Above that it lists only the minimiser and one saddle next to it. Flipping signs gives further ones.

    Raises:
        ValueError: `dim` below 1. TypeError: it is not an integer.

    **Source**: Rastrigin 1974, as generalised by Mühlenbein, Schomisch & Born 1991; chapter §2.2.

    >>> from gradtx import landscapes
    >>> f = landscapes.rastrigin()
    >>> print(f([0.0, 0.0]), f([1.0, 1.0]))
    0.0 2.0
    """
    dim = checked_count("rastrigin", "dim", dim)
    return _separable(
        dim,
        lambda x: 10 + x**2 - 10 * jnp.cos(2 * jnp.pi * x),
        valleys=[0.0, _rastrigin_root(1.0)],
        hump=_rastrigin_root(0.5),
        reach=5.12,
        name="rastrigin",
        description="a bowl covered with local minima: descent stops in the nearest one, but noise may carry it on",
        source="Rastrigin 1974; Mühlenbein, Schomisch & Born 1991",
        start=np.resize([2.7, -1.6], dim),
        learning_rate=0.001,
        minimum=0.0,
    )


def _rastrigin_root(x: float) -> float:
    """A zero of the derivative of one coordinate, by Newton's iteration."""
    for _ in range(20):
        x -= (x + 10 * np.pi * np.sin(2 * np.pi * x)) / (1 + 20 * np.pi**2 * np.cos(2 * np.pi * x))
    return float(x)


def _separable(
    dim: int, term: Callable[[jax.Array], jax.Array], valleys: list[float], hump: float, reach: float, **facts: Any
) -> Landscape:
    """Σ term(x_i). Its critical points are all combinations of those of one coordinate. The first valley is best."""
    best = np.full(dim, valleys[0])
    if dim <= 3:
        points = [np.array(point) for point in itertools.product([*valleys, hump], repeat=dim)]
    else:
        points = [best, np.array([*best[1:], hump])]

    def kind(point: np.ndarray) -> Kind:
        humps = np.count_nonzero(point == hump)
        return "minimum-like" if humps == 0 else "maximum-like" if humps == dim else "saddle"

    return Landscape(
        section="§2.2",
        function=lambda x: jnp.sum(term(x)),
        minimisers=[best],
        critical_points=[(point, kind(point)) for point in points],
        view=((-reach, reach), (-reach, reach)),
        condition_number=1.0,  # at the minimiser every coordinate has the same curvature
        **facts,
    )


def _double_well(x: jax.Array) -> jax.Array:
    return (x[0] ** 2 - 1) ** 2 / 4 + x[1] ** 2 / 2


double_well = Landscape(
    name="double_well",
    description="two equally good minima and a saddle between them: the straight line from one to the other climbs",
    section="§2.2",
    source="Strogatz 1994, Nonlinear Dynamics and Chaos (conservative systems)",
    function=_double_well,
    start=[0.02, 1.5],
    learning_rate=0.1,
    minimum=0.0,
    minimisers=[[-1.0, 0.0], [1.0, 0.0]],
    critical_points=[([-1.0, 0.0], "minimum-like"), ([1.0, 0.0], "minimum-like"), ([0.0, 0.0], "saddle")],
    view=((-2.0, 2.0), (-2.0, 2.0)),
    condition_number=2.0,
)


def _scaled_product(w: jax.Array) -> jax.Array:
    return (w[0] * w[1] - 1) ** 2 / 2


_SAME_NETWORK = [[1.0, 1.0], [2.0, 0.5], [0.5, 2.0], [-1.0, -1.0], [-2.0, -0.5], [-0.5, -2.0]]

scaled_product = Landscape(
    name="scaled_product",
    description="weight-space symmetry: every point of two curves is the same network, and a minimum",
    section="§2.2",
    source="Goodfellow et al. 2016, §8.2.2",
    function=_scaled_product,
    start=[-0.6, 1.5],
    learning_rate=0.05,
    minimum=0.0,
    minimisers=_SAME_NETWORK,
    critical_points=[*((point, "minimum-like") for point in _SAME_NETWORK), ([0.0, 0.0], "saddle")],
    view=((-3.0, 3.0), (-3.0, 3.0)),
)
