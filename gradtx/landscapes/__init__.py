"""Functions with known facts for the chapter's challenges: minima, saddles, cliffs, ill-conditioning."""

from collections.abc import Callable

from .curvature import beale as beale
from .curvature import quadratic as quadratic
from .curvature import rosenbrock as rosenbrock
from .landscape import Landscape as Landscape
from .minima import double_well as double_well
from .minima import himmelblau as himmelblau
from .minima import rastrigin as rastrigin
from .minima import scaled_product as scaled_product
from .minima import styblinski_tang as styblinski_tang
from .noise import noisy as noisy
from .slopes import asymptote_hill as asymptote_hill
from .slopes import cliff as cliff
from .slopes import monkey_saddle as monkey_saddle
from .slopes import plateau as plateau
from .slopes import saddle as saddle

# In the order of the chapter.
LANDSCAPES: dict[str, Callable[[], Landscape]] = {
    make().name: make for make in (
        quadratic, rosenbrock, beale, double_well, himmelblau, styblinski_tang, rastrigin, scaled_product,
        saddle, monkey_saddle, plateau, cliff, asymptote_hill,
    )
}  # fmt: skip
