"""Functions with known facts for the chapter's challenges: minima, saddles, cliffs, ill-conditioning."""

from .catalogue import LANDSCAPES as LANDSCAPES
from .curvature import beale as beale
from .curvature import quadratic as quadratic
from .curvature import rosenbrock as rosenbrock
from .global_structure import asymptote_hill as asymptote_hill
from .global_structure import cliff as cliff
from .global_structure import plateau as plateau
from .landscape import Landscape as Landscape
from .minima import double_well as double_well
from .minima import himmelblau as himmelblau
from .minima import rastrigin as rastrigin
from .minima import scaled_product as scaled_product
from .minima import styblinski_tang as styblinski_tang
from .noise import noisy as noisy
from .saddles import monkey_saddle as monkey_saddle
from .saddles import saddle as saddle
