"""Landscapes whose slope vanishes or misleads: saddles, a flat plain, a steep wall, a hill that descends to nowhere.

    saddle          x² - y²                                                                 (chapter §2.3)
    monkey_saddle   x³ - 3 x y²                                                             (chapter §2.3)
    plateau         1 - max(0, 1 - r²/6²)¹⁰,  r² = (x - 3)² + y²                            (chapter §2.3)
    cliff           ½ (σ(h_T) - 0.7)²,  h_t = w σ(h_{t-1}) + b,  h_0 = σ⁻¹(0.7),  T = 12   (chapter §2.4, §2.5)
    asymptote_hill  (x - 2) (x - 5) e^((x - 4) / 2) + ½ y²                                  (chapter §2.7)

At the origin of `monkey_saddle` both the gradient and the Hessian are zero, so its kind is "plateau". Three valleys and
three ridges meet there, but second derivatives do not show them. `plateau` is exactly flat beyond r = 6. Its start lies
inside, where the slope is so small that descent needs hundreds of steps to leave.

`cliff` is a recurrent network of one unit. Its gradient is a sum of products of up to T factors w σ'(h), which explode
once w > 4. h_0 is the fixed point that the network should reach, so every point of the line b = σ⁻¹(0.7) - 0.7 w is a
minimum of exactly 0. Three points represent the line. For w >= 0 there is no other critical point, because h_T always
grows with b; the difficulty is the wall, not a bad minimum.

>>> import jax, jax.numpy as jnp
>>> from gradtx import landscapes
>>> landscapes.saddle.critical_points[0][1], landscapes.monkey_saddle.critical_points[0][1]
('saddle', 'plateau')
>>> for point in ([7.0, -2.5], [6.0, -3.36]):
...     print(jnp.linalg.norm(jax.grad(landscapes.cliff)(jnp.array(point))))
0.0052
3.25
"""

import math

import jax
import jax.numpy as jnp
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


def _plateau(x: jax.Array) -> jax.Array:
    return 1 - jnp.maximum(0, 1 - ((x[0] - 3) ** 2 + x[1] ** 2) / 36) ** 10


plateau = Landscape(
    name="plateau",
    description="gradient and Hessian vanish on a wide plain, and there is a minimum beyond it",
    section="§2.3",
    source="Goodfellow et al. 2016, §8.2.3",
    function=_plateau,
    start=[-1.8, 0.6],
    learning_rate=1.0,
    minimum=0.0,
    minimisers=[[3.0, 0.0]],
    critical_points=[([3.0, 0.0], "minimum-like"), ([-5.0, 0.0], "plateau")],
    view=((-6.0, 7.0), (-5.0, 5.0)),
    condition_number=1.0,
)

_TARGET = 0.7
_LOGIT = math.log(_TARGET / (1 - _TARGET))
_ON_THE_LINE = [[w, _LOGIT - _TARGET * w] for w in (4.0, 4.5, 5.0)]


def _cliff(x: jax.Array) -> jax.Array:
    w, b = x
    h = jnp.asarray(_LOGIT, x.dtype)
    for _ in range(12):
        h = w * jax.nn.sigmoid(h) + b
    return (jax.nn.sigmoid(h) - _TARGET) ** 2 / 2


cliff = Landscape(
    name="cliff",
    description="a wall made by repeated products: a step at its foot throws the parameters far away, unless clipped",
    section="§2.4",
    source="Pascanu, Mikolov & Bengio 2013, §2.3 and Fig. 6; Goodfellow et al. 2016, §8.2.4",
    function=_cliff,
    start=[7.0, -2.5],
    learning_rate=1.0,
    minimum=0.0,
    minimisers=_ON_THE_LINE,
    critical_points=[(point, "minimum-like") for point in _ON_THE_LINE],
    view=((3.5, 9.0), (-4.5, 0.5)),
)


def _asymptote_hill(x: jax.Array) -> jax.Array:
    return (x[0] - 2) * (x[0] - 5) * jnp.exp((x[0] - 4) / 2) + x[1] ** 2 / 2


asymptote_hill = Landscape(
    name="asymptote_hill",
    description="the start is on the wrong side of a hill: descent goes left without end, along an asymptote",
    section="§2.7",
    source="Goodfellow et al. 2016, §8.2.7 and Fig. 8.4",
    function=_asymptote_hill,
    start=[-1.7, 2.0],
    learning_rate=0.1,
    minimum=-2.0,
    minimisers=[[4.0, 0.0]],
    critical_points=[([4.0, 0.0], "minimum-like"), ([-1.0, 0.0], "saddle")],
    view=((-16.0, 6.0), (-4.0, 4.0)),
    condition_number=2.5,
)
