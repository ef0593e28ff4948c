"""All landscapes, by name."""

from collections.abc import Callable

from .curvature import beale, quadratic, rosenbrock
from .global_structure import asymptote_hill, cliff, plateau
from .landscape import Landscape
from .minima import double_well, himmelblau, rastrigin, scaled_product, styblinski_tang
from .saddles import monkey_saddle, saddle

# In the order of the chapter.
LANDSCAPES: dict[str, Callable[[], Landscape]] = {
    "quadratic": quadratic,
    "rosenbrock": rosenbrock,
    "beale": beale,
    "double_well": double_well,
    "himmelblau": himmelblau,
    "styblinski_tang": styblinski_tang,
    "rastrigin": rastrigin,
    "scaled_product": scaled_product,
    "saddle": saddle,
    "monkey_saddle": monkey_saddle,
    "plateau": plateau,
    "cliff": cliff,
    "asymptote_hill": asymptote_hill,
}
