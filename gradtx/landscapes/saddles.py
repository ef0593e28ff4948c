"""Landscapes with a saddle that slows descent (chapter §2.3).

    saddle         x² - y²
    monkey_saddle  x³ - 3 x y²

At the origin of the monkey saddle both the gradient and the Hessian are zero, so its kind is "plateau". Three valleys
and three ridges meet there, but second derivatives do not show them.

>>> from gradtx import landscapes
>>> landscapes.saddle.critical_points[0][1], landscapes.monkey_saddle.critical_points[0][1]
('saddle', 'plateau')
"""

import math

import jax
import numpy as np

from .landscape import Landscape


def _saddle(x: jax.Array) -> jax.Array:
    return x[0] ** 2 - x[1] ** 2


saddle = Landscape(
    name="saddle",
    description="curvature of both signs: descent slows near the origin and escapes; Newton's method is attracted",
    section="§2.3",
    source="Goodfellow et al. 2016, §8.2.3",
    function=_saddle,
    start=[-1.5, 1e-3],
    learning_rate=0.05,
    minimum=-math.inf,
    minimisers=np.empty((0, 2)),
    critical_points=[([0.0, 0.0], "saddle")],
    view=((-2.0, 2.0), (-2.0, 2.0)),
    hessian_eigenvalues=[-2.0, 2.0],
)


def _monkey_saddle(x: jax.Array) -> jax.Array:
    return x[0] ** 3 - 3 * x[0] * x[1] ** 2


monkey_saddle = Landscape(
    name="monkey_saddle",
    description="three valleys meet where the Hessian vanishes, so that second derivatives call the point a plateau",
    section="§2.3",
    source="Hilbert & Cohn-Vossen 1932",
    function=_monkey_saddle,
    start=[1.2, 0.02],
    learning_rate=0.02,
    minimum=-math.inf,
    minimisers=np.empty((0, 2)),
    critical_points=[([0.0, 0.0], "plateau")],
    view=((-1.5, 1.5), (-1.5, 1.5)),
)
